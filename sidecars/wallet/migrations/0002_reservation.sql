-- The wallet's part in a batch; see pincex.apply_batch for what must be done, and in which order.
--
-- An operation is {b: branch, o: place in the branch, k: kind}, and by its kind
--   1 reserve, 2 validate: {w: withdrawal id, u: user, c: currency, a: amount, f: fee or null, d: address, n: networks};
--   3 broadcast, 4 confirm, 5 cancel, 7 status: {w: withdrawal id};
--   6 deposit: {u: user, c: currency, a: amount, t: transaction, x: output, d: address, n: networks}.

create type wallet.operation as (
    b integer, o smallint, k smallint, w text, u text, c text, a numeric, f numeric, d text, n smallint, t text, x integer
);

-- Hot wallets first, by currency; then the withdrawals that are, or will be, changed. Whoever adds a withdrawal or a
-- deposit holds its hot wallet, so what is read after this of either stays so.
create function wallet.lock_keys(ending bigint[], operations wallet.operation[]) returns void
language plpgsql as $$
begin
    perform
    from wallet.hot_wallets as h
    where h.currency in (
        select w.currency from wallet.withdrawals as w where w.branch = any (ending)
        union
        select w.currency from wallet.withdrawals as w where w.changing = any (ending)
        union
        select d.currency from wallet.deposits as d where d.branch = any (ending)
        union
        select o.c from unnest(operations) as o where o.k in (1, 6)
    )
    order by h.currency
    for no key update;
    perform
    from wallet.withdrawals as w
    where w.withdrawal_id in (
        select e.withdrawal_id from wallet.withdrawals as e where e.branch = any (ending)
        union
        select e.withdrawal_id from wallet.withdrawals as e where e.changing = any (ending)
        union
        select o.w from unnest(operations) as o where o.k in (3, 4, 5)
    )
    order by w.withdrawal_id
    for no key update;
end
$$;

create function wallet.commit_branches(branches bigint[]) returns void
language plpgsql as $$
declare
    queued bigint;
begin
    update wallet.withdrawals as w set status = 2 where w.branch = any (branches) and w.status = 1;
    with changed as (
        update wallet.withdrawals as w
        set
            status = case w.change when 3 then 3 when 4 then 7 else 8 end,
            queued_by = case w.change when 3 then w.changing else w.queued_by end,
            ended_by = case when w.change in (4, 5) then w.changing end,
            changing = null,
            change = null
        where w.changing = any (branches)
        returning w.currency, w.status, w.amount, w.fee, w.withdrawal_id
    ), posted as (
        update wallet.deposits as d set posted_at = now() where d.branch = any (branches)
        returning d.currency, d.amount
    ), changes as (
        select p.currency, p.amount as balance, 0 as reserved from posted as p
        union all
        select c.currency, case c.status when 7 then -(c.amount + p.fee) else 0 end, -(c.amount + c.fee)
        from changed as c
        left join wallet.payments as p on p.withdrawal_id = c.withdrawal_id
        where c.status in (7, 8)
    ), moved as (
        update wallet.hot_wallets as h
        set balance = h.balance + s.balance, reserved = h.reserved + s.reserved
        from (
            select c.currency, sum(c.balance) as balance, sum(c.reserved) as reserved
            from changes as c
            group by c.currency
        ) as s
        where h.currency = s.currency
    )
    select count(*) into queued from changed as c where c.status = 3;
    if queued > 0 then
        -- Whoever broadcasts hears of it once this is committed.
        perform pg_notify('wallet_queued', '');
    end if;
end
$$;

create function wallet.rollback_branches(branches bigint[]) returns void
language plpgsql as $$
begin
    with voided as (
        delete from wallet.withdrawals as w where w.branch = any (branches) and w.status = 1
        returning w.currency, w.amount, w.fee
    )
    update wallet.hot_wallets as h
    set reserved = h.reserved - v.reserved
    from (select d.currency, sum(d.amount + d.fee) as reserved from voided as d group by d.currency) as v
    where h.currency = v.currency;
    delete from wallet.deposits as d where d.branch = any (branches) and d.posted_at is null;
    update wallet.withdrawals as w set changing = null, change = null where w.changing = any (branches);
end
$$;

create function wallet.status_name(status smallint) returns text
language sql immutable as $$
    select (array['RESERVING', 'RESERVED', 'QUEUED', 'SIGNED', 'SENT', 'CONFIRMED', 'COMPLETED', 'CANCELLED'])[status]
$$;

create function wallet.network_name(network smallint) returns text
language sql immutable as $$
    select case network when 1 then 'main' when 2 then 'test' when 4 then 'signet' else 'regtest' end
$$;

-- What is wrong with a withdrawal as its hot wallet stands, apart from how much is there, or null.
create function wallet.objection(
    asked wallet.operation, hot wallet.hot_wallets, network smallint, is_listed boolean, is_allowed boolean,
    out reason text, out parameter text, out message text
) language plpgsql immutable as $$
begin
    if hot.currency is null then
        reason := 'UNKNOWN_CURRENCY';
        parameter := 'currency';
        message := format('there is no hot wallet for %s', asked.c);
    elsif asked.n & network = 0 then
        reason := 'ADDRESS_OF_OTHER_NETWORK';
        parameter := 'address';
        message := format('is not an address of the network %s, which this wallet is on', wallet.network_name(network));
    elsif asked.k <> 6 and asked.a not between hot.amount_min and hot.amount_max then
        reason := 'LIMIT_EXCEEDED';
        parameter := 'amount';
        message := format(
            '%s is not from %s to %s, the limits of one withdrawal in %s',
            trim_scale(asked.a), trim_scale(hot.amount_min), trim_scale(hot.amount_max), asked.c
        );
    elsif asked.f > hot.fee_max then
        reason := 'LIMIT_EXCEEDED';
        parameter := 'fee';
        message := format('%s is above %s, the limit in %s', trim_scale(asked.f), trim_scale(hot.fee_max), asked.c);
    elsif is_listed and not is_allowed then
        reason := 'ADDRESS_NOT_WHITELISTED';
        parameter := 'address';
        message := format('is not on the whitelist of user %s for %s', asked.u, asked.c);
    end if;
end
$$;

-- Why a withdrawal cannot be broadcast, confirmed or cancelled by this branch, or null.
create function wallet.change_objection(
    asked wallet.operation, found wallet.withdrawals, is_connected boolean, is_repeated boolean, is_first boolean,
    out reason text, out message text
) language plpgsql immutable as $$
begin
    if found.withdrawal_id is null then
        reason := 'UNKNOWN_WITHDRAWAL';
        message := format('there is no withdrawal %s', asked.w);
    elsif is_repeated then
        reason := 'WITHDRAWAL_REPEATED';
        message := format('withdrawal %s is to be changed twice by one transaction', asked.w);
    elsif found.status = 1 then
        reason := 'WITHDRAWAL_PENDING';
        message := format('withdrawal %s is being reserved by another transaction', asked.w);
    elsif found.changing is not null or not is_first then
        reason := 'WITHDRAWAL_BUSY';
        message := format('withdrawal %s is being changed by another transaction', asked.w);
    elsif asked.k = 4 and found.status between 3 and 5 then
        reason := 'WITHDRAWAL_NOT_CONFIRMED';
        message := format('withdrawal %s is %s: the chain has not confirmed it yet', asked.w, wallet.status_name(found.status));
    elsif asked.k = 4 and found.status = 2 then
        reason := 'WITHDRAWAL_NOT_BROADCAST';
        message := format('withdrawal %s has not been broadcast', asked.w);
    elsif (asked.k = 3 and found.status <> 2) or (asked.k = 4 and found.status <> 6) or (asked.k = 5 and found.status > 3) then
        reason := 'WITHDRAWAL_' || wallet.status_name(found.status);
        message := format('withdrawal %s is %s', asked.w, wallet.status_name(found.status));
    elsif asked.k = 3 and is_connected is distinct from true then
        reason := case when is_connected is null then 'CHAIN_UNKNOWN' else 'CHAIN_NOT_CONNECTED' end;
        message := case
            when is_connected is null then format('it is not known yet whether a node for %s is connected', found.currency)
            else format('no node for %s is connected, so nothing can be broadcast there', found.currency)
        end;
    end if;
end
$$;

create function wallet.refusal(operation smallint, reason text, parameter text, message text) returns text
language sql immutable as $$
    select json_build_object(
        'xa_code', case
            when t.is_transient then 107
            when reason in ('UNKNOWN_CURRENCY', 'ADDRESS_OF_OTHER_NETWORK', 'UNKNOWN_WITHDRAWAL') then -5
            else 100
        end,
        'reason', reason,
        'message', format('operations[%s].parameters.%s: %s', operation, parameter, message),
        'field', format('operations[%s].parameters.%s', operation, parameter),
        'transient', t.is_transient
    )::text
    from (
        select reason in (
            'WITHDRAWAL_PENDING', 'WITHDRAWAL_BUSY', 'WITHDRAWAL_NOT_CONFIRMED', 'DEPOSIT_PENDING', 'CHAIN_UNKNOWN'
        ) as is_transient
    ) as t
$$;
