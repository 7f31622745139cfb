-- What must always be true of the wallet. Each row returned is a violation, named and described; none is sound.
-- Read in one statement, so in one snapshot.

-- A hot wallet's balance is what its deposits and completed withdrawals make it.
select 'BALANCE_NOT_MOVEMENTS' as violation, format('%s: balance %s, movements %s', h.currency, h.balance, coalesce(m.amount, 0)) as detail
from wallet.hot_wallets as h
left join (select n.currency, sum(n.amount) as amount from wallet.movements as n group by n.currency) as m
    on m.currency = h.currency
where h.balance <> coalesce(m.amount, 0)

union all
-- What is reserved is what withdrawals need that are neither completed nor cancelled.
select 'RESERVED_NOT_WITHDRAWALS', format('%s: reserved %s, withdrawals %s', h.currency, h.reserved, coalesce(w.needed, 0))
from wallet.hot_wallets as h
left join (
    select n.currency, sum(n.amount + n.fee) as needed from wallet.withdrawals as n where n.status < 7 group by n.currency
) as w on w.currency = h.currency
where h.reserved <> coalesce(w.needed, 0)

union all
-- A withdrawal is being reserved by a branch in doubt. Once reserved, its branch is committed, or was dropped since.
select 'RESERVATION_WITHOUT_BRANCH', format('withdrawal %s, status %s, phase %s', w.withdrawal_id, w.status, b.phase)
from wallet.withdrawals as w
left join pincex.branches as b on b.branch = w.branch
where case
    when w.status = 1 then b.phase is distinct from 2
    when b.phase is null then w.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    else b.phase is distinct from 3 and not (b.phase is not distinct from 5 and b.heuristic is not distinct from 1)
end

union all
-- It is being changed by a branch in doubt, from where that can begin.
select 'CHANGING_WITHOUT_BRANCH', format('withdrawal %s, status %s, phase %s', w.withdrawal_id, w.status, b.phase)
from wallet.withdrawals as w
left join pincex.branches as b on b.branch = w.changing
where w.changing is not null and (
    b.phase is distinct from 2
    or not case w.change when 3 then w.status = 2 when 4 then w.status = 6 else w.status in (2, 3) end
)

union all
-- What queued it, and what completed or cancelled it, is committed, or was dropped since.
select 'CHANGED_WITHOUT_BRANCH', format('withdrawal %s, status %s, branch %s, phase %s', w.withdrawal_id, w.status, c.branch, b.phase)
from wallet.withdrawals as w
cross join lateral (values (w.queued_by), (w.ended_by)) as c (branch)
left join pincex.branches as b on b.branch = c.branch
where c.branch is not null and case
    when b.phase is null then c.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    else b.phase is distinct from 3 and not (b.phase is not distinct from 5 and b.heuristic is not distinct from 1)
end

union all
-- From SIGNED to COMPLETED there is one payment, and otherwise none.
select 'PAYMENT_NOT_STATUS', format('withdrawal %s, status %s, txid %s', w.withdrawal_id, w.status, p.txid)
from wallet.withdrawals as w
left join wallet.payments as p on p.withdrawal_id = w.withdrawal_id
where (p.txid is not null) <> (w.status between 4 and 7) or (w.status > 4 and w.status < 8 and p.sent_at is null)

union all
-- A payment takes no more than was reserved for it, is in its withdrawal's currency, and says what it spends.
select 'PAYMENT_NOT_WITHDRAWAL', format('withdrawal %s: fee %s of %s, %s', w.withdrawal_id, p.fee, w.fee, p.currency)
from wallet.payments as p
join wallet.withdrawals as w on w.withdrawal_id = p.withdrawal_id
where p.fee > w.fee or p.currency <> w.currency
    or not exists (select from wallet.inputs as i where i.withdrawal_id = p.withdrawal_id and i.currency = p.currency)

union all
-- What is confirmed is in a block.
select 'CONFIRMED_WITHOUT_BLOCK', format('withdrawal %s: %s confirmations', w.withdrawal_id, p.confirmations)
from wallet.withdrawals as w
join wallet.payments as p on p.withdrawal_id = w.withdrawal_id
where w.status in (6, 7) and p.confirmations < 1

union all
-- A deposit waits for its branch; posted, that is committed, or was dropped since.
select 'DEPOSIT_WITHOUT_BRANCH', format('%s output %s, posted %s, phase %s', d.tx_hash, d.output_index, d.posted_at, b.phase)
from wallet.deposits as d
left join pincex.branches as b on b.branch = d.branch
where case
    when d.posted_at is null then b.phase is distinct from 2
    when b.phase is null then d.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    else b.phase is distinct from 3 and not (b.phase is not distinct from 5 and b.heuristic is not distinct from 1)
end

union all
-- No hot wallet has promised more than it has.
select 'OVERDRAWN', format('%s: balance %s, reserved %s', h.currency, h.balance, h.reserved)
from wallet.hot_wallets as h
where h.reserved < 0 or h.balance < h.reserved
