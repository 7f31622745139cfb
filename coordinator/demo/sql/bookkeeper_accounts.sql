-- Every account, and what of it is locked, or promised to branches in doubt.
select a.user_id, a.currency, a.balance, a.locked + a.reserved + a.releasing as held
from bookkeeper.accounts as a
