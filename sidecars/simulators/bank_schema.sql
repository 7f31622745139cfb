-- The bank's books, as far as they concern one customer: the exchange. Amounts are in the currency's smallest unit.

-- What the exchange had paid, by the key that it gave: asked again, it is told the same.
create table if not exists payments (
    number integer primary key autoincrement,
    idempotency_key text not null unique,
    status text not null check (status in ('executed', 'rejected')),
    reason text not null,
    currency text not null,
    minor integer not null check (minor > 0),
    iban text not null,
    name text not null,
    reference text not null
);

-- What others paid to the exchange, in the order in which it is told.
create table if not exists transfers (
    number integer primary key autoincrement,
    reference text not null unique,
    currency text not null,
    minor integer not null check (minor > 0),
    iban text not null,
    name text not null,
    received_at text not null
);

-- The money itself: what came in is above zero, what went out below. Nothing but the program's own care keeps a
-- payment from having two of them, so that the invariants can tell.
create table if not exists postings (
    number integer primary key autoincrement,
    idempotency_key text,
    reference text,
    currency text not null,
    minor integer not null,
    check ((idempotency_key is null) <> (reference is null))
);

-- Accounts that take no money any more: payments to them are rejected.
create table if not exists closed_accounts (iban text primary key);

create view if not exists totals as
select
    o.currency,
    sum(max(o.minor, 0)) as came,
    -sum(min(o.minor, 0)) as went,
    count(o.idempotency_key) as payments,
    count(o.reference) as transfers
from postings as o
group by o.currency;
