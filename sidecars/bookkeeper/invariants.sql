-- What must always be true of the ledger. Each row returned is a violation, named and described; none is sound.
-- Read in one statement, so in one snapshot.

-- Money is conserved: all users have together what came in from outside and did not go out again.
select 'MONEY_NOT_CONSERVED' as violation, format('%s: users have %s, %s came from outside', b.currency, b.total, coalesce(o.total, 0)) as detail
from (select a.currency, sum(a.balance) as total from bookkeeper.accounts as a group by a.currency) as b
left join (
    select l.currency, -sum(l.amount) as total from bookkeeper.lines as l where l.account = 0 group by l.currency
) as o on o.currency = b.currency
where b.total <> coalesce(o.total, 0)

union all
-- The journal's lines sum to nothing, in every currency.
select 'JOURNAL_NOT_BALANCED', format('%s: %s', l.currency, sum(l.amount))
from bookkeeper.lines as l group by l.currency having sum(l.amount) <> 0

union all
-- An entry moves money within one currency.
select 'CURRENCIES_MIXED', format('branch %s operation %s', e.branch, e.operation)
from bookkeeper.entries as e
join bookkeeper.accounts as d on d.account = e.debit_account
join bookkeeper.accounts as c on c.account = e.credit_account
where d.currency <> c.currency

union all
-- An entry's accounts exist.
select 'ACCOUNT_MISSING', format('branch %s operation %s', e.branch, e.operation)
from bookkeeper.entries as e
left join bookkeeper.accounts as d on d.account = e.debit_account
left join bookkeeper.accounts as c on c.account = e.credit_account
where (d.account is null and e.debit_account <> 0) or (c.account is null and e.credit_account <> 0)

union all
-- An account's balance and locked money are what its lines make them.
select 'BALANCE_NOT_JOURNAL', format(
    'account %s: balance %s, journal %s; locked %s, journal %s',
    a.account, a.balance, coalesce(l.balance, 0), a.locked, coalesce(l.locked, 0)
)
from bookkeeper.accounts as a
left join (
    select n.account, sum(n.amount) as balance, sum(n.amount) filter (where n.compartment = 'locked') as locked
    from bookkeeper.lines as n group by n.account
) as l on l.account = a.account
where a.balance <> coalesce(l.balance, 0) or a.locked <> coalesce(l.locked, 0)

union all
-- What is reserved is what entries of branches in doubt draw.
select 'RESERVED_NOT_ENTRIES', format(
    'account %s: reserved %s, entries %s; releasing %s, entries %s',
    a.account, a.reserved, coalesce(p.reserved, 0), a.releasing, coalesce(p.releasing, 0)
)
from bookkeeper.accounts as a
left join (
    select
        e.debit_account as account,
        sum(e.draw) filter (where e.kind not in (5, 7)) as reserved,
        sum(e.draw) filter (where e.kind in (5, 7)) as releasing
    from bookkeeper.entries as e where e.posted_at is null group by e.debit_account
) as p on p.account = a.account
where a.reserved <> coalesce(p.reserved, 0) or a.releasing <> coalesce(p.releasing, 0)

union all
-- Nobody has less than nothing, free or locked.
select 'OVERDRAWN', format('account %s', a.account)
from bookkeeper.accounts as a
where a.balance - a.locked < a.reserved or a.locked < a.releasing or a.reserved < 0 or a.releasing < 0

union all
-- A reservation belongs to a branch in doubt, a posting to one that is committed, by decision or by hand, or that
-- was dropped since.
select 'ENTRY_WITHOUT_BRANCH', format('branch %s operation %s posted %s, phase %s', e.branch, e.operation, e.posted_at, b.phase)
from bookkeeper.entries as e
left join pincex.branches as b on b.branch = e.branch
where case
    when e.posted_at is null then b.phase is distinct from 2
    when b.phase is null then e.branch > (select coalesce(max(g.pruned_branch), 0) from pincex.logs as g)
    else b.phase is distinct from 3 and not (b.phase is not distinct from 5 and b.heuristic is not distinct from 1)
end

union all
-- A branch in doubt has its reservations, and a committed one its postings.
select 'BRANCH_WITHOUT_ENTRY', format('xid %s', b.xid)
from pincex.branches as b
where (b.phase in (2, 3) or b.heuristic = 1) and b.phase <> 4
and not exists (select from bookkeeper.entries as e where e.branch = b.branch)

union all
-- An account is being opened by a branch in doubt, or is open.
select 'OPENING_WITHOUT_BRANCH', format('account %s', a.account)
from bookkeeper.accounts as a
left join pincex.branches as b on b.branch = a.opening
where a.opening is not null and b.phase is distinct from 2
