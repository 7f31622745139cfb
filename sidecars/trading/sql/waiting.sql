-- How far a book is matched, and what waits in it there; one row without an order where nothing does.
select m.matched_sequence, o.sequence, o.order_id, o.user_id, o.side, o.price, o.amount, o.filled
from trading.matchers as m
left join trading.orders as o on o.symbol = m.symbol and o.status = 2 and o.sequence <= m.matched_sequence
where m.symbol = %(symbol)s
order by o.sequence
