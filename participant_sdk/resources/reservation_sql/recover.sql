-- In doubt and ended by hand: from the index of those, whatever the number of finished ones.
select
    phase, vote, heuristic, xid, prepared_unix_ms, incarnation, sequence,
    tenant, request_id, request_digest, participants, answer, reason
from pincex.branches
where log = %(log)s and phase in (2, 5) and (%(after)s::uuid is null or xid > %(after)s::uuid)
order by xid
limit %(limit)s
