select 'workflows that go on, or are stuck' as what, count(*) as many
from txlog.workflows as w where w.phase in (1, 2)
union all
select 'heuristic ends that nobody has forgotten', count(*)
from txlog.heuristics as h where h.forgotten_at is null
