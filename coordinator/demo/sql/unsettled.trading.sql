select 'orders pending, or open in their books' as what, count(*) as many
from trading.orders as o where o.status in (1, 2)
union all
select 'books not matched to their end', count(*)
from trading.books as b
join trading.matchers as m on m.symbol = b.symbol
where m.matched_sequence <> b.last_sequence
