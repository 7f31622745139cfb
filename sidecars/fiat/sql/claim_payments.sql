-- Payments that are due, at most so many, for one sender alone until the lease ends. This is durable before any of them
-- is sent, so that whoever comes after a crash asks the bank first.
with due as (
    select p.withdrawal_id
    from fiat.payments as p
    where p.state in (1, 2) and p.due_at <= now()
    order by p.due_at
    limit %(most)s
    for update skip locked
), claimed as (
    update fiat.payments as p
    set
        state = 2,
        attempts = p.attempts + 1,
        first_sent_at = coalesce(p.first_sent_at, now()),
        due_at = now() + make_interval(secs => %(lease_s)s)
    from due
    where p.withdrawal_id = due.withdrawal_id
    returning p.withdrawal_id, p.attempts, p.first_sent_at
)
select
    x.withdrawal_id, x.currency, x.amount, x.iban, x.account_holder,
    c.attempts, extract(epoch from now() - c.first_sent_at)::float8 as age_s
from claimed as c
join fiat.withdrawals as x on x.withdrawal_id = c.withdrawal_id
