-- Decided, and not yet done at the service: to whoever recovers they are in doubt still.
select
    b.phase, b.vote, b.heuristic, b.xid, b.prepared_unix_ms, b.incarnation, b.sequence,
    b.tenant, b.request_id, b.request_digest, b.participants, b.answer, b.reason
from http.held as h
join pincex.logs as l on l.log = h.log
join pincex.branches as b on b.log = h.log and b.xid = h.xid
where
    l.log_id = %(log_id)s and h.state in (3, 4) and b.phase in (3, 4) and b.vote = 1
    and (%(after)s::uuid is null or h.xid > %(after)s::uuid)
order by h.xid
limit %(limit)s
