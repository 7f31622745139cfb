-- Who follows the outbox, and how far each has come in each book.
create table trading.outbox_cursors (
    reader text collate "C" not null,
    symbol text collate "C" not null references trading.symbols,
    -- The last place acknowledged.
    position bigint not null check (position >= 0),
    primary key (reader, symbol)
) with (fillfactor = 25);

-- What a reader has not acknowledged yet: of each book the next events, ``most`` at most, in its order and without
-- gaps. An event is a FILL, or ORDER_CLOSED: an order that left with something unfilled. It is named for ever by its
-- symbol and position; what it tells never changes.
create function trading.read_outbox(a_reader text, most integer)
returns table (symbol text, "position" bigint, event text, detail json)
language plpgsql stable as $$
#variable_conflict use_column
begin
    return query
    select
        m.symbol, e.position, case when e.trade_id is null then 'ORDER_CLOSED' else 'FILL' end,
        case
            when e.trade_id is null then trading.order_status(e.order_id, 0, 0)::json
            else (select trading.fill_shown(f) from trading.fills as f where f.trade_id = e.trade_id)
        end
    from trading.matchers as m
    left join trading.outbox_cursors as c on c.reader = a_reader and c.symbol = m.symbol
    cross join lateral (
        select o.position, o.trade_id, o.order_id
        from trading.outbox as o
        where o.symbol = m.symbol and o.position > coalesce(c.position, 0)
        order by o.position
        limit most
    ) as e
    order by m.symbol, e.position;
end
$$;

-- Take the events of a book from one place to another as done with, in the transaction of what was made of them.
-- False, and nothing is changed, where the reader does not stand right before the first: another process of it was
-- here, and what this one made of the events must be undone.
create function trading.acknowledge_outbox(a_reader text, a_symbol text, first bigint, last bigint) returns boolean
language plpgsql as $$
declare
    written bigint := (select m.position from trading.matchers as m where m.symbol = a_symbol);
begin
    if first is null or last is null or written is null or first not between 1 and last or last > written then
        raise exception 'the outbox of % has places 1 to %, not % to %', a_symbol, written, first, last;
    end if;
    insert into trading.outbox_cursors (reader, symbol, position) values (a_reader, a_symbol, 0)
    on conflict do nothing;
    update trading.outbox_cursors as c set position = last
    where c.reader = a_reader and c.symbol = a_symbol and c.position = first - 1;
    return found;
end
$$;
