-- What must always be true of the orders. Each row returned is a violation, named and described; none is sound.
-- Read in one statement, so in one snapshot.

-- An order waits for its branch, and for nothing else.
select 'PENDING_WITHOUT_BRANCH' as violation, format('order %s, phase %s', o.order_id, b.phase) as detail
from trading.orders as o
left join pincex.branches as b on b.branch = o.branch
where o.status = 1 and b.phase is distinct from 2

union all
-- In a book, or once in it, is what a committed branch placed; rejected is what a rolled back one did. Either
-- branch may have been dropped since.
select 'STATUS_NOT_BRANCH', format('order %s, status %s, phase %s', o.order_id, o.status, b.phase)
from trading.orders as o
left join pincex.branches as b on b.branch = o.branch
where case
    when o.status in (2, 3, 4) and b.phase is null then
        o.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    when o.status in (2, 3) then not coalesce(b.phase = 3 or (b.phase = 5 and b.heuristic = 1), false)
    when o.status = 4 then not coalesce(b.phase = 4 or (b.phase = 5 and b.heuristic = 2), false)
end

union all
-- An order is being cancelled by a branch in doubt, and is in its book until then.
select 'CANCELLING_WITHOUT_BRANCH', format('order %s, status %s, phase %s', o.order_id, o.status, b.phase)
from trading.orders as o
left join pincex.branches as b on b.branch = o.cancelling
where o.cancelling is not null and (o.status <> 2 or b.phase is distinct from 2)

union all
-- A book's last number is the highest in it.
select 'BOOK_NUMBER_WRONG', format('%s: last %s, highest %s', k.symbol, k.last_sequence, coalesce(o.highest, 0))
from trading.books as k
left join (select d.symbol, max(d.sequence) as highest from trading.orders as d group by d.symbol) as o
    on o.symbol = k.symbol
where k.last_sequence <> coalesce(o.highest, 0)

union all
-- Every order keeps to its symbol's tick and lot.
select 'TICK_OR_LOT', format('order %s', o.order_id)
from trading.orders as o
left join trading.symbols as s on s.symbol = o.symbol
where s.symbol is null or mod(o.amount, s.lot) <> 0 or mod(o.price, s.tick) <> 0
