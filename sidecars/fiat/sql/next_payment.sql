-- Seconds until the next payment is due; null while there is none.
select greatest(extract(epoch from min(p.due_at) - now()), 0)::float8 from fiat.payments as p where p.state in (1, 2)
