-- What a currency's attendant has to see to, a page after the one before: what is not signed yet comes first, and then
-- the order in which it was queued.
select
    w.withdrawal_id, w.status, w.amount, w.fee, w.address, p.txid, p.raw, w.problem,
    w.status <> 3 as is_signed, w.queued_by, w.branch, w.operation
from wallet.withdrawals as w
left join wallet.payments as p on p.withdrawal_id = w.withdrawal_id
where
    w.currency = %(currency)s and w.status in (3, 4, 5)
    and (w.status <> 3, w.queued_by, w.branch, w.operation)
    > (%(is_signed)s, %(queued_by)s::bigint, %(branch)s::bigint, %(operation)s::integer)
order by w.status <> 3, w.queued_by, w.branch, w.operation
limit %(limit)s
