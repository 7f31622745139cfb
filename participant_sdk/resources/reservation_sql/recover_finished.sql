-- With the committed ones above the given sequences, incarnation by incarnation.
select
    b.phase, b.vote, b.heuristic, b.xid, b.prepared_unix_ms, b.incarnation, b.sequence,
    b.tenant, b.request_id, b.request_digest, b.participants, b.answer, b.reason
from pincex.branches as b
left join unnest(%(incarnations)s, %(sequences)s) as a (incarnation, sequence) on a.incarnation = b.incarnation
where
    b.log = %(log)s
    and (b.phase in (2, 5) or (b.phase = 3 and coalesce(b.sequence, 0) > coalesce(a.sequence, 0)))
    and (%(after)s::uuid is null or b.xid > %(after)s::uuid)
order by b.xid
limit %(limit)s
