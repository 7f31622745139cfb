-- Money that came from the bank, above zero, and that went there or will; with what became of its payment.
select d.user_id, d.currency, d.amount, d.reference as name, 'DEPOSIT' as kind
from fiat.deposits as d
where d.recorded_at is not null
union all
select w.user_id, w.currency, -w.amount, w.withdrawal_id, coalesce(
    (array['QUEUED', 'SENT', 'PAID', 'REJECTED', 'STUCK'])[p.state], 'UNPAID'
)
from fiat.withdrawals as w
left join fiat.payments as p on p.withdrawal_id = w.withdrawal_id
where w.status <> 4
