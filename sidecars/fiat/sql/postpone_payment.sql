-- Unknown: it is asked for again. Whoever claimed it since, after our lease, is left alone.
update fiat.payments as p
set due_at = now() + make_interval(secs => %(pause_s)s), detail = %(detail)s
where p.withdrawal_id = %(withdrawal_id)s and p.state = 2 and p.attempts = %(attempts)s
