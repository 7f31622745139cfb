-- Seconds until the next notification is due; null while there is none.
select greatest(extract(epoch from min(n.due_at) - now()), 0)::float8 from fiat.notifications as n where n.state = 1
