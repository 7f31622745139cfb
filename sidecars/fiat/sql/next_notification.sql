-- Seconds until the next notification is due; null while there is none (greatest would leave a null out).
select case when min(n.due_at) is not null then greatest(extract(epoch from min(n.due_at) - now()), 0)::float8 end
from fiat.notifications as n where n.state = 1
