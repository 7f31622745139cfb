-- What a currency's attendant has to see to, in the order in which it was queued; what is not signed yet comes first.
select w.withdrawal_id, w.status, w.amount, w.fee, w.address, p.txid, p.raw, w.problem
from wallet.withdrawals as w
left join wallet.payments as p on p.withdrawal_id = w.withdrawal_id
where w.currency = %(currency)s and w.status in (3, 4, 5)
order by w.status <> 3, w.queued_by, w.operation
limit %(limit)s
