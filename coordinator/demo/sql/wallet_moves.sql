-- Coins that came from the chain, above zero, and that went there or will.
select d.user_id, d.currency, d.amount, d.tx_hash || ':' || d.output_index as name, 'DEPOSIT' as kind, 0 as fee
from wallet.deposits as d
where d.posted_at is not null
union all
select
    w.user_id, w.currency, -w.amount, w.withdrawal_id,
    (array['RESERVING', 'RESERVED', 'QUEUED', 'SIGNED', 'SENT', 'CONFIRMED', 'COMPLETED'])[w.status],
    coalesce(p.fee, 0)
from wallet.withdrawals as w
left join wallet.payments as p on p.withdrawal_id = w.withdrawal_id
where w.status <> 8
