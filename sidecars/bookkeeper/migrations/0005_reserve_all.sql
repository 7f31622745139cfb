-- Nearly always everything fits. Then each account's sum says so, and nobody needs to know who came first.

-- As before, but that the world outside is not looked for among the accounts.
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
        left join bookkeeper.accounts as d on d.user_id = nullif(o.f, '') and d.currency = o.c
        left join bookkeeper.accounts as c on c.user_id = nullif(o.t, '') and c.currency = o.c
        where numbers[o.b] is not null and o.k < 8
    );
end
$$;

-- Reserve all movements and return true, if all of them go between accounts that are open, and each account has enough
-- for all that is drawn from it: then whatever reserve_pass adds up in order of arrival would fit too. Else do nothing.
create function bookkeeper.reserve_all(movements bookkeeper.movement[], out is_done boolean)
language plpgsql as $$
begin
    with drawn as materialized (
        select
            m.debit_account as account,
            sum(case when m.kind in (5, 7) then 0 else m.draw end) as reserved,
            sum(case when m.kind in (5, 7) then m.draw else 0 end) as releasing,
            bool_or(
                m.kind <= 1 or m.debit_account is null or m.credit_account is null
                or m.debit_opening is not null or m.credit_opening is not null
            ) as is_special
        from unnest(movements) as m
        group by m.debit_account
    ), unfit as materialized (
        select from drawn as d
        left join bookkeeper.accounts as a on a.account = d.account
        where d.is_special or d.reserved > a.balance - a.locked - a.reserved or d.releasing > a.locked - a.releasing
        limit 1
    ), entered as (
        insert into bookkeeper.entries
            (branch, kind, operation, debit_account, credit_account, amount, draw, description)
        select m.branch, m.kind, m.operation, m.debit_account, m.credit_account, m.amount, m.draw, m.description
        from unnest(movements) as m
        where not exists (select from unfit)
    ), taken as (
        update bookkeeper.accounts as a
        set reserved = a.reserved + d.reserved, releasing = a.releasing + d.releasing
        from drawn as d
        where a.account = d.account and d.reserved + d.releasing > 0 and not exists (select from unfit)
    )
    select not exists (select from unfit) into is_done;
end
$$;

-- As before, but that all is reserved at once where that can be.
create or replace function bookkeeper.apply_operations(
    committed bigint[], undone bigint[], numbers bigint[], operations jsonb
)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
declare
    movements bookkeeper.movement[] := '{}';
    candidates integer[];
    again integer[];
    refused bigint[] := '{}';
    unfit record;
begin
    if cardinality(numbers) > 0 then
        movements := bookkeeper.movements_of(numbers, operations);
    end if;
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

    if cardinality(movements) > 0 and not bookkeeper.reserve_all(movements) then
        -- Every pass takes or refuses at least the first of its candidates, so there are never more than branches.
        loop
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
    end if;
    -- What is no movement was not admitted, or only asks.
    if jsonb_array_length(operations) > cardinality(movements) then
        return query select b.at, b.vote, b.answer from bookkeeper.read_balances(numbers, operations) as b;
    end if;
end
$$;
