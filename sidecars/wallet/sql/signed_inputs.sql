-- What payments spend that no node is known to have.
select i.txid, i.output_index
from wallet.inputs as i
join wallet.withdrawals as w on w.withdrawal_id = i.withdrawal_id
where i.currency = %s and w.status = 4
