-- What must always be true of the orders, and of what matching made of them. Each row returned is a violation, named
-- and described; none is sound. Read in one statement, so in one snapshot.

with entries as materialized (
    select o.symbol, o.sequence as place from trading.orders as o where o.sequence is not null
    union all
    select o.symbol, o.cancel_sequence from trading.orders as o where o.cancel_sequence is not null
), shares as materialized (
    select f.buy_order_id as order_id, f.amount from trading.fills as f
    union all
    select f.sell_order_id, f.amount from trading.fills as f
), resting as materialized (
    select o.* from trading.orders as o
    join trading.matchers as m on m.symbol = o.symbol
    where o.status = 2 and o.sequence <= m.matched_sequence
)
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
    when o.status in (2, 3, 4, 5) and b.phase is null then
        o.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    when o.status in (2, 3, 5) then not coalesce(b.phase = 3 or (b.phase = 5 and b.heuristic = 1), false)
    when o.status = 4 then not coalesce(b.phase = 4 or (b.phase = 5 and b.heuristic = 2), false)
end

union all
-- An order is being cancelled by a branch in doubt. It may be filled, or closed, in the meantime.
select 'CANCELLING_WITHOUT_BRANCH', format('order %s, status %s, phase %s', o.order_id, o.status, b.phase)
from trading.orders as o
left join pincex.branches as b on b.branch = o.cancelling
where o.cancelling is not null and (o.status not in (2, 3, 5) or b.phase is distinct from 2)

union all
-- A client's id belongs to an order that was not rejected.
select 'CLIENT_ORDER_ID_WITHOUT_ORDER', format('user %s, %s', c.user_id, c.client_order_id)
from trading.client_orders as c
left join trading.orders as o on o.branch = c.branch and o.operation = c.operation
where o.order_id is null or o.status = 4 or o.user_id <> c.user_id

union all
-- A book has entries from 1 to its last number, each number once, and is matched no further.
select 'BOOK_NUMBER_WRONG', format(
    '%s: last %s, highest %s, %s numbers for %s entries, matched %s',
    k.symbol, k.last_sequence, coalesce(e.highest, 0), e.numbers, e.entries, m.matched_sequence
)
from trading.books as k
left join trading.matchers as m on m.symbol = k.symbol
cross join lateral (
    select max(n.place) as highest, count(*) as entries, count(distinct n.place) as numbers
    from entries as n
    where n.symbol = k.symbol
) as e
where
    k.last_sequence <> coalesce(e.highest, 0) or e.entries <> e.numbers or e.numbers <> k.last_sequence
    or m.matched_sequence is null or m.matched_sequence > k.last_sequence

union all
-- Every order keeps to its symbol's tick and lot.
select 'TICK_OR_LOT', format('order %s', o.order_id)
from trading.orders as o
left join trading.symbols as s on s.symbol = o.symbol
where s.symbol is null or mod(o.amount, s.lot) <> 0 or mod(o.price, s.tick) <> 0

union all
-- A trade is between two orders of opposite sides in one book, of two users, at a price that both allow.
select 'FILL_WITHOUT_ORDERS', format('trade %s', f.trade_id)
from trading.fills as f
left join trading.orders as b on b.order_id = f.buy_order_id
left join trading.orders as s on s.order_id = f.sell_order_id
where
    not coalesce(
        b.side = 1 and s.side = 2 and b.symbol = f.symbol and s.symbol = f.symbol
        and b.user_id = f.buyer_id and s.user_id = f.seller_id and f.buyer_id <> f.seller_id,
        false
    )
    or f.price > b.price or f.price < s.price
    or f.taker_sequence <> greatest(b.sequence, s.sequence)
    or f.taker_sequence <> case f.taker_side when 1 then b.sequence else s.sequence end

union all
-- What an order has traded is the sum of its trades, and it is filled when that is all of it.
select 'FILLED_NOT_FILLS', format('order %s: filled %s, trades %s', o.order_id, o.filled, coalesce(t.amount, 0))
from trading.orders as o
left join (select s.order_id, sum(s.amount) as amount from shares as s group by s.order_id) as t
    on t.order_id = o.order_id
where
    o.filled <> coalesce(t.amount, 0) or o.filled > o.amount or (o.status = 5) <> (o.filled = o.amount)
    or (o.filled > 0 and o.status in (1, 4))

union all
-- What matching has passed and is open is a limit order that waits, and not one that was to leave.
select 'WAITING_WRONGLY', format('order %s', r.order_id)
from resting as r
join trading.matchers as m on m.symbol = r.symbol
where r.type <> 1 or r.time_in_force <> 1 or r.cancel_sequence <= m.matched_sequence

union all
-- No waiting buyer's price reaches a waiting seller's.
select 'BOOK_CROSSED', format('%s: bid %s, ask %s', b.symbol, b.bid, a.ask)
from (select r.symbol, max(r.price) as bid from resting as r where r.side = 1 group by r.symbol) as b
join (select r.symbol, min(r.price) as ask from resting as r where r.side = 2 group by r.symbol) as a
    on a.symbol = b.symbol
where b.bid >= a.ask

union all
-- Only what was cancelled has a reason for it, and matching is the one that gives it.
select 'CLOSURE_WRONG', format('order %s: status %s, closure %s', o.order_id, o.status, o.closure)
from trading.orders as o
where o.closure is not null and o.status <> 3 or o.closure = 1 and o.cancel_sequence is null

union all
-- The outbox tells of each trade, and of each order that left unfilled, once; that no trade and no order is told
-- twice its own indexes make sure.
select 'OUTBOX_NOT_FILLS', format('trade %s', coalesce(f.trade_id, x.trade_id))
from trading.fills as f
full join (select n.* from trading.outbox as n where n.trade_id is not null) as x on x.trade_id = f.trade_id
where f.trade_id is null or x.trade_id is null or x.symbol <> f.symbol

union all
select 'OUTBOX_NOT_CLOSURES', format('order %s', coalesce(o.order_id, x.order_id))
from (select c.* from trading.orders as c where c.closure is not null) as o
full join (select n.* from trading.outbox as n where n.order_id is not null) as x on x.order_id = o.order_id
where o.order_id is null or x.order_id is null or x.symbol <> o.symbol

union all
-- Its places in each book have no gaps, and no reader is past the last.
select 'OUTBOX_GAP', format('%s: last %s, highest %s, events %s', m.symbol, m.position, x.highest, x.events)
from trading.matchers as m
left join (
    select e.symbol, max(e.position) as highest, count(*) as events from trading.outbox as e group by e.symbol
) as x on x.symbol = m.symbol
where m.position <> coalesce(x.highest, 0) or m.position <> coalesce(x.events, 0)

union all
select 'CURSOR_AHEAD', format('%s in %s: %s of %s', c.reader, c.symbol, c.position, m.position)
from trading.outbox_cursors as c
left join trading.matchers as m on m.symbol = c.symbol
where m.position is null or c.position > m.position
