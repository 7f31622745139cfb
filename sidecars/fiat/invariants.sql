-- What must always be true of bank money. Each row returned is a violation, named and described; none is sound.
-- Read in one statement, so in one snapshot.

-- A deposit is what the bank told, once.
select 'DEPOSIT_NOT_TRANSFER' as violation, format('reference %s: %s %s', d.reference, d.amount, d.currency) as detail
from fiat.deposits as d
left join fiat.bank_transfers as t on t.reference = d.reference
where t.reference is null or t.amount <> d.amount or t.currency <> d.currency

union all
-- Deposits of a currency come to no more than the bank told of.
select 'DEPOSITED_MORE_THAN_RECEIVED', format('%s: deposited %s, received %s', t.currency, t.deposited, t.received)
from fiat.totals as t where t.deposited > t.received

union all
-- The bank was paid for what was withdrawn, or will be, and for nothing else.
select 'PAID_MORE_THAN_WITHDRAWN', format('%s: paid %s, withdrawn %s', t.currency, t.paid, t.withdrawn)
from fiat.totals as t where t.paid > t.withdrawn

union all
-- A deposit waits for its branch, and for nothing else; one that is recorded was committed, by decision or by hand. The
-- branch may have been dropped since.
select 'DEPOSIT_WITHOUT_BRANCH', format('reference %s recorded %s, phase %s', d.reference, d.recorded_at, b.phase)
from fiat.deposits as d
left join pincex.branches as b on b.branch = d.branch
where case
    when d.recorded_at is null then b.phase is distinct from 2
    when b.phase is null then d.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    else not coalesce(b.phase = 3 or (b.phase = 5 and b.heuristic = 1), false)
end

union all
-- So is a withdrawal.
select 'WITHDRAWAL_WITHOUT_BRANCH', format('withdrawal %s, status %s, phase %s', x.withdrawal_id, x.status, b.phase)
from fiat.withdrawals as x
left join pincex.branches as b on b.branch = x.branch
where case
    when x.status = 1 then b.phase is distinct from 2
    when b.phase is null then x.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    else not coalesce(b.phase = 3 or (b.phase = 5 and b.heuristic = 1), false)
end

union all
-- A withdrawal is being ended by a branch in doubt, and is not ended until then.
select 'ENDING_WITHOUT_BRANCH', format('withdrawal %s, status %s, phase %s', x.withdrawal_id, x.status, b.phase)
from fiat.withdrawals as x
left join pincex.branches as b on b.branch = x.ending
where x.ending is not null and (x.status > 2 or b.phase is distinct from 2)

union all
-- A completed withdrawal has its payment; no other has one, and the bank paid the amount.
select 'PAYMENT_NOT_WITHDRAWAL', format('withdrawal %s, status %s, payment %s', coalesce(x.withdrawal_id, p.withdrawal_id), x.status, p.state)
from fiat.withdrawals as x
full join fiat.payments as p on p.withdrawal_id = x.withdrawal_id
where (coalesce(x.status, 0) = 3) <> (p.withdrawal_id is not null) or p.paid <> x.amount

union all
-- A recorded deposit has its notification, and no other has one.
select 'NOTIFICATION_NOT_DEPOSIT', format('reference %s', coalesce(d.reference, n.reference))
from (select r.reference from fiat.deposits as r where r.recorded_at is not null) as d
full join fiat.notifications as n on n.reference = d.reference
where d.reference is null or n.reference is null

union all
-- What counts against a day's limits is what was moved on it, or is about to be.
select 'USAGE_NOT_MOVED', format(
    'user %s, %s, %s: deposited %s, moved %s; withdrawn %s, moved %s',
    coalesce(g.user_id, m.user_id), coalesce(g.currency, m.currency), coalesce(g.day, m.day),
    g.deposited, m.deposited, g.withdrawn, m.withdrawn
)
from fiat.usage as g
full join (
    select l.user_id, l.currency, l.day, sum(l.deposited) as deposited, sum(l.withdrawn) as withdrawn
    from (
        select d.user_id, d.currency, d.day, d.amount as deposited, 0 as withdrawn from fiat.deposits as d
        union all
        select x.user_id, x.currency, x.day, 0, x.amount from fiat.withdrawals as x where x.status <> 4
    ) as l
    group by l.user_id, l.currency, l.day
) as m on m.user_id = g.user_id and m.currency = g.currency and m.day = g.day
where coalesce(g.deposited, 0) <> coalesce(m.deposited, 0) or coalesce(g.withdrawn, 0) <> coalesce(m.withdrawn, 0)

union all
-- A user is what the last change says, and is being changed by a branch in doubt.
select 'STATE_NOT_CHANGES', format('user %s, state %s, changing %s, phase %s', u.user_id, u.state, u.changing, b.phase)
from fiat.users as u
left join pincex.branches as b on b.branch = u.changing
left join lateral (
    select c.state from fiat.compliance_changes as c
    where c.user_id = u.user_id and c.made_at is not null
    order by c.made_at desc, c.branch desc
    limit 1
) as l on true
where u.state <> coalesce(l.state, 1) or (u.changing is not null and b.phase is distinct from 2)

union all
-- A change waits for its branch, and its user knows.
select 'CHANGE_WITHOUT_BRANCH', format('user %s, branch %s', c.user_id, c.branch)
from fiat.compliance_changes as c
left join fiat.users as u on u.user_id = c.user_id
where c.made_at is null and u.changing is distinct from c.branch
