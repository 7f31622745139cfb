select m.matched_sequence, k.last_sequence
from trading.matchers as m
join trading.books as k on k.symbol = m.symbol
where m.symbol = %(symbol)s
