select 'trades being settled or reversed' as what, count(*) as many
from settlement.trades as t
where t.status = 1 or (t.status = 2 and t.reversal is not null)
