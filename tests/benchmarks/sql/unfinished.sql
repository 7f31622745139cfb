-- How many decisions the log's checkpoints do not call finished.
select count(*)
from txlog.decisions as d
left join txlog.checkpoints as c using (incarnation)
where d.sequence > coalesce(c.finished_through, 0) or d.xid = any (c.stragglers)
