-- What is visible may not be durable yet, as in apply_batch: the answer waits behind a record of its own. It is
-- written after the snapshot was taken, so behind all that is read.
with waited as materialized (select pg_logical_emit_message(true, 'pincex', '') as record)
select m.incarnation, max(m.sequence)
from waited as w
cross join pincex.watermarks as m
where m.log = %(log)s
group by m.incarnation
