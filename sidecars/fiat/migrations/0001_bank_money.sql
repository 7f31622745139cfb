-- Bank money: who may move it and how much, what the bank told, deposits and withdrawals, and what waits to be sent.

-- Nobody without a row may move anything.
create table fiat.users (
    user_id text collate "C" primary key,
    -- 1 PENDING, 2 CLEARED, 3 BLOCKED.
    state smallint not null default 1 check (state between 1 and 3),
    -- The branch that will change the state, while that is in doubt.
    changing bigint
) with (fillfactor = 70);

create index users_changing on fiat.users (changing) where changing is not null;

-- Who was what, since when and why; in doubt while it has no date.
create table fiat.compliance_changes (
    branch bigint not null,
    -- The operation's place in its branch, from 0.
    operation smallint not null,
    user_id text collate "C" not null,
    state smallint not null check (state between 1 and 3),
    note text,
    made_at timestamptz,
    primary key (branch, operation)
);

create index compliance_changes_user on fiat.compliance_changes (user_id, made_at);

-- What one transaction, and one user on one day (UTC), may move. A currency without a row is closed.
create table fiat.limits (
    currency text collate "C" primary key,
    deposit_max numeric(38, 18) not null,
    deposit_day numeric(38, 18) not null,
    withdrawal_min numeric(38, 18) not null,
    withdrawal_max numeric(38, 18) not null,
    withdrawal_day numeric(38, 18) not null
);

insert into fiat.limits (currency, deposit_max, deposit_day, withdrawal_min, withdrawal_max, withdrawal_day)
values
    ('AUD', 500000, 1000000, 0.01, 100000, 250000),
    ('CAD', 500000, 1000000, 0.01, 100000, 250000),
    ('CHF', 500000, 1000000, 0.01, 100000, 250000),
    ('EUR', 500000, 1000000, 0.01, 100000, 250000),
    ('GBP', 500000, 1000000, 0.01, 100000, 250000),
    ('JPY', 75000000, 150000000, 1, 15000000, 37500000),
    ('USD', 500000, 1000000, 0.01, 100000, 250000);

-- What counts against a day's limits, that of branches in doubt too. Whoever changes it holds the user's row.
create table fiat.usage (
    user_id text collate "C" not null,
    currency text collate "C" not null,
    day date not null,
    deposited numeric(48, 18) not null default 0 check (deposited >= 0),
    withdrawn numeric(48, 18) not null default 0 check (withdrawn >= 0),
    primary key (user_id, currency, day)
) with (fillfactor = 70);

-- What the bank told of money that came in.
create table fiat.bank_transfers (
    reference text collate "C" primary key,
    transfer_id text collate "C" not null,
    currency text collate "C" not null,
    amount numeric(38, 18) not null check (amount > 0),
    iban text collate "C" not null,
    name text not null,
    received_at timestamptz not null,
    told_at timestamptz not null default now()
);

-- How far the bank's list has been read.
create table fiat.bank_cursor (
    one boolean primary key default true check (one),
    cursor text not null default ''
);

insert into fiat.bank_cursor default values;

-- What the bank told that cannot be, or contradicts what it told before: for a person to clear up.
create table fiat.bank_doubts (
    told text primary key,
    why text not null,
    noted_at timestamptz not null default now()
);

create table fiat.deposits (
    branch bigint not null,
    operation smallint not null,
    user_id text collate "C" not null,
    currency text collate "C" not null,
    amount numeric(38, 18) not null check (amount > 0),
    reference text collate "C" not null unique,
    day date not null,
    -- Null while its branch is in doubt.
    recorded_at timestamptz,
    primary key (branch, operation)
) with (fillfactor = 70);

create table fiat.withdrawals (
    branch bigint not null,
    operation smallint not null,
    -- 1 PENDING, 2 RESERVED, 3 COMPLETED, 4 CANCELLED.
    status smallint not null default 1 check (status between 1 and 4),
    -- What the branch that will end it makes of it, 3 or 4; and that branch, while it is in doubt.
    ending_as smallint check (ending_as in (3, 4)),
    ending bigint,
    user_id text collate "C" not null,
    currency text collate "C" not null,
    amount numeric(38, 18) not null check (amount > 0),
    withdrawal_id text collate "C" not null unique,
    iban text collate "C" not null,
    account_holder text not null,
    day date not null,
    primary key (branch, operation),
    check ((ending is null) = (ending_as is null))
) with (fillfactor = 70);

create index withdrawals_ending on fiat.withdrawals (ending) where ending is not null;

-- Completed withdrawals on their way to the bank. The withdrawal's id is the key by which the bank knows the payment.
create table fiat.payments (
    withdrawal_id text collate "C" primary key,
    -- 1 QUEUED, 2 SENT: the bank may have it, 3 PAID, 4 REJECTED by the bank, 5 STUCK: a person must look.
    state smallint not null default 1 check (state between 1 and 5),
    attempts integer not null default 0,
    due_at timestamptz not null default now(),
    first_sent_at timestamptz,
    payment_id text,
    -- What the bank says that it paid.
    paid numeric(38, 18),
    settled_at timestamptz,
    -- The bank's reason, or what went wrong last.
    detail text not null default '',
    check ((state = 3) = (paid is not null))
) with (fillfactor = 70);

create index payments_due on fiat.payments (due_at) where state in (1, 2);
create index payments_looked_at on fiat.payments (state) where state in (4, 5);

-- What recorded deposits are told to the webhook, at least once each, under an id that never changes.
create table fiat.notifications (
    notification_id uuid primary key default gen_random_uuid(),
    -- 1 QUEUED, 2 DELIVERED, 3 DEAD: given up, until somebody asks for it again.
    state smallint not null default 1 check (state between 1 and 3),
    attempts integer not null default 0,
    reference text collate "C" not null unique,
    body text not null,
    due_at timestamptz not null default now(),
    delivered_at timestamptz,
    detail text not null default ''
) with (fillfactor = 70);

create index notifications_due on fiat.notifications (due_at) where state = 1;
create index notifications_dead on fiat.notifications (state) where state = 3;

-- What waits for a person: alert on any row.
create view fiat.attention as
select case p.state when 4 then 'PAYMENT_REJECTED' else 'PAYMENT_STUCK' end as what, p.withdrawal_id as id, p.detail
from fiat.payments as p where p.state in (4, 5)
union all
select 'NOTIFICATION_DEAD', n.notification_id::text, n.detail from fiat.notifications as n where n.state = 3
union all
select 'BANK_DOUBTED', d.told, d.why from fiat.bank_doubts as d;

-- What came in and went out, by currency.
create view fiat.totals as
select
    l.currency,
    (select coalesce(sum(t.amount), 0) from fiat.bank_transfers as t where t.currency = l.currency) as received,
    (
        select coalesce(sum(d.amount), 0) from fiat.deposits as d
        where d.currency = l.currency and d.recorded_at is not null
    ) as deposited,
    (
        select coalesce(sum(w.amount), 0) from fiat.withdrawals as w where w.currency = l.currency and w.status = 3
    ) as withdrawn,
    (
        select coalesce(sum(p.paid), 0)
        from fiat.payments as p
        join fiat.withdrawals as w on w.withdrawal_id = p.withdrawal_id
        where w.currency = l.currency
    ) as paid
from fiat.limits as l;

-- What people did by hand, and why.
create table fiat.operator_actions (
    number bigint generated always as identity primary key,
    done_at timestamptz not null default now(),
    who text not null default session_user,
    what text not null,
    id text not null,
    reason text not null check (reason <> '')
);

-- Have a payment that is stuck tried again: the bank is asked about its key first, and if it knows none, the payment
-- is sent. So make sure with the bank, before, that it was not paid. True if there was one.
create function fiat.retry_payment(withdrawal text, reason text) returns boolean
language plpgsql as $$
begin
    update fiat.payments as p
    set state = 2, attempts = 1, first_sent_at = now(), due_at = now()
    where p.withdrawal_id = withdrawal and p.state = 5;
    if not found then
        return false;
    end if;
    insert into fiat.operator_actions (what, id, reason) values ('RETRY_PAYMENT', withdrawal, reason);
    perform pg_notify('fiat_outbox', '');
    return true;
end
$$;

-- Have a notification that was given up sent again, as if for the first time. True if there was one.
create function fiat.retry_notification(notification uuid, reason text) returns boolean
language plpgsql as $$
begin
    update fiat.notifications as n
    set state = 1, attempts = 0, due_at = now()
    where n.notification_id = notification and n.state = 3;
    if not found then
        return false;
    end if;
    insert into fiat.operator_actions (what, id, reason) values ('RETRY_NOTIFICATION', notification::text, reason);
    perform pg_notify('fiat_outbox', '');
    return true;
end
$$;

-- Put aside what the bank told and somebody has cleared up. True if there was such a doubt.
create function fiat.clear_doubt(doubt text, reason text) returns boolean
language plpgsql as $$
begin
    delete from fiat.bank_doubts as d where d.told = doubt;
    if not found then
        return false;
    end if;
    insert into fiat.operator_actions (what, id, reason) values ('CLEAR_DOUBT', doubt, reason);
    return true;
end
$$;
