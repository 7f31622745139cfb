-- Trading's part in a batch, with matching beside it. An operation is as in 0002_reservation.sql, and
-- to place or validate also {t: time in force, n: client's order id or null};
-- to read, kind 4, an order {i: order id, f: fills to leave out, m: fills at most};
-- to read, kind 5, a book {y: symbol, m: prices at most on each side}.

-- Which order a user gave an id of its own to. A second one waits for the first one's transaction here, so that
-- both cannot pass; whoever is rolled back gives the id free.
create table trading.client_orders (
    user_id text collate "C" not null,
    client_order_id text collate "C" not null,
    branch bigint not null,
    operation smallint not null,
    primary key (user_id, client_order_id),
    unique (branch, operation)
);

-- As before, and the books into which cancellations enter.
create or replace function trading.lock_keys(ending bigint[], operations jsonb) returns void
language plpgsql as $$
begin
    perform
    from trading.books as k
    where k.symbol in (
        select o.symbol from trading.orders as o where o.branch = any (ending)
        union
        select o.symbol from trading.orders as o where o.cancelling = any (ending)
    )
    order by k.symbol
    for no key update;
    perform
    from trading.orders as o
    where o.order_id in (
        select c.order_id from trading.orders as c where c.cancelling = any (ending)
        union
        select w.i from jsonb_to_recordset(operations) as w (k smallint, i text) where w.k = 2
    )
    order by o.order_id
    for no key update;
end
$$;

-- Entries get their numbers in the order in which their branches were prepared; within a branch cancellations come
-- first, so that what replaces an order never meets it.
create or replace function trading.commit_branches(branches bigint[]) returns void
language plpgsql as $$
declare
    symbols text[];
begin
    with entering as (
        select
            e.*, row_number() over (partition by e.symbol order by e.by_branch, e.is_order, e.branch, e.operation) as place
        from (
            select o.branch, o.operation, o.symbol, o.branch as by_branch, true as is_order
            from trading.orders as o
            where o.branch = any (branches)
            union all
            select o.branch, o.operation, o.symbol, o.cancelling, false
            from trading.orders as o
            where o.cancelling = any (branches) and o.status = 2
        ) as e
    ), numbered as (
        update trading.books as k
        set last_sequence = k.last_sequence + e.entries
        from (select n.symbol, count(*) as entries from entering as n group by n.symbol) as e
        where k.symbol = e.symbol
        returning k.symbol, k.last_sequence - e.entries as before
    ), entered as (
        update trading.orders as o
        set
            status = 2,
            sequence = case when e.is_order then n.before + e.place else o.sequence end,
            cancel_sequence = case when not e.is_order then n.before + e.place end,
            cancelling = null
        from entering as e
        join numbered as n on n.symbol = e.symbol
        where o.branch = e.branch and o.operation = e.operation
    )
    select array_agg(n.symbol) into symbols from numbered as n;
    -- What has been filled or closed since its cancellation was prepared is at its end already.
    update trading.orders as o set cancelling = null where o.cancelling = any (branches);
    perform pg_notify('trading_book', s.symbol) from unnest(symbols) as s (symbol);
end
$$;

create or replace function trading.rollback_branches(branches bigint[]) returns void
language plpgsql as $$
begin
    update trading.orders as o set status = 4 where o.branch = any (branches);
    update trading.orders as o set cancelling = null where o.cancelling = any (branches);
    delete from trading.client_orders as c where c.branch = any (branches);
end
$$;

-- As before, and matching may have come first.
create or replace function trading.cancel_objection(
    found trading.orders, named text, is_repeated boolean, is_first boolean,
    out reason text, out message text
) language plpgsql immutable as $$
begin
    if found.order_id is null then
        reason := 'UNKNOWN_ORDER';
        message := format('there is no order %s', named);
    elsif is_repeated then
        reason := 'ORDER_REPEATED';
        message := format('order %s is to be cancelled twice by one transaction', named);
    elsif found.status = 1 then
        reason := 'ORDER_PENDING';
        message := format('order %s is not in the book yet', named);
    elsif found.status = 3 then
        reason := 'ORDER_CANCELLED';
        message := format('order %s is cancelled already', named);
    elsif found.status = 4 then
        reason := 'ORDER_REJECTED';
        message := format('order %s was rejected', named);
    elsif found.status = 5 then
        reason := 'ORDER_FILLED';
        message := format('order %s is filled', named);
    elsif found.cancelling is not null or found.cancel_sequence is not null or not is_first then
        reason := 'ORDER_BEING_CANCELLED';
        message := format('order %s is being cancelled by another transaction', named);
    end if;
end
$$;

-- Why an order may not have its client's id, or null. ``holder`` is the branch that has it, and ``found`` its order,
-- null before that is placed.
create function trading.client_objection(
    named text, holder bigint, own_branch bigint, found trading.orders,
    out reason text, out message text
) language plpgsql immutable as $$
begin
    if holder = own_branch or found.status in (2, 3, 5) then
        reason := 'DUPLICATE_CLIENT_ORDER_ID';
        message := format('the user has an order %s', named);
    else
        reason := 'CLIENT_ORDER_ID_BUSY';
        message := format('an order %s of the user is placed by another transaction', named);
    end if;
end
$$;

create or replace function trading.refusal(operation smallint, reason text, parameter text, message text)
returns text
language sql immutable as $$
    select json_build_object(
        'xa_code', case
            when reason in ('BAD_PARAMETERS', 'UNKNOWN_SYMBOL', 'UNKNOWN_ORDER') then -5
            when reason in ('ORDER_PENDING', 'ORDER_BEING_CANCELLED', 'CLIENT_ORDER_ID_BUSY') then 107
            else 100
        end,
        'reason', reason,
        'message', format('operations[%s].parameters.%s: %s', operation, parameter, message),
        'field', format('operations[%s].parameters.%s', operation, parameter),
        'transient', reason in ('ORDER_PENDING', 'ORDER_BEING_CANCELLED', 'CLIENT_ORDER_ID_BUSY')
    )::text
$$;

create function trading.fills_of(an_order text) returns setof trading.fills
language sql stable as $$
    select b.* from trading.fills as b where b.buy_order_id = an_order
    union all
    select s.* from trading.fills as s where s.sell_order_id = an_order
$$;

create function trading.fill_shown(fill trading.fills) returns json
language plpgsql immutable as $$
begin
    return json_build_object(
        'trade_id', fill.trade_id,
        'price', trim_scale(fill.price)::text,
        'amount', trim_scale(fill.amount)::text,
        'buy_order_id', fill.buy_order_id,
        'sell_order_id', fill.sell_order_id,
        'buyer_id', fill.buyer_id,
        'seller_id', fill.seller_id,
        'taker_side', case fill.taker_side when 1 then 'buy' else 'sell' end,
        'filled_at', to_char(fill.filled_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
    );
end
$$;

-- An order and its fills, the first ``skipped`` left out, as JSON.
create function trading.order_status(named text, skipped integer, most integer) returns text
language plpgsql stable as $$
begin
    return (
        select json_build_object(
            'order_id', o.order_id,
            'client_order_id', c.client_order_id,
            'user_id', o.user_id,
            'symbol', o.symbol,
            'side', case o.side when 1 then 'buy' else 'sell' end,
            'type', case o.type when 1 then 'limit' else 'market' end,
            'time_in_force', (array['gtc', 'ioc', 'fok'])[o.time_in_force],
            'status', case
                when o.status = 2 and o.filled > 0 then 'PARTIALLY_FILLED'
                else (array['PENDING', 'OPEN', 'CANCELLED', 'REJECTED', 'FILLED'])[o.status]
            end,
            'reason', (array['CANCEL_REQUESTED', 'IMMEDIATE_OR_CANCEL', 'FILL_OR_KILL', 'SELF_TRADE'])[o.closure],
            'is_matched', coalesce(o.sequence <= m.matched_sequence, false),
            'amount', trim_scale(o.amount)::text,
            'price', trim_scale(o.price)::text,
            'filled', trim_scale(o.filled)::text,
            'remaining', trim_scale(o.amount - o.filled)::text,
            'fill_count', (select count(*) from trading.fills_of(o.order_id)),
            'fills', coalesce(
                (
                    select json_agg(trading.fill_shown(f) order by f.taker_sequence, f.number)
                    from (
                        select n.* from trading.fills_of(o.order_id) as n
                        order by n.taker_sequence, n.number offset skipped limit most
                    ) as f
                ),
                '[]'
            )
        )::text
        from trading.orders as o
        join trading.matchers as m on m.symbol = o.symbol
        left join trading.client_orders as c on c.branch = o.branch and c.operation = o.operation
        where o.order_id = named
    );
end
$$;

-- One array for a price level and what waits there, best price first.
create function trading.levels(a_symbol text, a_side smallint, most integer) returns json
language plpgsql stable as $$
begin
    return (
        select coalesce(
            json_agg(
                json_build_object(
                    'price', trim_scale(l.price)::text, 'amount', trim_scale(l.amount)::text, 'orders', l.orders
                )
                order by l.rank
            ),
            '[]'
        )
        from (
            select o.price, o.price * (2 * a_side - 3) as rank, sum(o.amount - o.filled) as amount, count(*) as orders
            from trading.orders as o
            join trading.matchers as m on m.symbol = o.symbol
            where o.symbol = a_symbol and o.side = a_side and o.status = 2 and o.sequence <= m.matched_sequence
            group by o.price
            order by rank
            limit most
        ) as l
    );
end
$$;

create function trading.order_book(a_symbol text, most integer) returns text
language plpgsql stable as $$
begin
    return (
        select json_build_object(
            'symbol', m.symbol,
            'sequence', m.matched_sequence,
            'bids', trading.levels(m.symbol, 1::smallint, most),
            'asks', trading.levels(m.symbol, 2::smallint, most)
        )::text
        from trading.matchers as m
        where m.symbol = a_symbol
    );
end
$$;

create or replace function trading.reserve(numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    with wanted as materialized (
        select w.*, numbers[w.b] as branch
        from jsonb_to_recordset(operations) as w (
            b integer, o smallint, k smallint, i text, u text, y text, e smallint, p smallint, a numeric, r numeric,
            t smallint, n text, f integer, m integer
        )
        where numbers[w.b] is not null
    ), objected as materialized (
        -- Of several objections to one operation the first is told.
        select w.b, w.o, 1 as rank, j.reason, j.parameter, j.message
        from wanted as w
        left join trading.symbols as s on s.symbol = w.y
        cross join lateral trading.objection(s, w.y, w.a, w.r) as j
        where w.k in (1, 3, 5) and j.reason is not null and (w.k <> 5 or s.symbol is null)
        union all
        select w.b, w.o, 2, j.reason, 'client_order_id', j.message
        from wanted as w
        join trading.client_orders as c on c.user_id = w.u and c.client_order_id = w.n
        left join trading.orders as d on d.branch = c.branch and d.operation = c.operation
        cross join lateral trading.client_objection(w.n, c.branch, w.branch, d) as j
        where w.k in (1, 3) and w.n is not null and (c.branch <> w.branch or c.operation <> w.o)
        union all
        select
            w.b, w.o, 3, 'NO_LIQUIDITY', 'type',
            format('nobody else offers to %s in %s', case w.e when 1 then 'sell' else 'buy' end, w.y)
        from wanted as w
        where w.k in (1, 3) and w.p = 2 and not exists (
            select from trading.orders as d
            where
                d.symbol = w.y and d.side = 3 - w.e and d.status = 2
                and d.time_in_force = 1 and d.cancel_sequence is null and d.user_id <> w.u
        )
        union all
        select w.b, w.o, 4, j.reason, 'order_id', j.message
        from (
            select
                c.*,
                row_number() over (partition by c.i, c.b order by c.o) > 1 as is_repeated,
                min(c.b) over (partition by c.i) = c.b as is_first
            from wanted as c
            where c.k = 2
        ) as w
        left join trading.orders as d on d.order_id = w.i
        cross join lateral trading.cancel_objection(d, w.i, w.is_repeated, w.is_first) as j
        where j.reason is not null
        union all
        select w.b, w.o, 5, 'UNKNOWN_ORDER', 'order_id', format('there is no order %s', w.i)
        from wanted as w
        where w.k = 4 and not exists (select from trading.orders as d where d.order_id = w.i)
    ), good as materialized (
        select w.* from wanted as w where w.b not in (select n.b from objected as n)
    ), placed as (
        -- What an older sidecar sends has no time in force: its limit orders wait, 1, its market orders do not, 2.
        insert into trading.orders
            (branch, operation, side, type, time_in_force, status, amount, price, order_id, user_id, symbol)
        select g.branch, g.o, g.e, g.p, coalesce(g.t, g.p), 1, g.a, g.r, g.i, g.u, g.y from good as g where g.k = 1
    ), marked as (
        update trading.orders as d set cancelling = g.branch
        from good as g
        where g.k = 2 and d.order_id = g.i
    ), unclaimed as (
        delete from trading.client_orders as c
        using objected as n
        where c.branch = numbers[n.b]
    )
    select f.b, 3::smallint, trading.refusal(f.o, f.reason, f.parameter, f.message)
    from (select distinct on (n.b) n.* from objected as n order by n.b, n.o, n.rank) as f
    union all
    -- What only asked, and changed nothing, is out of it.
    select g.b, 2::smallint, case when bool_or(g.k > 3) then trading.results_of(array_agg(g.result order by g.o)) end
    from (
        select
            w.b, w.o, w.k,
            case w.k
                when 4 then trading.order_status(w.i, w.f, w.m)
                when 5 then trading.order_book(w.y, w.m)
                else ''
            end as result
        from good as w
    ) as g
    group by g.b
    having bool_and(g.k >= 3);
end
$$;

-- A read-only branch's results, one for each operation, as the branches table keeps them.
create function trading.results_of(results text[]) returns text
language sql immutable as $$
    select json_build_object('results', results)::text
$$;

-- Orders that bring an id of their own claim it first: two of one user's meet here, in whichever batches.
create function trading.claim_client_orders(numbers bigint[], operations jsonb) returns void
language plpgsql as $$
begin
    insert into trading.client_orders (user_id, client_order_id, branch, operation)
    select w.u, w.n, numbers[w.b], w.o
    from jsonb_to_recordset(operations) as w (b integer, o smallint, k smallint, u text, n text)
    where w.k = 1 and w.n is not null and numbers[w.b] is not null
    order by w.u collate "C", w.n collate "C", w.b, w.o
    on conflict do nothing;
end
$$;

create or replace function trading.apply_operations(
    committed bigint[], undone bigint[], numbers bigint[], operations jsonb
) returns table (at integer, vote smallint, answer text)
language plpgsql as $$
begin
    perform trading.lock_keys(committed || undone, operations);
    if cardinality(committed) > 0 then
        perform trading.commit_branches(committed);
    end if;
    if cardinality(undone) > 0 then
        perform trading.rollback_branches(undone);
    end if;
    if operations <> '[]' then
        if jsonb_path_exists(operations, '$[*] ? (@.k == 1).n') then
            perform trading.claim_client_orders(numbers, operations);
        end if;
        return query select * from trading.reserve(numbers, operations);
    end if;
end
$$;
