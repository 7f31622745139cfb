-- Locked money that goes to another account, accounts opened only where there is none, balances that are read.
--
-- Three kinds of operation join those of 0002: 0 opens an account unless it is open, 7 captures, 8 reads a balance and
-- leaves no entry. What is replaced here is as before but for them; code that does not know them yet runs on it too.

-- What is there has passed the narrower checks.
alter table bookkeeper.entries drop constraint entries_kind_check, drop constraint entries_check;
alter table bookkeeper.entries
    -- 0 open where absent, 1 open, 2 credit, 3 debit, 4 lock, 5 release, 6 transfer, 7 capture.
    add constraint entries_kind_check check (kind between 0 and 7) not valid,
    add constraint entries_amount_check check (amount > 0 or kind <= 1) not valid;

-- Captured money leaves the locked compartment of the one and reaches the free one of the other.
create or replace view bookkeeper.lines as
select
    e.branch, e.operation, e.kind, l.account, l.compartment,
    coalesce(d.currency, c.currency) as currency, l.amount, e.posted_at, e.description
from bookkeeper.entries as e
left join bookkeeper.accounts as d on d.account = e.debit_account
left join bookkeeper.accounts as c on c.account = e.credit_account
cross join lateral (
    values
    (e.debit_account, case when e.kind in (5, 7) then 'locked' else 'free' end, -e.amount),
    (e.credit_account, case when e.kind = 4 then 'locked' else 'free' end, e.amount)
) as l (account, compartment, amount)
where e.posted_at is not null and e.kind > 1;

create or replace function bookkeeper.movements_of(numbers bigint[], operations jsonb) returns bookkeeper.movement[]
language plpgsql as $$
begin
    -- An account is there, and shut to others, from when the branch that opens it is prepared.
    if operations @? '$[*].k ? (@ <= 1)' then
        insert into bookkeeper.accounts (user_id, currency, opening)
        select o.t, o.c, numbers[o.b]
        from jsonb_to_recordset(operations) as o (b integer, k smallint, t text, c text)
        where o.k <= 1 and numbers[o.b] is not null
        order by o.t collate "C", o.c collate "C", o.b
        on conflict do nothing;
    end if;
    return array(
        select row(
            numbers[o.b], o.b, o.o, o.k,
            case o.f when '' then 0 else d.account end, case o.t when '' then 0 else c.account end,
            d.opening, c.opening, o.a, o.d, o.f, o.t, o.c, o.s
        )::bookkeeper.movement
        from jsonb_to_recordset(operations)
            as o (b integer, o smallint, k smallint, f text, t text, c text, a numeric, d numeric, s text)
        left join bookkeeper.accounts as d on d.user_id = o.f and d.currency = o.c
        left join bookkeeper.accounts as c on c.user_id = o.t and c.currency = o.c
        where numbers[o.b] is not null and o.k < 8
    );
end
$$;

create or replace function bookkeeper.commit_branches(branches bigint[]) returns void
language plpgsql as $$
begin
    with posted as (
        update bookkeeper.entries as e set posted_at = now()
        where e.branch = any (branches)
        returning e.kind, e.debit_account, e.credit_account, e.amount, e.draw
    ), sides as (
        select
            p.debit_account as account,
            case when p.kind in (3, 6, 7) then -p.amount else 0 end as balance,
            case when p.kind in (5, 7) then -p.amount else 0 end as locked,
            case when p.kind in (5, 7) then 0 else p.draw end as reserved,
            case when p.kind in (5, 7) then p.draw else 0 end as releasing,
            p.kind <= 1 as opens
        from posted as p
        union all
        select
            p.credit_account,
            case when p.kind in (2, 6, 7) then p.amount else 0 end,
            case when p.kind = 4 then p.amount else 0 end,
            0, 0, false
        from posted as p
        where p.kind in (2, 4, 6, 7)
    ), changes as (
        select
            s.account, sum(s.balance) as balance, sum(s.locked) as locked,
            sum(s.reserved) as reserved, sum(s.releasing) as releasing, bool_or(s.opens) as opens
        from sides as s
        where s.account <> 0
        group by s.account
    )
    update bookkeeper.accounts as a
    set
        balance = a.balance + c.balance,
        locked = a.locked + c.locked,
        reserved = a.reserved - c.reserved,
        releasing = a.releasing - c.releasing,
        opening = case when c.opens then null else a.opening end
    from changes as c
    where a.account = c.account;
end
$$;

create or replace function bookkeeper.rollback_branches(branches bigint[]) returns void
language plpgsql as $$
begin
    with voided as (
        delete from bookkeeper.entries as e
        where e.branch = any (branches)
        returning e.kind, e.debit_account, e.draw
    ), changes as (
        select
            v.debit_account as account,
            sum(case when v.kind in (5, 7) then 0 else v.draw end) as reserved,
            sum(case when v.kind in (5, 7) then v.draw else 0 end) as releasing
        from voided as v
        where v.draw > 0
        group by v.debit_account
    )
    update bookkeeper.accounts as a
    set reserved = a.reserved - c.reserved, releasing = a.releasing - c.releasing
    from changes as c
    where a.account = c.account;
    delete from bookkeeper.accounts as a where a.opening = any (branches);
end
$$;

-- One pass over the candidates (null: all): reserve what fits, return what does not.
-- A running sum over each account, in order of arrival, keeps two branches of one batch from taking the
-- same money. It counts refused branches too, and so may refuse too much: those are told AGAIN.
create or replace function bookkeeper.reserve_pass(movements bookkeeper.movement[], candidates integer[])
returns table (
    at integer, operation smallint, kind smallint, debited text, credited text, currency text,
    verdict text, needed numeric, free numeric
)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    with wanted as materialized (
        select
            m.*,
            case when m.debit_opening <> m.branch then bookkeeper.still_opening(m.debit_account) else 0 end
                as debit_opens,
            case when m.credit_opening <> m.branch then bookkeeper.still_opening(m.credit_account) else 0 end
                as credit_opens,
            case when m.kind in (5, 7) then d.locked - d.releasing else d.balance - d.locked - d.reserved end as free,
            sum(m.draw) over (partition by m.debit_account, m.kind in (5, 7) order by m.at) as running,
            sum(m.draw) over (partition by m.debit_account, m.kind in (5, 7), m.at) as own
        from unnest(movements) as m
        left join bookkeeper.accounts as d on d.account = m.debit_account and m.draw > 0
        where candidates is null or m.at = any (candidates)
    ), judged as materialized (
        select
            w.*,
            case
                -- It was there when this branch came to open it, and its own opening has been undone since.
                when w.kind <= 1 and (w.credit_account is null or w.credit_opens is null) then 'OPENING'
                when w.debit_account is null or w.debit_opens is null then 'DEBITED_UNKNOWN'
                when w.credit_account is null or w.credit_opens is null then 'CREDITED_UNKNOWN'
                when w.debit_opens <> 0 or w.credit_opens <> 0 then 'OPENING'
                when w.kind = 1 and w.credit_opening is distinct from w.branch then 'EXISTS'
                when w.draw > 0 and w.own > w.free then 'INSUFFICIENT'
                when w.draw > 0 and w.running > w.free then 'AGAIN'
            end as verdict
        from wanted as w
    ), good as materialized (
        select j.* from judged as j where j.at not in (select n.at from judged as n where n.verdict is not null)
    ), entered as (
        insert into bookkeeper.entries
            (branch, kind, operation, debit_account, credit_account, amount, draw, description)
        select
            g.branch, g.kind, g.operation, g.debit_account, g.credit_account, g.amount, g.draw, g.description
        from good as g
    ), drawn as (
        update bookkeeper.accounts as a
        set reserved = a.reserved + r.reserved, releasing = a.releasing + r.releasing
        from (
            select
                g.debit_account as account,
                sum(case when g.kind in (5, 7) then 0 else g.draw end) as reserved,
                sum(case when g.kind in (5, 7) then g.draw else 0 end) as releasing
            from good as g
            where g.draw > 0
            group by g.debit_account
        ) as r
        where a.account = r.account
    )
    select j.at, j.operation, j.kind, j.debited, j.credited, j.currency, j.verdict, j.own, j.free
    from judged as j
    where j.verdict is not null;
end
$$;

-- The words for a "no", as JSON: xa_code, reason, message, field, transient.
create or replace function bookkeeper.refusal(
    operation smallint, kind smallint, debited text, credited text, currency text,
    verdict text, needed numeric, free numeric
) returns text
language sql immutable as $$
    select json_build_object(
        'xa_code', case verdict when 'OPENING' then 107 when 'INSUFFICIENT' then 100 when 'EXISTS' then 100 else -5 end,
        'reason', case verdict
            when 'OPENING' then 'ACCOUNT_OPENING'
            when 'INSUFFICIENT' then 'INSUFFICIENT_FUNDS'
            when 'EXISTS' then 'ACCOUNT_EXISTS'
            else 'ACCOUNT_UNKNOWN'
        end,
        'message', case verdict
            when 'OPENING' then format('an account in %s is being opened by another transaction', currency)
            when 'INSUFFICIENT' then format(
                'user %s has %s %s %s and needs %s', debited, trim_scale(free), currency,
                case when kind in (5, 7) then 'locked' else 'available' end, trim_scale(needed)
            )
            when 'EXISTS' then format('user %s has an account in %s already', credited, currency)
            when 'CREDITED_UNKNOWN' then format('user %s has no account in %s', credited, currency)
            else format('user %s has no account in %s', debited, currency)
        end,
        'field', format(
            'operations[%s].parameters.%s', operation,
            case
                when verdict = 'INSUFFICIENT' then 'amount'
                when kind not in (6, 7) then 'user_id'
                when verdict = 'CREDITED_UNKNOWN' then 'to_user_id'
                else 'from_user_id'
            end
        ),
        'transient', verdict = 'OPENING'
    )::text
$$;

-- What only asks: READ_ONLY, with a balance for each operation, as it stands with this whole batch done. A branch that
-- asks does nothing else.
create function bookkeeper.read_balances(numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    with asked as materialized (
        select
            o.b, o.o, o.k, o.f, o.c, a.balance, a.locked, a.balance - a.locked - a.reserved as available,
            case when a.account is null then 'DEBITED_UNKNOWN' when a.opening is not null then 'OPENING' end as verdict
        from jsonb_to_recordset(operations) as o (b integer, o smallint, k smallint, f text, c text)
        left join bookkeeper.accounts as a on a.user_id = o.f and a.currency = o.c
        where o.k = 8 and numbers[o.b] is not null
    ), unfit as materialized (
        select distinct on (q.b) q.* from asked as q where q.verdict is not null order by q.b, q.o
    )
    select u.b, 3::smallint, bookkeeper.refusal(u.o, u.k, u.f, u.f, u.c, u.verdict, null, null)
    from unfit as u
    union all
    select
        q.b, 2::smallint,
        json_build_object('results', json_agg(
            json_build_object(
                'available', trim_scale(q.available)::text,
                'locked', trim_scale(q.locked)::text,
                'balance', trim_scale(q.balance)::text
            )::text
            order by q.o
        ))::text
    from asked as q
    where q.b not in (select u.b from unfit as u)
    group by q.b;
end
$$;

create or replace function bookkeeper.apply_operations(
    committed bigint[], undone bigint[], numbers bigint[], operations jsonb
)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
declare
    movements constant bookkeeper.movement[] := bookkeeper.movements_of(numbers, operations);
    candidates integer[];
    again integer[];
    refused bigint[] := '{}';
    unfit record;
begin
    perform
    from bookkeeper.accounts as a
    where a.account = any (array(
        select unnest(array[e.debit_account, e.credit_account])
        from bookkeeper.entries as e
        where e.branch = any (committed || undone)
        union all
        select m.debit_account from unnest(movements) as m where m.draw > 0
    ))
    order by a.account
    for no key update;

    if cardinality(committed) > 0 then
        perform bookkeeper.commit_branches(committed);
    end if;
    if cardinality(undone) > 0 then
        perform bookkeeper.rollback_branches(undone);
    end if;

    -- Every pass takes or refuses at least the first of its candidates, so there are never more than branches.
    while cardinality(movements) > 0 loop
        again := '{}';
        for unfit in
            select distinct on (p.at) p.* from bookkeeper.reserve_pass(movements, candidates) as p
            order by p.at, p.verdict = 'AGAIN', p.operation
        loop
            if unfit.verdict = 'AGAIN' then
                again := again || unfit.at;
            else
                refused := refused || numbers[unfit.at];
                at := unfit.at;
                vote := 3;
                answer := bookkeeper.refusal(
                    unfit.operation, unfit.kind, unfit.debited, unfit.credited, unfit.currency,
                    unfit.verdict, unfit.needed, unfit.free
                );
                return next;
            end if;
        end loop;
        exit when again = '{}';
        candidates := again;
    end loop;
    if refused <> '{}' then
        delete from bookkeeper.accounts as a where a.opening = any (refused);
    end if;
    -- What is no movement was not admitted, or only asks.
    if jsonb_array_length(operations) > cardinality(movements) then
        return query select b.at, b.vote, b.answer from bookkeeper.read_balances(numbers, operations) as b;
    end if;
end
$$;
