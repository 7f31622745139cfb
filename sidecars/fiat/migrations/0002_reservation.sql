-- Fiat's part in a batch; see pincex.apply_batch for what must be done, and in which order.
--
-- An operation is {b: branch, o: place in the branch, k: kind, u: user, c: currency, a: amount, i: bank reference or
-- withdrawal id, n: IBAN, h: account holder, s: state, t: note, d: direction (1 deposit, 2 withdrawal)}, with what its
-- kind needs. Kinds: 1 set_compliance, 2 check_compliance, 3 validate_transfer, 4 record_deposit,
-- 5 reserve_withdrawal, 6 complete_withdrawal, 7 cancel_withdrawal, 8 deposit_status, 9 withdrawal_status.

-- References and ids are taken by inserting their rows, in their order: whoever comes second finds the first one's.
-- This comes before any lock, so that nobody waits here who holds one.
create function fiat.claim(numbers bigint[], operations jsonb) returns void
language plpgsql as $$
begin
    insert into fiat.users (user_id)
    select distinct w.u collate "C"
    from jsonb_to_recordset(operations) as w (b integer, k smallint, u text)
    where w.k = 1 and numbers[w.b] is not null
    order by 1
    on conflict do nothing;
    insert into fiat.deposits (branch, operation, user_id, currency, amount, reference, day)
    select numbers[w.b], w.o, w.u, w.c, w.a, w.i, (now() at time zone 'utc')::date
    from jsonb_to_recordset(operations) as w (b integer, o smallint, k smallint, u text, c text, a numeric, i text)
    where w.k = 4 and numbers[w.b] is not null
    order by w.i collate "C", w.b, w.o
    on conflict do nothing;
    insert into fiat.withdrawals (branch, operation, user_id, currency, amount, withdrawal_id, iban, account_holder, day)
    select numbers[w.b], w.o, w.u, w.c, w.a, w.i, w.n, w.h, (now() at time zone 'utc')::date
    from jsonb_to_recordset(operations)
        as w (b integer, o smallint, k smallint, u text, c text, a numeric, i text, n text, h text)
    where w.k = 5 and numbers[w.b] is not null
    order by w.i collate "C", w.b, w.o
    on conflict do nothing;
end
$$;

-- Users first: their limits are counted, and their states changed. Then the withdrawals that are, or will be, ended.
create function fiat.lock_keys(ends bigint[], operations jsonb) returns void
language plpgsql as $$
begin
    perform
    from fiat.users as u
    where u.user_id in (
        select w.u from jsonb_to_recordset(operations) as w (k smallint, u text) where w.k in (1, 4, 5)
        union
        select x.user_id
        from jsonb_to_recordset(operations) as w (k smallint, i text)
        join fiat.withdrawals as x on x.withdrawal_id = w.i
        where w.k in (6, 7)
        union
        select c.user_id from fiat.compliance_changes as c where c.branch = any (ends)
        union
        select d.user_id from fiat.deposits as d where d.branch = any (ends)
        union
        select x.user_id from fiat.withdrawals as x where x.branch = any (ends)
        union
        select x.user_id from fiat.withdrawals as x where x.ending = any (ends)
    )
    order by u.user_id
    for no key update;
    perform
    from fiat.withdrawals as x
    where x.withdrawal_id in (
        select w.i from jsonb_to_recordset(operations) as w (k smallint, i text) where w.k in (6, 7)
        union
        select e.withdrawal_id from fiat.withdrawals as e where e.branch = any (ends)
        union
        select e.withdrawal_id from fiat.withdrawals as e where e.ending = any (ends)
    )
    order by x.withdrawal_id
    for no key update;
end
$$;

create function fiat.uncount(user_ids text[], currencies text[], days date[], deposited numeric[], withdrawn numeric[])
returns void
language plpgsql as $$
begin
    update fiat.usage as g
    set deposited = g.deposited - s.deposited, withdrawn = g.withdrawn - s.withdrawn
    from (
        select n.user_id, n.currency, n.day, sum(n.deposited) as deposited, sum(n.withdrawn) as withdrawn
        from unnest(user_ids, currencies, days, deposited, withdrawn)
            as n (user_id, currency, day, deposited, withdrawn)
        group by n.user_id, n.currency, n.day
    ) as s
    where g.user_id = s.user_id and g.currency = s.currency and g.day = s.day;
end
$$;

create function fiat.commit_branches(branches bigint[]) returns void
language plpgsql as $$
declare
    is_sending boolean := false;
    ended record;
begin
    with recorded as (
        update fiat.deposits as d set recorded_at = now()
        where d.branch = any (branches)
        returning d.user_id, d.currency, d.amount, d.reference, d.recorded_at
    ), told as (
        insert into fiat.notifications (reference, body)
        select
            r.reference,
            json_build_object(
                'type', 'deposit.recorded',
                'timestamp', r.recorded_at,
                'data', json_build_object(
                    'bank_reference', r.reference, 'user_id', r.user_id,
                    'currency', r.currency, 'amount', trim_scale(r.amount)::text
                )
            )
        from recorded as r
    )
    select count(*) > 0 into is_sending from recorded as r;

    with moved as (
        update fiat.withdrawals as x
        set
            status = case when x.ending = any (branches) then x.ending_as else 2 end,
            ending = case when x.ending = any (branches) then null else x.ending end,
            ending_as = case when x.ending = any (branches) then null else x.ending_as end
        where x.withdrawal_id in (
            select w.withdrawal_id from fiat.withdrawals as w where w.branch = any (branches)
            union
            select w.withdrawal_id from fiat.withdrawals as w where w.ending = any (branches)
        )
        returning x.withdrawal_id, x.status, x.user_id, x.currency, x.day, x.amount
    ), queued as (
        insert into fiat.payments (withdrawal_id) select m.withdrawal_id from moved as m where m.status = 3
    )
    select
        bool_or(m.status = 3) as are_completed,
        array_agg(m.user_id) filter (where m.status = 4) as user_ids,
        array_agg(m.currency) filter (where m.status = 4) as currencies,
        array_agg(m.day) filter (where m.status = 4) as days,
        array_agg(m.amount) filter (where m.status = 4) as amounts
    into ended
    from moved as m;
    if ended.user_ids is not null then
        perform fiat.uncount(
            ended.user_ids, ended.currencies, ended.days,
            array_fill(0::numeric, array[cardinality(ended.amounts)]), ended.amounts
        );
    end if;

    with changed as (
        update fiat.compliance_changes as c set made_at = now()
        where c.branch = any (branches)
        returning c.user_id, c.state
    )
    update fiat.users as u set state = c.state, changing = null
    from changed as c
    where u.user_id = c.user_id;

    if is_sending or ended.are_completed then
        perform pg_notify('fiat_outbox', '');
    end if;
end
$$;

create function fiat.rollback_branches(branches bigint[]) returns void
language plpgsql as $$
declare
    undone record;
begin
    with deposits as (
        delete from fiat.deposits as d where d.branch = any (branches)
        returning d.user_id, d.currency, d.day, d.amount
    ), withdrawals as (
        delete from fiat.withdrawals as x where x.branch = any (branches)
        returning x.user_id, x.currency, x.day, x.amount
    ), voided as (
        select d.user_id, d.currency, d.day, d.amount as deposited, 0::numeric as withdrawn from deposits as d
        union all
        select x.user_id, x.currency, x.day, 0, x.amount from withdrawals as x
    )
    select
        array_agg(v.user_id) as user_ids, array_agg(v.currency) as currencies, array_agg(v.day) as days,
        array_agg(v.deposited) as deposited, array_agg(v.withdrawn) as withdrawn
    into undone
    from voided as v;
    if undone.user_ids is not null then
        perform fiat.uncount(undone.user_ids, undone.currencies, undone.days, undone.deposited, undone.withdrawn);
    end if;
    update fiat.withdrawals as x set ending = null, ending_as = null where x.ending = any (branches);
    delete from fiat.compliance_changes as c where c.branch = any (branches);
    update fiat.users as u set changing = null where u.changing = any (branches);
end
$$;

create type fiat.objection as (reason text, parameter text, message text);

create function fiat.no(reason text, parameter text, message text) returns fiat.objection
language sql immutable as $$
    select row(reason, parameter, message)::fiat.objection
$$;

-- Why this user may not move money, or null.
create function fiat.user_objection(user_id text, state smallint, parameter text) returns fiat.objection
language plpgsql immutable as $$
begin
    return case
        when state = 2 then null
        when state = 3 then fiat.no('USER_BLOCKED', parameter, format('user %s is blocked', user_id))
        else fiat.no('COMPLIANCE_PENDING', parameter, format('user %s is not cleared', user_id))
    end;
end
$$;

-- Why money cannot be moved within the limits, or null. ``own`` is what the branch moves up to here, ``running`` what
-- all branches of the batch do that come no later; ``used`` is what the day has seen. AGAIN: perhaps, in the next pass.
create function fiat.limit_objection(
    limits fiat.limits, direction smallint, currency text, amount numeric, own numeric, running numeric, used numeric
) returns fiat.objection
language plpgsql immutable as $$
declare
    lowest constant numeric := case direction when 1 then 0 else limits.withdrawal_min end;
    most constant numeric := case direction when 1 then limits.deposit_max else limits.withdrawal_max end;
    daily constant numeric := case direction when 1 then limits.deposit_day else limits.withdrawal_day end;
    verb constant text := case direction when 1 then 'deposit' else 'withdrawal' end;
begin
    return case
        when limits.currency is null then
            fiat.no('CURRENCY_CLOSED', 'currency', format('nothing is moved in %s', currency))
        when amount < lowest then
            fiat.no('LIMIT_EXCEEDED', 'amount', format('a %s is at least %s %s', verb, trim_scale(lowest), currency))
        when amount > most then
            fiat.no('LIMIT_EXCEEDED', 'amount', format('a %s is at most %s %s', verb, trim_scale(most), currency))
        when used + own > daily then
            fiat.no('DAILY_LIMIT_EXCEEDED', 'amount', format(
                'the day has %s of %s %s left', trim_scale(greatest(daily - used, 0)), trim_scale(daily), currency
            ))
        when used + running > daily then fiat.no('AGAIN', 'amount', '')
    end;
end
$$;

-- Why a deposit is not what the bank told, or null.
create function fiat.transfer_objection(told fiat.bank_transfers, named text, currency text, amount numeric, iban text)
returns fiat.objection
language plpgsql immutable as $$
begin
    return case
        when told.reference is null then
            fiat.no('TRANSFER_UNKNOWN', 'bank_reference', format('the bank has told of no transfer %s', named))
        when told.currency <> currency then
            fiat.no('TRANSFER_MISMATCH', 'currency', format('the bank tells of %s', told.currency))
        when told.amount <> amount then
            fiat.no('TRANSFER_MISMATCH', 'amount', format('the bank tells of %s', trim_scale(told.amount)))
        when told.iban <> iban then fiat.no('TRANSFER_MISMATCH', 'iban', 'the bank tells of another account')
    end;
end
$$;

-- Why a reference is not this branch's, or null. Only that of another branch in doubt may be free again.
create function fiat.reference_objection(
    taken fiat.deposits, named text, branch bigint, operation smallint, kind smallint
) returns fiat.objection
language plpgsql immutable as $$
begin
    return case
        when taken.branch = branch and (kind = 3 or taken.operation = operation) then null
        when taken.branch = branch then
            fiat.no('REFERENCE_REPEATED', 'bank_reference', format('transfer %s is to be recorded twice', named))
        when taken.recorded_at is not null then
            fiat.no('REFERENCE_USED', 'bank_reference', format('transfer %s is recorded already', named))
        when taken.branch is not null or kind = 4 then
            fiat.no('REFERENCE_IN_DOUBT', 'bank_reference', format('transfer %s is in another transaction', named))
    end;
end
$$;

-- Why a withdrawal's id is not this branch's, or null.
create function fiat.withdrawal_objection(taken fiat.withdrawals, named text, branch bigint, operation smallint)
returns fiat.objection
language plpgsql immutable as $$
begin
    return case
        when taken.branch = branch and taken.operation = operation then null
        when taken.branch = branch then
            fiat.no('WITHDRAWAL_REPEATED', 'withdrawal_id', format('withdrawal %s is to be reserved twice', named))
        when taken.status > 1 then
            fiat.no('WITHDRAWAL_EXISTS', 'withdrawal_id', format('there is a withdrawal %s already', named))
        else fiat.no('WITHDRAWAL_IN_DOUBT', 'withdrawal_id', format('withdrawal %s is in another transaction', named))
    end;
end
$$;

-- Why this branch cannot end a withdrawal, or null. One that it reserved itself, further up, it can.
create function fiat.ending_objection(
    found fiat.withdrawals, named text, branch bigint, operation smallint, is_repeated boolean, is_first boolean
) returns fiat.objection
language plpgsql immutable as $$
begin
    return case
        when found.withdrawal_id is null or (found.branch = branch and found.operation > operation) then
            fiat.no('UNKNOWN_WITHDRAWAL', 'withdrawal_id', format('there is no withdrawal %s', named))
        when is_repeated then
            fiat.no('WITHDRAWAL_REPEATED', 'withdrawal_id', format('withdrawal %s is to be ended twice', named))
        when found.status = 3 then
            fiat.no('WITHDRAWAL_COMPLETED', 'withdrawal_id', format('withdrawal %s is completed already', named))
        when found.status = 4 then
            fiat.no('WITHDRAWAL_CANCELLED', 'withdrawal_id', format('withdrawal %s is cancelled', named))
        when (found.status = 1 and found.branch <> branch) or found.ending is not null or not is_first then
            fiat.no('WITHDRAWAL_IN_DOUBT', 'withdrawal_id', format('withdrawal %s is in another transaction', named))
    end;
end
$$;

create function fiat.change_objection(found fiat.users, is_repeated boolean, is_first boolean) returns fiat.objection
language plpgsql immutable as $$
begin
    return case
        when is_repeated then
            fiat.no('COMPLIANCE_REPEATED', 'user_id', format('user %s is to be changed twice', found.user_id))
        when found.changing is not null or not is_first then
            fiat.no('COMPLIANCE_IN_DOUBT', 'user_id', format('user %s is changed by another transaction', found.user_id))
    end;
end
$$;

create type fiat.operation as (
    b integer, o smallint, k smallint, u text, c text, a numeric, i text, n text, h text, s smallint, t text, d smallint
);

-- The first that is said against each of the candidates as things stand. What another transaction's end may change
-- is said only where nothing else is, and AGAIN after that.
create function fiat.objections(numbers bigint[], operations jsonb, candidates integer[])
returns table (at integer, operation smallint, reason text, parameter text, message text)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    with wanted as materialized (
        select
            w.*,
            numbers[w.b] as branch,
            sum(w.a) filter (where w.k in (4, 5)) over (partition by w.u, w.c, w.d, w.b order by w.o) as own,
            sum(w.a) filter (where w.k in (4, 5)) over (partition by w.u, w.c, w.d order by w.b, w.o) as running,
            row_number() over (partition by w.k in (6, 7), w.k = 1, w.i, w.u, w.b order by w.o) > 1 as is_repeated,
            min(w.b) over (partition by w.k in (6, 7), w.k = 1, w.i, w.u) = w.b as is_first
        from jsonb_populate_recordset(null::fiat.operation, operations) as w
        where numbers[w.b] is not null and (candidates is null or w.b = any (candidates))
    ), judged as (
        select w.b, w.o, 1 as place, fiat.change_objection(found, w.is_repeated, w.is_first) as objection
        from wanted as w
        join fiat.users as found on found.user_id = w.u
        where w.k = 1
        union all
        select w.b, w.o, 2, fiat.user_objection(w.u, found.state, 'user_id')
        from wanted as w
        left join fiat.users as found on found.user_id = w.u
        where w.k in (2, 4, 5)
        union all
        select w.b, w.o, 3, fiat.reference_objection(taken, w.i, w.branch, w.o, w.k)
        from wanted as w
        left join fiat.deposits as taken on taken.reference = w.i
        where w.k in (3, 4)
        union all
        select w.b, w.o, 4, fiat.transfer_objection(told, w.i, w.c, w.a, w.n)
        from wanted as w
        left join fiat.bank_transfers as told on told.reference = w.i
        where w.k in (3, 4)
        union all
        select w.b, w.o, 3, fiat.withdrawal_objection(held, w.i, w.branch, w.o)
        from wanted as w
        left join fiat.withdrawals as held on held.withdrawal_id = w.i
        where w.k = 5
        union all
        select w.b, w.o, 1, fiat.ending_objection(held, w.i, w.branch, w.o, w.is_repeated, w.is_first)
        from wanted as w
        left join fiat.withdrawals as held on held.withdrawal_id = w.i
        where w.k in (6, 7)
        union all
        select w.b, w.o, 2, fiat.user_objection(held.user_id, found.state, 'withdrawal_id')
        from wanted as w
        join fiat.withdrawals as held on held.withdrawal_id = w.i
        left join fiat.users as found on found.user_id = held.user_id
        where w.k = 6
        union all
        select w.b, w.o, 5, fiat.limit_objection(
            most, w.d, w.c, w.a,
            case w.k when 2 then w.a else w.own end, case w.k when 2 then w.a else w.running end,
            coalesce(case w.d when 1 then g.deposited else g.withdrawn end, 0)
        )
        from wanted as w
        left join fiat.limits as most on most.currency = w.c
        left join fiat.usage as g
            on g.user_id = w.u and g.currency = w.c and g.day = (now() at time zone 'utc')::date
        where w.k in (2, 4, 5) and w.a is not null
    )
    select distinct on (j.b) j.b, j.o, (j.objection).reason, (j.objection).parameter, (j.objection).message
    from judged as j
    where (j.objection).reason is not null
    order by
        j.b, (j.objection).reason = 'AGAIN', (j.objection).reason like '%\_IN\_DOUBT', j.o, j.place;
end
$$;

-- Take what these branches want; nothing is said against them.
create function fiat.take(numbers bigint[], operations jsonb, accepted integer[]) returns void
language plpgsql as $$
begin
    insert into fiat.usage as g (user_id, currency, day, deposited, withdrawn)
    select
        w.u, w.c, (now() at time zone 'utc')::date,
        coalesce(sum(w.a) filter (where w.k = 4), 0), coalesce(sum(w.a) filter (where w.k = 5), 0)
    from jsonb_populate_recordset(null::fiat.operation, operations) as w
    where w.b = any (accepted) and w.k in (4, 5)
    group by w.u, w.c
    on conflict (user_id, currency, day) do update
    set deposited = g.deposited + excluded.deposited, withdrawn = g.withdrawn + excluded.withdrawn;

    update fiat.withdrawals as x
    set ending = numbers[w.b], ending_as = case w.k when 6 then 3 else 4 end
    from jsonb_populate_recordset(null::fiat.operation, operations) as w
    where w.b = any (accepted) and w.k in (6, 7) and x.withdrawal_id = w.i;

    with changes as (
        insert into fiat.compliance_changes (branch, operation, user_id, state, note)
        select numbers[w.b], w.o, w.u, w.s, w.t
        from jsonb_populate_recordset(null::fiat.operation, operations) as w
        where w.b = any (accepted) and w.k = 1
        returning branch, user_id
    )
    update fiat.users as u set changing = c.branch
    from changes as c
    where u.user_id = c.user_id;
end
$$;

-- What reads return, one JSON text each.
create function fiat.deposit_status(named text) returns text
language plpgsql stable as $$
begin
    return (
        select json_strip_nulls(json_build_object(
            'bank_reference', named,
            'state', case
                when d.recorded_at is not null then 'RECORDED'
                when d.branch is not null then 'PENDING'
                when t.reference is not null then 'ANNOUNCED'
                else 'UNKNOWN'
            end,
            'user_id', d.user_id,
            'currency', t.currency,
            'amount', trim_scale(t.amount)::text,
            'notification', (array['QUEUED', 'DELIVERED', 'DEAD'])[n.state]
        ))::text
        from (values (named)) as r (reference)
        left join fiat.bank_transfers as t on t.reference = r.reference
        left join fiat.deposits as d on d.reference = r.reference
        left join fiat.notifications as n on n.reference = r.reference
    );
end
$$;

create function fiat.withdrawal_status(named text) returns text
language plpgsql stable as $$
begin
    return (
        select json_strip_nulls(json_build_object(
            'withdrawal_id', named,
            'state', coalesce((array['PENDING', 'RESERVED', 'COMPLETED', 'CANCELLED'])[x.status], 'UNKNOWN'),
            'user_id', x.user_id,
            'currency', x.currency,
            'amount', trim_scale(x.amount)::text,
            'payment', (array['QUEUED', 'SENT', 'PAID', 'REJECTED', 'STUCK'])[p.state],
            'payment_id', p.payment_id,
            'detail', nullif(p.detail, '')
        ))::text
        from (values (named)) as r (withdrawal_id)
        left join fiat.withdrawals as x on x.withdrawal_id = r.withdrawal_id
        left join fiat.payments as p on p.withdrawal_id = r.withdrawal_id
    );
end
$$;

create function fiat.refusal(operation smallint, reason text, parameter text, message text) returns text
language sql immutable as $$
    select json_build_object(
        'xa_code', case
            when reason like '%\_IN\_DOUBT' then 107
            when reason like 'UNKNOWN\_%' or reason like '%\_REPEATED' then -5
            else 100
        end,
        'reason', reason,
        'message', format('operations[%s].parameters.%s: %s', operation, parameter, message),
        'field', format('operations[%s].parameters.%s', operation, parameter),
        'transient', reason like '%\_IN\_DOUBT'
    )::text
$$;

create function fiat.reserve(numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
declare
    candidates integer[] := array(
        select distinct w.b from jsonb_to_recordset(operations) as w (b integer) where numbers[w.b] is not null
    );
    refused integer[] := '{}';
    accepted integer[];
    again integer[];
    unfit record;
begin
    -- Every pass takes or refuses at least the first of its candidates, so there are never more than branches.
    while candidates <> '{}' loop
        again := '{}';
        for unfit in
            select j.* from fiat.objections(numbers, operations, candidates) as j
        loop
            if unfit.reason = 'AGAIN' then
                again := again || unfit.at;
            else
                refused := refused || unfit.at;
                at := unfit.at;
                vote := 3;
                answer := fiat.refusal(unfit.operation, unfit.reason, unfit.parameter, unfit.message);
                return next;
            end if;
        end loop;
        accepted := array(select c.at from unnest(candidates) as c (at) where c.at <> all (again || refused));
        perform fiat.take(numbers, operations, accepted);
        candidates := again;
    end loop;
    if refused <> '{}' then
        delete from fiat.deposits as d where d.branch in (select numbers[r.at] from unnest(refused) as r (at));
        delete from fiat.withdrawals as x where x.branch in (select numbers[r.at] from unnest(refused) as r (at));
    end if;
    -- What only asked, and changed nothing, is out of it.
    return query
    select
        w.b, 2::smallint,
        json_build_object('results', json_agg(
            case w.k
                when 2 then '{"state":"CLEARED"}'
                when 3 then '{"valid":true}'
                when 8 then fiat.deposit_status(w.i)
                when 9 then fiat.withdrawal_status(w.i)
            end
            order by w.o
        ))::text
    from jsonb_to_recordset(operations) as w (b integer, o smallint, k smallint, i text)
    where numbers[w.b] is not null and w.b <> all (refused)
    group by w.b
    having bool_and(w.k in (2, 3, 8, 9));
end
$$;

create function fiat.apply_operations(committed bigint[], undone bigint[], numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
begin
    if operations <> '[]' then
        perform fiat.claim(numbers, operations);
    end if;
    perform fiat.lock_keys(committed || undone, operations);
    if cardinality(committed) > 0 then
        perform fiat.commit_branches(committed);
    end if;
    if cardinality(undone) > 0 then
        perform fiat.rollback_branches(undone);
    end if;
    if operations <> '[]' then
        return query select * from fiat.reserve(numbers, operations);
    end if;
end
$$;
