-- Hot wallets, the withdrawals and deposits of users, and the payments that chains are told.

-- A database belongs to one network for ever: the first node that it is connected to says which.
create table wallet.settings (
    is_only boolean primary key default true check (is_only),
    -- 1 main, 2 test, 4 signet, 8 regtest.
    network smallint not null default 1 check (network in (1, 2, 4, 8)),
    bound_at timestamptz
);
insert into wallet.settings default values;

-- What the exchange holds of a currency ready to be paid out. Locked, by currency, by whatever changes it.
create table wallet.hot_wallets (
    currency text collate "C" primary key,
    -- As our books say: what came with deposits, less what completed withdrawals paid and what the chain took for them.
    balance numeric(48, 18) not null default 0,
    -- Of that: the amounts and fees of withdrawals that are neither completed nor cancelled.
    reserved numeric(48, 18) not null default 0,
    -- For one withdrawal.
    amount_min numeric(38, 18) not null check (amount_min > 0),
    amount_max numeric(38, 18) not null check (amount_max >= amount_min),
    -- For all of a user's withdrawals that were reserved on one day, UTC.
    day_max numeric(38, 18) not null check (day_max >= amount_max),
    -- Reserved for what the chain takes, where a withdrawal names no fee, and the most that one may name.
    fee numeric(38, 18) not null check (fee > 0),
    fee_max numeric(38, 18) not null check (fee_max >= fee),
    -- Blocks that must hold a payment, its own included, for it to be CONFIRMED.
    confirmations integer not null check (confirmations > 0),
    -- Whether payments can be sent; null until the attendant has told.
    is_connected boolean,
    constraint nothing_paid_twice check (reserved >= 0 and balance >= reserved)
) with (fillfactor = 25);

create table wallet.withdrawals (
    -- Which reserved it, and the operation's place there, from 0.
    branch bigint not null,
    operation smallint not null,
    -- 1 RESERVING, 2 RESERVED, 3 QUEUED, 4 SIGNED, 5 SENT, 6 CONFIRMED, 7 COMPLETED, 8 CANCELLED.
    status smallint not null check (status between 1 and 8),
    -- The branch in doubt that will change it, and to do what: 3 broadcast, 4 confirm, 5 cancel.
    changing bigint,
    change smallint check (change between 3 and 5),
    -- The branches that queued it, and that completed or cancelled it.
    queued_by bigint,
    ended_by bigint,
    amount numeric(38, 18) not null check (amount > 0),
    fee numeric(38, 18) not null check (fee > 0),
    -- On which its user's limit counts it, UTC.
    day date not null,
    withdrawal_id text collate "C" not null unique,
    user_id text collate "C" not null,
    currency text collate "C" not null references wallet.hot_wallets,
    -- In its canonical form.
    address text collate "C" not null,
    reserved_at timestamptz not null default now(),
    -- Why it does not go on, as the attendant last saw it; null where it does.
    problem text,
    primary key (branch, operation),
    check ((changing is null) = (change is null)),
    check ((queued_by is not null) or status in (1, 2, 8)),
    check ((ended_by is not null) = (status in (7, 8)))
) with (fillfactor = 70);

create index withdrawals_changing on wallet.withdrawals (changing) where changing is not null;
create index withdrawals_of_day on wallet.withdrawals (user_id, currency, day);
-- What the attendant has to see to, in the order in which it came.
create index withdrawals_to_send on wallet.withdrawals (currency, queued_by) where status in (3, 4, 5);

-- A withdrawal's one payment, signed once. What is in it is what is sent, for ever.
create table wallet.payments (
    withdrawal_id text collate "C" primary key references wallet.withdrawals (withdrawal_id),
    currency text collate "C" not null,
    txid text collate "C" not null,
    raw text not null,
    -- What the chain takes.
    fee numeric(38, 18) not null check (fee >= 0),
    signed_at timestamptz not null default clock_timestamp(),
    -- When a node first took it, or knew it.
    sent_at timestamptz,
    confirmations integer not null default 0,
    unique (currency, txid)
);

-- What payments spend. Two that spent the same output could not both be paid.
create table wallet.inputs (
    currency text collate "C" not null,
    txid text collate "C" not null,
    output_index integer not null,
    withdrawal_id text collate "C" not null references wallet.payments,
    primary key (currency, txid, output_index)
);

create table wallet.deposits (
    branch bigint not null,
    operation smallint not null,
    output_index integer not null,
    posted_at timestamptz,
    amount numeric(38, 18) not null check (amount > 0),
    tx_hash text collate "C" not null,
    currency text collate "C" not null references wallet.hot_wallets,
    user_id text collate "C" not null,
    address text collate "C" not null,
    primary key (branch, operation),
    -- An output is credited once.
    unique (currency, tx_hash, output_index)
) with (fillfactor = 70);

-- Where a user's withdrawals may go, where anything is listed for that user and currency; else anywhere.
-- Addresses in their canonical form: Bech32 in lower case, Ethereum with the capitals of EIP-55.
create table wallet.whitelist (
    user_id text collate "C" not null,
    currency text collate "C" not null references wallet.hot_wallets,
    address text collate "C" not null,
    added_at timestamptz not null default now(),
    primary key (user_id, currency, address)
);

-- What changed the hot wallets' balances.
create view wallet.movements as
select d.currency, d.amount, 'deposit' as kind, d.user_id, d.tx_hash, d.posted_at as moved_at
from wallet.deposits as d
where d.posted_at is not null
union all
select w.currency, -(w.amount + p.fee), 'withdrawal', w.user_id, p.txid, p.sent_at
from wallet.withdrawals as w
join wallet.payments as p on p.withdrawal_id = w.withdrawal_id
where w.status = 7;

-- What is not of Bitcoin's family is reserved and checked here, and paid by other means.
insert into wallet.hot_wallets (currency, amount_min, amount_max, day_max, fee, fee_max, confirmations, is_connected)
values
    ('BTC', 0.0001, 50, 100, 0.0005, 0.01, 3, null),
    ('LTC', 0.001, 10000, 20000, 0.001, 0.1, 6, null),
    ('BCH', 0.0001, 5000, 10000, 0.0001, 0.01, 6, null),
    ('DOGE', 5, 5000000, 10000000, 1, 50, 20, false),
    ('ETH', 0.001, 1000, 2000, 0.005, 0.5, 32, false),
    ('USDT', 1, 2000000, 4000000, 5, 100, 32, false),
    ('USDC', 1, 2000000, 4000000, 5, 100, 32, false),
    ('DAI', 1, 2000000, 4000000, 5, 100, 32, false),
    ('XRP', 1, 2000000, 4000000, 0.01, 1, 1, false),
    ('SOL', 0.01, 20000, 40000, 0.001, 0.1, 32, false),
    ('ADA', 1, 2000000, 4000000, 0.5, 5, 15, false),
    ('DOT', 0.1, 200000, 400000, 0.05, 1, 12, false);
