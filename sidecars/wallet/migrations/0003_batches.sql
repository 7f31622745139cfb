-- Checking and reserving whole batches.

-- The branches' changes to withdrawals that are there, judged.
create function wallet.judge_changes(operations wallet.operation[])
returns table (b integer, o smallint, reason text, parameter text, message text)
language plpgsql as $$
begin
    return query
    select c.b, c.o, j.reason, 'withdrawal_id', j.message
    from (
        select
            e as asked, e.b, e.o,
            e.k <> 7 and row_number() over (partition by e.w, e.k = 7, e.b order by e.o) > 1 as is_repeated,
            e.k = 7 or min(e.b) over (partition by e.w, e.k = 7) = e.b as is_first
        from unnest(operations) as e
        where e.k in (3, 4, 5)
    ) as c
    left join wallet.withdrawals as w on w.withdrawal_id = (c.asked).w
    left join wallet.hot_wallets as h on h.currency = w.currency
    cross join lateral wallet.change_objection(c.asked, w, h.is_connected, c.is_repeated, c.is_first) as j
    where j.reason is not null
    union all
    select e.b, e.o, 'UNKNOWN_WITHDRAWAL', 'withdrawal_id', format('there is no withdrawal %s', e.w)
    from unnest(operations) as e
    where e.k = 7 and not exists (select from wallet.withdrawals as w where w.withdrawal_id = e.w);
end
$$;

-- Deposits, judged: an output is credited once.
create function wallet.judge_deposits(operations wallet.operation[])
returns table (b integer, o smallint, reason text, parameter text, message text)
language plpgsql as $$
begin
    return query
    select e.b, e.o, j.reason, j.parameter, j.message
    from unnest(operations) as e
    cross join wallet.settings as s
    left join wallet.hot_wallets as h on h.currency = e.c
    cross join lateral wallet.objection(e, h, s.network, false, false) as j
    where e.k = 6 and j.reason is not null
    union all
    select
        r.b, r.o,
        case
            when r.is_repeated then 'DEPOSIT_REPEATED'
            when d.posted_at is not null then 'DEPOSIT_EXISTS'
            else 'DEPOSIT_PENDING'
        end,
        'tx_hash',
        case
            when r.is_repeated then format('output %s of %s is to be recorded twice by one transaction', r.x, r.t)
            when d.posted_at is not null then format('output %s of %s is recorded already', r.x, r.t)
            else format('output %s of %s is being recorded by another transaction', r.x, r.t)
        end
    from (
        select
            e.*,
            row_number() over (partition by e.c, e.t, e.x, e.b order by e.o) > 1 as is_repeated,
            min(e.b) over (partition by e.c, e.t, e.x) = e.b as is_first
        from unnest(operations) as e
        where e.k = 6
    ) as r
    left join wallet.deposits as d on d.currency = r.c and d.tx_hash = r.t and d.output_index = r.x
    where d.branch is not null or r.is_repeated or not r.is_first;
end
$$;

-- New withdrawals, judged. Running sums over hot wallets and users' days, in order of arrival, keep two branches of
-- one batch from taking the same; they count refused branches too, and so may refuse too much: those are told AGAIN.
create function wallet.judge_withdrawals(operations wallet.operation[])
returns table (b integer, o smallint, reason text, parameter text, message text)
language plpgsql as $$
begin
    return query
    with asked as materialized (
        select
            e as asked, e.*, h as hot, s.network,
            h.balance - h.reserved as free,
            e.a + coalesce(e.f, h.fee) as needed,
            exists (select from wallet.whitelist as l where l.user_id = e.u and l.currency = e.c) as is_listed,
            exists (
                select from wallet.whitelist as l where l.user_id = e.u and l.currency = e.c and l.address = e.d
            ) as is_allowed,
            coalesce((
                select sum(p.amount) from wallet.withdrawals as p
                where
                    p.user_id = e.u and p.currency = e.c and p.day = (now() at time zone 'utc')::date and p.status <> 8
            ), 0) as of_day
        from unnest(operations) as e
        cross join wallet.settings as s
        left join wallet.hot_wallets as h on h.currency = e.c
        where e.k in (1, 2)
    ), summed as materialized (
        select
            a.*,
            -- A question counts by itself.
            sum(a.needed) over (partition by a.c, a.b, a.k, case a.k when 2 then a.o end) as own,
            sum(a.needed) over (partition by a.c, a.k order by a.b) as running,
            sum(a.a) over (partition by a.c, a.u, a.b, a.k, case a.k when 2 then a.o end) as own_day,
            sum(a.a) over (partition by a.c, a.u, a.k order by a.b) as running_day,
            row_number() over (partition by a.w, a.k, a.b order by a.o) > 1 as is_repeated,
            min(a.b) over (partition by a.w, a.k) = a.b as is_first
        from asked as a
    )
    select s.b, s.o, v.reason, v.parameter, v.message
    from summed as s
    left join wallet.withdrawals as w on w.withdrawal_id = s.w
    cross join lateral wallet.objection(s.asked, s.hot, s.network, s.is_listed, s.is_allowed) as j
    cross join lateral (
        select
            case
                when j.reason is not null then j.reason
                when s.k = 1 and s.is_repeated then 'WITHDRAWAL_REPEATED'
                when w.status = 1 then 'WITHDRAWAL_PENDING'
                when w.status > 1 then 'WITHDRAWAL_EXISTS'
                when s.of_day + s.own_day > (s.hot).day_max then 'DAILY_LIMIT_EXCEEDED'
                when s.own > s.free then 'HOT_WALLET_INSUFFICIENT'
                when s.k = 1 and (not s.is_first or s.running > s.free) then 'AGAIN'
                when s.k = 1 and s.of_day + s.running_day > (s.hot).day_max then 'AGAIN'
            end as reason
    ) as r
    cross join lateral (
        select
            r.reason,
            case
                when j.reason is not null then j.parameter
                when r.reason in ('DAILY_LIMIT_EXCEEDED', 'HOT_WALLET_INSUFFICIENT') then 'amount'
                else 'withdrawal_id'
            end as parameter,
            case
                when j.reason is not null then j.message
                when r.reason = 'WITHDRAWAL_REPEATED' then format('withdrawal %s is asked for twice', s.w)
                when r.reason = 'WITHDRAWAL_PENDING'
                    then format('withdrawal %s is being reserved by another transaction', s.w)
                when r.reason = 'WITHDRAWAL_EXISTS' then format('there is a withdrawal %s already', s.w)
                when r.reason = 'DAILY_LIMIT_EXCEEDED' then format(
                    'user %s has withdrawn %s %s today, and %s more is above the limit of %s',
                    s.u, trim_scale(s.of_day), s.c, trim_scale(s.own_day), trim_scale((s.hot).day_max)
                )
                else format(
                    'the hot wallet has %s %s free, and %s is needed, the fee included',
                    trim_scale(s.free), s.c, trim_scale(s.own)
                )
            end as message
    ) as v
    where v.reason is not null;
end
$$;

-- What a withdrawal's user may know of it.
create function wallet.status_of(named text) returns text
language plpgsql as $$
begin
    return (
        select json_build_object(
            'withdrawal_id', w.withdrawal_id,
            'status', wallet.status_name(w.status),
            'user_id', w.user_id,
            'currency', w.currency,
            'amount', trim_scale(w.amount)::text,
            'address', w.address,
            'tx_hash', p.txid,
            'fee', trim_scale(p.fee)::text,
            'confirmations', coalesce(p.confirmations, 0),
            'confirmations_needed', h.confirmations,
            'problem', w.problem
        )::text
        from wallet.withdrawals as w
        join wallet.hot_wallets as h on h.currency = w.currency
        left join wallet.payments as p on p.withdrawal_id = w.withdrawal_id
        where w.withdrawal_id = named
    );
end
$$;

-- One pass over operations: reserve for the branches that fit, return what does not.
create function wallet.reserve_pass(numbers bigint[], operations wallet.operation[])
returns table (b integer, o smallint, reason text, parameter text, message text)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    with objected as materialized (
        select * from wallet.judge_changes(operations)
        union all
        select * from wallet.judge_deposits(operations)
        union all
        select * from wallet.judge_withdrawals(operations)
    ), good as materialized (
        select e.*, numbers[e.b] as branch
        from unnest(operations) as e
        where e.b not in (select n.b from objected as n)
    ), reserved as (
        insert into wallet.withdrawals as w
            (branch, operation, status, amount, fee, day, withdrawal_id, user_id, currency, address)
        select
            g.branch, g.o, 1, g.a, coalesce(g.f, h.fee), (now() at time zone 'utc')::date, g.w, g.u, g.c, g.d
        from good as g
        join wallet.hot_wallets as h on h.currency = g.c
        where g.k = 1
        returning w.currency, w.amount + w.fee as needed
    ), taken as (
        update wallet.hot_wallets as h
        set reserved = h.reserved + r.needed
        from (select v.currency, sum(v.needed) as needed from reserved as v group by v.currency) as r
        where h.currency = r.currency
    ), marked as (
        update wallet.withdrawals as w set changing = g.branch, change = g.k
        from good as g
        where g.k in (3, 4, 5) and w.withdrawal_id = g.w
    ), recorded as (
        insert into wallet.deposits (branch, operation, output_index, amount, tx_hash, currency, user_id, address)
        select g.branch, g.o, g.x, g.a, g.t, g.c, g.u, g.d from good as g where g.k = 6
    )
    select n.b, n.o, n.reason, n.parameter, n.message from objected as n;
end
$$;

create function wallet.apply_operations(committed bigint[], undone bigint[], numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
declare
    asked constant wallet.operation[] := array(
        select e
        from jsonb_populate_recordset(null::wallet.operation, operations) as e
        where numbers[e.b] is not null
    );
    candidates wallet.operation[] := asked;
    again integer[];
    refused integer[] := '{}';
    unfit record;
begin
    perform wallet.lock_keys(committed || undone, asked);
    if cardinality(committed) > 0 then
        perform wallet.commit_branches(committed);
    end if;
    if cardinality(undone) > 0 then
        perform wallet.rollback_branches(undone);
    end if;

    -- Every pass takes or refuses at least the first of its candidates, so there are never more than branches.
    while cardinality(candidates) > 0 loop
        again := '{}';
        for unfit in
            select distinct on (p.b) p.* from wallet.reserve_pass(numbers, candidates) as p
            order by p.b, p.reason = 'AGAIN', p.o
        loop
            if unfit.reason = 'AGAIN' then
                again := again || unfit.b;
            else
                refused := refused || unfit.b;
                at := unfit.b;
                vote := 3;
                answer := wallet.refusal(unfit.o, unfit.reason, unfit.parameter, unfit.message);
                return next;
            end if;
        end loop;
        candidates := array(select e from unnest(candidates) as e where e.b = any (again));
    end loop;

    -- What only asked, and changed nothing, is out of it, with what it asked for.
    return query
    select
        e.b, 2::smallint,
        case when bool_or(e.k = 7) then json_build_object(
            'results', json_agg(case e.k when 7 then wallet.status_of(e.w) else '' end order by e.o)
        )::text end
    from unnest(asked) as e
    where e.b <> all (refused)
    group by e.b
    having bool_and(e.k in (2, 7));
end
$$;
