-- Settlement's part in a batch; see pincex.apply_batch for what must be done, and in which order.
--
-- An operation is {b: branch, o: place in the branch, k: kind (1 settle, 2 reverse, 3 ask of a trade, 4 ask of a
-- position)}, and
--   to settle {i: trade, u: buyer, v: seller, x: base, y: quote, z: the quote's scale, a: amount, p: price,
--   q: quote amount, f: buyer's fee, g: seller's fee, m: buy order or null, n: sell order or null},
--   to reverse {i: trade, s: reason}, to ask {i: trade} or {u: user, y: currency}.

-- Trades that are there, by their ids. New ones and positions are locked later, each in their order as well.
create function settlement.lock_trades(ending bigint[], operations jsonb) returns void
language plpgsql as $$
begin
    perform
    from settlement.trades as t
    where t.trade_id in (
        select e.trade_id from settlement.trades as e where e.branch = any (ending)
        union
        select r.trade_id from settlement.trades as r where r.reversal = any (ending)
        union
        select w.i from jsonb_to_recordset(operations) as w (k smallint, i text) where w.k <= 2
    )
    order by t.trade_id
    for no key update;
end
$$;

create function settlement.commit_branches(branches bigint[]) returns void
language plpgsql as $$
begin
    update settlement.trades as t set status = 2, settled_at = now() where t.branch = any (branches);
    update settlement.trades as t set status = 3, reversed_at = now() where t.reversal = any (branches);
    insert into settlement.positions as p (user_id, currency, net)
    select m.user_id, m.currency, sum(m.amount)
    from (
        select l.user_id, l.currency, l.amount
        from settlement.lines as l where l.branch = any (branches) and not l.is_reversal
        union all
        select l.user_id, l.currency, l.amount
        from settlement.lines as l where l.reversal = any (branches) and l.is_reversal
    ) as m
    group by m.user_id, m.currency
    order by m.user_id, m.currency
    on conflict (user_id, currency) do update set net = p.net + excluded.net;
end
$$;

create function settlement.rollback_branches(branches bigint[]) returns void
language plpgsql as $$
begin
    delete from settlement.trades as t where t.branch = any (branches);
    update settlement.trades as t set reversal = null, reversal_reason = null where t.reversal = any (branches);
end
$$;

-- The words for a "no", as JSON: xa_code, reason, message, field, transient.
create function settlement.refusal(operation smallint, reason text, trade_id text) returns text
language sql immutable as $$
    select json_build_object(
        'xa_code', case
            when reason = 'UNKNOWN_TRADE' then -5
            when reason in ('TRADE_BEING_SETTLED', 'TRADE_BEING_REVERSED') then 107
            else 100
        end,
        'reason', reason,
        'message', case reason
            when 'UNKNOWN_TRADE' then format('there is no trade %s', trade_id)
            when 'TRADE_BEING_SETTLED' then format('trade %s is being settled by another transaction', trade_id)
            when 'TRADE_BEING_REVERSED' then format('trade %s is being reversed by another transaction', trade_id)
            when 'TRADE_SETTLED' then format('trade %s is settled already', trade_id)
            else format('trade %s was reversed', trade_id)
        end,
        'field', format('operations[%s].parameters.trade_id', operation),
        'transient', reason in ('TRADE_BEING_SETTLED', 'TRADE_BEING_REVERSED')
    )::text
$$;

-- A trade is there, and shut to others, from when the branch that settles it is prepared.
create function settlement.enter_trades(numbers bigint[], operations jsonb, candidates integer[]) returns void
language plpgsql as $$
begin
    insert into settlement.trades (
        trade_id, branch, operation, status, quote_scale, amount, price, quote_amount, fee_buyer, fee_seller,
        buyer_id, seller_id, base, quote, buy_order_id, sell_order_id
    )
    select w.i, numbers[w.b], w.o, 1, w.z, w.a, w.p, w.q, w.f, w.g, w.u, w.v, w.x, w.y, w.m, w.n
    from jsonb_to_recordset(operations) as w (
        b integer, o smallint, k smallint, z smallint, i text, u text, v text, x text, y text, m text, n text,
        a numeric, p numeric, q numeric, f numeric, g numeric
    )
    where w.k = 1 and numbers[w.b] is not null and (candidates is null or w.b = any (candidates))
    order by w.i collate "C", w.b
    on conflict do nothing;
end
$$;

-- One pass over the candidates (null: all), whose trades have been entered: mark what is to be reversed, return what
-- does not fit. Of two that want one trade the first has it; where that one does not fit itself, the other is told
-- AGAIN.
create function settlement.reserve_pass(numbers bigint[], operations jsonb, candidates integer[])
returns table (at integer, operation smallint, trade_id text, verdict text)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    with wanted as materialized (
        select w.*, numbers[w.b] as branch, min(w.b) over (partition by w.k, w.i) as first_at
        from jsonb_to_recordset(operations) as w (b integer, o smallint, k smallint, i text, s text)
        where w.k <= 2 and numbers[w.b] is not null and (candidates is null or w.b = any (candidates))
    ), judged as materialized (
        select
            w.*,
            case
                when t.trade_id is null then case w.k when 1 then 'TRADE_BEING_SETTLED' else 'UNKNOWN_TRADE' end
                when w.k = 1 and t.branch = w.branch then null
                when w.k = 1 and t.branch = numbers[w.first_at] then 'TAKEN'
                when t.status = 1 then 'TRADE_BEING_SETTLED'
                when t.status = 3 then 'TRADE_REVERSED'
                when w.k = 1 then 'TRADE_SETTLED'
                when t.reversal is not null then 'TRADE_BEING_REVERSED'
                when w.first_at <> w.b then 'TAKEN'
            end as verdict
        from wanted as w
        left join settlement.trades as t on t.trade_id = w.i
    ), unfit as materialized (
        select distinct j.b from judged as j where j.verdict is not null
    ), marked as (
        update settlement.trades as t set reversal = j.branch, reversal_reason = j.s
        from judged as j
        where j.k = 2 and t.trade_id = j.i and j.b not in (select n.b from unfit as n)
    )
    select
        j.b, j.o, j.i,
        case
            when j.verdict <> 'TAKEN' then j.verdict
            when j.first_at in (select n.b from unfit as n) then 'AGAIN'
            when j.k = 1 then 'TRADE_BEING_SETTLED'
            else 'TRADE_BEING_REVERSED'
        end
    from judged as j
    where j.verdict is not null;
end
$$;

create function settlement.reserve(numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
declare
    candidates integer[];
    again integer[];
    unfit_branches bigint[];
    unfit record;
begin
    -- Every pass takes or refuses at least the first of its candidates, so there are never more than branches.
    loop
        again := '{}';
        unfit_branches := '{}';
        perform settlement.enter_trades(numbers, operations, candidates);
        for unfit in
            select distinct on (p.at) p.* from settlement.reserve_pass(numbers, operations, candidates) as p
            order by p.at, p.verdict = 'AGAIN', p.operation
        loop
            unfit_branches := unfit_branches || numbers[unfit.at];
            if unfit.verdict = 'AGAIN' then
                again := again || unfit.at;
            else
                at := unfit.at;
                vote := 3;
                answer := settlement.refusal(unfit.operation, unfit.verdict, unfit.trade_id);
                return next;
            end if;
        end loop;
        if unfit_branches <> '{}' then
            delete from settlement.trades as t where t.branch = any (unfit_branches);
        end if;
        exit when again = '{}';
        candidates := again;
    end loop;
end
$$;

-- What a trade is now, to whoever asks.
create function settlement.standing(found settlement.trades, named text) returns json
language sql immutable as $$
    select json_strip_nulls(json_build_object(
        'trade_id', named,
        'status', case
            when found.trade_id is null then 'UNKNOWN'
            when found.status = 1 then 'SETTLING'
            when found.status = 3 then 'REVERSED'
            when found.reversal is not null then 'REVERSING'
            else 'SETTLED'
        end,
        'buyer_id', found.buyer_id,
        'seller_id', found.seller_id,
        'symbol', found.base || '/' || found.quote,
        'amount', trim_scale(found.amount)::text,
        'price', trim_scale(found.price)::text,
        'quote_amount', trim_scale(found.quote_amount)::text,
        'fee_buyer', trim_scale(found.fee_buyer)::text,
        'fee_seller', trim_scale(found.fee_seller)::text,
        'buy_order_id', found.buy_order_id,
        'sell_order_id', found.sell_order_id,
        'reason', found.reversal_reason
    ))
$$;

-- What only asks: READ_ONLY, with a result for each operation, as it stands with this whole batch done. A branch that
-- asks does nothing else.
create function settlement.read(numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    select
        w.b, 2::smallint,
        json_build_object('results', json_agg(
            case w.k
                when 3 then settlement.standing(t, w.i)
                else json_build_object('net', trim_scale(coalesce(p.net, 0))::text)
            end::text
            order by w.o
        ))::text
    from jsonb_to_recordset(operations) as w (b integer, o smallint, k smallint, i text, u text, y text)
    left join settlement.trades as t on w.k = 3 and t.trade_id = w.i
    left join settlement.positions as p on w.k = 4 and p.user_id = w.u and p.currency = w.y
    where w.k >= 3 and numbers[w.b] is not null
    group by w.b;
end
$$;

create function settlement.apply_operations(
    committed bigint[], undone bigint[], numbers bigint[], operations jsonb
)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
begin
    perform settlement.lock_trades(committed || undone, operations);
    if cardinality(committed) > 0 then
        perform settlement.commit_branches(committed);
    end if;
    if cardinality(undone) > 0 then
        perform settlement.rollback_branches(undone);
    end if;
    if operations @? '$[*].k ? (@ <= 2)' then
        return query select * from settlement.reserve(numbers, operations);
    end if;
    if operations @? '$[*].k ? (@ >= 3)' then
        return query select * from settlement.read(numbers, operations);
    end if;
end
$$;
