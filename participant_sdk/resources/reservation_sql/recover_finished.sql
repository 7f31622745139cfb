-- With the committed ones above the given sequences, of the incarnations that have any: from one window of the
-- primary key. What is visible may not be durable yet: the answer waits behind a record of its own, see watermarks.
with waited as materialized (select pg_logical_emit_message(true, 'pincex', '') as record)
select
    b.phase, b.vote, b.heuristic, b.xid, b.prepared_unix_ms, b.incarnation, b.sequence,
    b.tenant, b.request_id, b.request_digest, b.participants, b.answer, b.reason
from waited as w
cross join pincex.branches as b
left join unnest(%(incarnations)s, %(sequences)s) as a (incarnation, sequence) on a.incarnation = b.incarnation
where
    b.log = %(log)s
    and (%(after)s::uuid is null or b.xid > %(after)s::uuid)
    and (%(upto)s::uuid is null or b.xid <= %(upto)s::uuid)
    and (b.phase in (2, 5) or (b.phase = 3 and b.sequence > a.sequence))
order by b.xid
limit %(limit)s
