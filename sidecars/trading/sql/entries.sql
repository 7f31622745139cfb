-- A book's next entries: orders and cancellations by one row of numbers. Both are read in one snapshot, and numbers
-- become visible in their order, so none is missing between two.
(
    select o.sequence as place, false as is_cancellation, o.order_id, o.user_id, o.side, o.time_in_force,
        case when o.status = 2 then o.amount end, o.price
    from trading.orders as o
    where o.symbol = %(symbol)s and o.sequence > %(after)s
    order by o.sequence
    limit %(most)s
)
union all
(
    select o.cancel_sequence, true, o.order_id, o.user_id, o.side, o.time_in_force, o.amount, o.price
    from trading.orders as o
    where o.symbol = %(symbol)s and o.cancel_sequence > %(after)s
    order by o.cancel_sequence
    limit %(most)s
)
order by place
limit %(most)s
