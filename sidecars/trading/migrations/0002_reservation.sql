-- Trading's part in a batch; see pincex.apply_batch for what must be done, and in which order.
--
-- An operation is {b: branch, o: place in the branch, k: kind (1 place, 2 cancel, 3 validate)}, and
-- to place or validate {i: order id, u: user, y: symbol, e: side, p: type, a: amount, r: price or null},
-- to cancel {i: order id}.

-- Books first, by symbol: orders that enter them get numbers. Then the orders that are, or will be, changed.
create function trading.lock_keys(ending bigint[], operations jsonb) returns void
language plpgsql as $$
begin
    perform
    from trading.books as k
    where k.symbol in (select o.symbol from trading.orders as o where o.branch = any (ending))
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

-- Orders enter their books in the order in which their branches were prepared.
create function trading.commit_branches(branches bigint[]) returns void
language plpgsql as $$
begin
    with entering as (
        select
            o.branch, o.operation, o.symbol,
            row_number() over (partition by o.symbol order by o.branch, o.operation) as place
        from trading.orders as o
        where o.branch = any (branches)
    ), numbered as (
        update trading.books as k
        set last_sequence = k.last_sequence + e.orders
        from (select n.symbol, count(*) as orders from entering as n group by n.symbol) as e
        where k.symbol = e.symbol
        returning k.symbol, k.last_sequence - e.orders as before
    )
    update trading.orders as o
    set status = 2, sequence = n.before + e.place
    from entering as e
    join numbered as n on n.symbol = e.symbol
    where o.branch = e.branch and o.operation = e.operation;
    update trading.orders as o set status = 3, cancelling = null where o.cancelling = any (branches);
end
$$;

create function trading.rollback_branches(branches bigint[]) returns void
language plpgsql as $$
begin
    update trading.orders as o set status = 4 where o.branch = any (branches);
    update trading.orders as o set cancelling = null where o.cancelling = any (branches);
end
$$;

-- What is wrong with an order as its symbol stands, or null: reason, parameter, and what to say.
create function trading.objection(
    symbol trading.symbols, named text, amount numeric, price numeric,
    out reason text, out parameter text, out message text
) language plpgsql immutable as $$
begin
    if symbol.symbol is null then
        reason := 'UNKNOWN_SYMBOL';
        parameter := 'symbol';
        message := format('%s is not traded here', named);
    elsif mod(amount, symbol.lot) <> 0 then
        reason := 'BAD_PARAMETERS';
        parameter := 'amount';
        message := format('must be a multiple of %s, the lot of %s', trim_scale(symbol.lot), named);
    elsif mod(price, symbol.tick) <> 0 then
        reason := 'BAD_PARAMETERS';
        parameter := 'price';
        message := format('must be a multiple of %s, the tick of %s', trim_scale(symbol.tick), named);
    elsif symbol.status <> 1 then
        reason := 'SYMBOL_HALTED';
        parameter := 'symbol';
        message := format('%s is halted', named);
    elsif amount not between symbol.amount_min and symbol.amount_max then
        reason := 'LIMIT_EXCEEDED';
        parameter := 'amount';
        message := format(
            '%s is not from %s to %s, the limits of %s',
            trim_scale(amount), trim_scale(symbol.amount_min), trim_scale(symbol.amount_max), named
        );
    elsif price > symbol.price_max then
        reason := 'LIMIT_EXCEEDED';
        parameter := 'price';
        message := format('%s is above %s, the limit of %s', trim_scale(price), trim_scale(symbol.price_max), named);
    elsif amount * price not between symbol.notional_min and symbol.notional_max then
        reason := 'LIMIT_EXCEEDED';
        parameter := 'amount';
        message := format(
            'the order is worth %s, not from %s to %s, the limits of %s',
            trim_scale(amount * price), trim_scale(symbol.notional_min), trim_scale(symbol.notional_max), named
        );
    end if;
end
$$;

-- Why an order cannot be cancelled by this branch, or null. It may have said so before, and another branch of
-- the batch may come first. What only tells that another branch is in doubt is transient.
create function trading.cancel_objection(
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
    elsif found.cancelling is not null or not is_first then
        reason := 'ORDER_BEING_CANCELLED';
        message := format('order %s is being cancelled by another transaction', named);
    end if;
end
$$;

create function trading.refusal(operation smallint, reason text, parameter text, message text) returns text
language sql immutable as $$
    select json_build_object(
        'xa_code', case
            when reason in ('BAD_PARAMETERS', 'UNKNOWN_SYMBOL', 'UNKNOWN_ORDER') then -5
            when reason in ('ORDER_PENDING', 'ORDER_BEING_CANCELLED') then 107
            else 100
        end,
        'reason', reason,
        'message', format('operations[%s].parameters.%s: %s', operation, parameter, message),
        'field', format('operations[%s].parameters.%s', operation, parameter),
        'transient', reason in ('ORDER_PENDING', 'ORDER_BEING_CANCELLED')
    )::text
$$;

create function trading.reserve(numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    with wanted as materialized (
        select w.*, numbers[w.b] as branch
        from jsonb_to_recordset(operations) as w (
            b integer, o smallint, k smallint, i text, u text, y text, e smallint, p smallint, a numeric, r numeric
        )
        where numbers[w.b] is not null
    ), objected as materialized (
        select w.b, w.o, j.reason, j.parameter, j.message
        from wanted as w
        left join trading.symbols as s on s.symbol = w.y
        cross join lateral trading.objection(s, w.y, w.a, w.r) as j
        where w.k in (1, 3) and j.reason is not null
        union all
        select w.b, w.o, j.reason, 'order_id', j.message
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
    ), good as materialized (
        select w.* from wanted as w where w.b not in (select n.b from objected as n)
    ), placed as (
        insert into trading.orders
            (branch, operation, side, type, status, amount, price, order_id, user_id, symbol)
        select g.branch, g.o, g.e, g.p, 1, g.a, g.r, g.i, g.u, g.y from good as g where g.k = 1
    ), marked as (
        update trading.orders as d set cancelling = g.branch
        from good as g
        where g.k = 2 and d.order_id = g.i
    )
    select f.b, 3::smallint, trading.refusal(f.o, f.reason, f.parameter, f.message)
    from (select distinct on (n.b) n.* from objected as n order by n.b, n.o) as f
    union all
    -- What only asked, and changed nothing, is out of it.
    select g.b, 2::smallint, null from good as g group by g.b having bool_and(g.k = 3);
end
$$;

create function trading.apply_operations(committed bigint[], undone bigint[], numbers bigint[], operations jsonb)
returns table (at integer, vote smallint, answer text)
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
        return query select * from trading.reserve(numbers, operations);
    end if;
end
$$;
