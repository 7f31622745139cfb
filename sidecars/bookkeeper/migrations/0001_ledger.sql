-- The ledger: accounts, and one entry for each operation, its two lines side by side.

-- An account of one user in one currency. Account 0 is the world outside, in every currency: money comes
-- from there with a credit and goes there with a debit. It has no row, so that nothing queues for it;
-- its balance is what its entries make it.
create table bookkeeper.accounts (
    account bigint generated always as identity primary key,
    -- The branch that opens it, until that is final.
    opening bigint,
    -- All the user's money, the locked and the reserved too. Ten digits wider than an amount: a sum that did not
    -- fit would be found out by a Commit, which must not fail.
    balance numeric(48, 18) not null default 0,
    -- Locked by lock_funds, until released.
    locked numeric(48, 18) not null default 0,
    -- Of the unlocked money: what branches in doubt will take.
    reserved numeric(48, 18) not null default 0,
    -- Of the locked money: what branches in doubt will release.
    releasing numeric(48, 18) not null default 0,
    user_id text collate "C" not null,
    currency text collate "C" not null,
    unique (user_id, currency),
    constraint nothing_taken_twice check (
        reserved >= 0 and releasing >= 0 and locked >= releasing and balance - locked >= reserved
    )
) with (fillfactor = 70);

create index accounts_opening on bookkeeper.accounts (opening) where opening is not null;

-- What one operation of a branch does. Balanced by being one row: the amount leaves the debited account and
-- reaches the credited one. Written when the branch is prepared, final when posted, deleted if it is not to be.
create table bookkeeper.entries (
    branch bigint not null,
    -- 1 open, 2 credit, 3 debit, 4 lock, 5 release, 6 transfer.
    kind smallint not null check (kind between 1 and 6),
    -- The operation's place in its branch, from 0.
    operation smallint not null,
    debit_account bigint not null,
    credit_account bigint not null,
    amount numeric(38, 18) not null check (amount > 0 or kind = 1),
    -- How much of the debited account's money was reserved for it; the rest comes from the branch itself.
    draw numeric(38, 18) not null check (draw between 0 and amount),
    posted_at timestamptz,
    description text,
    primary key (branch, operation)
) with (fillfactor = 50);

-- The journal as accountants read it: what was posted, two lines for each entry.
create view bookkeeper.lines as
select
    e.branch, e.operation, e.kind, l.account, l.compartment,
    coalesce(d.currency, c.currency) as currency, l.amount, e.posted_at, e.description
from bookkeeper.entries as e
left join bookkeeper.accounts as d on d.account = e.debit_account
left join bookkeeper.accounts as c on c.account = e.credit_account
cross join lateral (
    values
    (e.debit_account, case when e.kind = 5 then 'locked' else 'free' end, -e.amount),
    (e.credit_account, case when e.kind = 4 then 'locked' else 'free' end, e.amount)
) as l (account, compartment, amount)
where e.posted_at is not null and e.kind > 1;
