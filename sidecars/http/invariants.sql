-- What must always be true of the journal. Each row returned is a violation, named and described; none is sound.
-- Read in one statement, so in one snapshot.

-- The service holds something for whatever is in doubt.
select 'IN_DOUBT_NOT_HELD' as violation, format('branch %s, xid %s', b.branch, b.xid) as detail
from pincex.branches as b
left join http.held as h on h.branch = b.branch
where b.phase = 2 and h.state is distinct from 2

union all
-- What is asked or owed fits what was voted and decided. A finished branch may have been dropped since.
select 'STATE_NOT_BRANCH', format('branch %s, xid %s, state %s, phase %s', h.branch, h.xid, h.state, b.phase)
from http.held as h
left join pincex.branches as b on b.log = h.log and b.xid = h.xid
where case
    when b.phase is null then
        h.state = 2 or h.branch > (select l.pruned_branch from pincex.logs as l where l.log = h.log)
    when h.state = 1 then b.phase <> 4 or b.vote <> 3
    when h.state = 2 then b.phase <> 2
    when h.state = 3 then not coalesce(b.phase = 3 or (b.phase = 5 and b.heuristic = 1), false)
    else not coalesce(b.phase = 4 or (b.phase = 5 and b.heuristic = 2), false)
end
