-- A bank on XA: the limits' accounts, under the names that transfers give them.
create table accounts (
    user_id text collate "C" not null,
    currency text collate "C" not null,
    balance bigint not null check (balance >= 0),
    primary key (user_id, currency)
) with (fillfactor = 70);
