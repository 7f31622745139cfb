-- Where a window of so many rows after an xid ends; no row where it is the last.
select b.xid
from pincex.branches as b
where b.log = %(log)s and (%(after)s::uuid is null or b.xid > %(after)s::uuid)
order by b.xid
offset %(size)s
limit 1
