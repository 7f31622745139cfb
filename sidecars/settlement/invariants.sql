-- What must always be true of settlement. Each row returned is a violation, named and described; none is sound.
-- Read in one statement, so in one snapshot.

-- What some are owed, others owe: positions sum to nothing, in every currency.
select 'POSITIONS_NOT_ZERO' as violation, format('%s: %s', p.currency, sum(p.net)) as detail
from settlement.positions as p group by p.currency having sum(p.net) <> 0

union all
-- A position is what the trades that are final make it.
select 'POSITION_NOT_TRADES', format(
    '%s %s: net %s, trades %s', coalesce(p.user_id, l.user_id), coalesce(p.currency, l.currency),
    coalesce(p.net, 0), coalesce(l.net, 0)
)
from settlement.positions as p
full join (
    select n.user_id, n.currency, sum(n.amount) as net from settlement.lines as n group by n.user_id, n.currency
) as l on l.user_id = p.user_id and l.currency = p.currency
where coalesce(p.net, 0) <> coalesce(l.net, 0)

union all
-- A trade that is final was delivered once and paid once, in its two currencies, between its two parties.
select 'LEG_MISSING', format('trade %s: %s', t.trade_id, coalesce(g.legs, 'none'))
from settlement.trades as t
left join (
    select
        l.trade_id, string_agg(l.leg, ', ' order by l.leg) as legs,
        count(*) filter (where l.leg = 'delivery') as deliveries,
        count(*) filter (where l.leg = 'payment') as payments,
        count(distinct l.currency) filter (where l.leg in ('delivery', 'payment')) as currencies,
        bool_and(l.giver <> l.taker) as are_two
    from settlement.legs as l
    where not l.is_reversal
    group by l.trade_id
) as g on g.trade_id = t.trade_id
where t.status > 1
and not coalesce(g.deliveries = 1 and g.payments = 1 and g.currencies = 2 and g.are_two, false)

union all
-- What was paid is price times amount, rounded down to what the currency is divided into.
select 'LEGS_DISAGREE', format('trade %s: %s of %s at %s', t.trade_id, t.quote_amount, t.amount, t.price)
from settlement.trades as t
where t.quote_amount <> trunc(t.amount * t.price, t.quote_scale)

union all
-- A reversed trade nets to nothing.
select 'REVERSED_NOT_NOTHING', format('trade %s, %s %s: %s', l.trade_id, l.user_id, l.currency, sum(l.amount))
from settlement.lines as l
join settlement.trades as t on t.trade_id = l.trade_id
where t.status = 3
group by l.trade_id, l.user_id, l.currency
having sum(l.amount) <> 0

union all
-- A trade is being settled by a branch in doubt, and for nothing else.
select 'SETTLING_WITHOUT_BRANCH', format('trade %s, phase %s', t.trade_id, b.phase)
from settlement.trades as t
left join pincex.branches as b on b.branch = t.branch
where t.status = 1 and b.phase is distinct from 2

union all
-- A trade is being reversed by a branch in doubt.
select 'REVERSING_WITHOUT_BRANCH', format('trade %s, phase %s', t.trade_id, b.phase)
from settlement.trades as t
left join pincex.branches as b on b.branch = t.reversal
where t.status = 2 and t.reversal is not null and b.phase is distinct from 2

union all
-- What is final was settled, and reversed, by branches that are committed, by decision or by hand, or that were
-- dropped since.
select 'FINAL_WITHOUT_BRANCH', format('trade %s, %s, phase %s', f.trade_id, f.what, b.phase)
from (
    select t.trade_id, 'settled' as what, t.branch from settlement.trades as t where t.status > 1
    union all
    select t.trade_id, 'reversed', t.reversal from settlement.trades as t where t.status = 3
) as f
left join pincex.branches as b on b.branch = f.branch
where case
    when b.phase is null then f.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    else b.phase is distinct from 3 and not (b.phase is not distinct from 5 and b.heuristic is not distinct from 1)
end

union all
-- A branch that is in doubt or committed settles or reverses something.
select 'BRANCH_WITHOUT_TRADE', format('xid %s', b.xid)
from pincex.branches as b
where (b.phase in (2, 3) or b.heuristic = 1) and b.phase <> 4
and not exists (select from settlement.trades as t where t.branch = b.branch)
and not exists (select from settlement.trades as t where t.reversal = b.branch)
