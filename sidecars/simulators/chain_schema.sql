-- A chain on the regression test network, and the one wallet that the exchange has there.

create table if not exists settings (
    is_only integer primary key check (is_only = 1),
    -- By which the wallet's transactions are proved.
    secret blob not null,
    -- Seconds between blocks that come by themselves; 0 for none.
    block_interval_s real not null,
    -- When the last of those was due, in Unix seconds.
    due_s real not null,
    -- Satoshis for each virtual byte.
    fee_rate integer not null
);

create table if not exists blocks (
    height integer primary key,
    hash text not null unique
);

create table if not exists transactions (
    number integer primary key,
    txid text not null unique,
    raw text not null,
    fee integer not null check (fee >= 0),
    -- Null while it waits in the mempool.
    height integer references blocks (height),
    -- Money from outside: it spends nothing.
    is_from_outside integer not null
);
create index if not exists transactions_waiting on transactions (height);

create table if not exists outputs (
    txid text not null references transactions (txid) on delete cascade,
    output_index integer not null,
    satoshis integer not null check (satoshis >= 0),
    address text not null,
    primary key (txid, output_index)
);
create index if not exists outputs_by_address on outputs (address);

-- What is spent: each output once.
create table if not exists inputs (
    txid text not null references transactions (txid) on delete cascade,
    spent_txid text not null,
    spent_index integer not null,
    primary key (spent_txid, spent_index),
    foreign key (spent_txid, spent_index) references outputs (txid, output_index)
);
create index if not exists inputs_of on inputs (txid);

-- The wallet's own.
create table if not exists addresses (
    number integer primary key,
    address text not null unique
);

create view if not exists unspent_anywhere as
select o.txid, o.output_index
from outputs as o
where not exists (
    select 1 from inputs as i where i.spent_txid = o.txid and i.spent_index = o.output_index
);

create view if not exists unspent as
select o.txid, o.output_index, o.satoshis, o.address, t.height, t.number, t.is_from_outside
from outputs as o
join addresses as a on a.address = o.address
join transactions as t on t.txid = o.txid
where not exists (
    select 1 from inputs as i where i.spent_txid = o.txid and i.spent_index = o.output_index
);

-- What the wallet paid to others.
create view if not exists payments as
select o.txid, o.output_index, o.satoshis, o.address, t.height
from outputs as o
join transactions as t on t.txid = o.txid
where not t.is_from_outside and o.address not in (select a.address from addresses as a);
