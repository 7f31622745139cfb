-- Seconds until the next payment is due; null while there is none (greatest would leave a null out).
select case when min(p.due_at) is not null then greatest(extract(epoch from min(p.due_at) - now()), 0)::float8 end
from fiat.payments as p where p.state in (1, 2)
