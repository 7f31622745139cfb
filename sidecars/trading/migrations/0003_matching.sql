-- Matching: what it has reached, the fills, and the outbox in which readers follow both.
--
-- A cancellation is an entry of the book, as an order is: its branch, on Commit, gives it the next number, and it
-- takes effect when matching reaches it. So between an order's entry and its end nobody but matching changes how much
-- of it is filled, and all that ever happens in a book follows from its numbers.

alter table trading.orders
    -- 1 good till cancelled, 2 immediate or cancel, 3 fill or kill.
    add column time_in_force smallint not null default 1 check (time_in_force between 1 and 3),
    add column filled numeric(38, 18) not null default 0 check (filled >= 0),
    -- The place of its cancellation in its book.
    add column cancel_sequence bigint,
    -- Why it was cancelled: 1 as asked, 2 immediate or cancel, 3 fill or kill, 4 it met an order of its own user.
    add column closure smallint check (closure between 1 and 4);

update trading.orders set time_in_force = 2 where type = 2;

alter table trading.orders
    -- 1 PENDING, 2 OPEN, 3 CANCELLED, 4 REJECTED, 5 FILLED.
    drop constraint orders_status_check,
    drop constraint orders_check1,
    add check (status between 1 and 5),
    add check ((sequence is not null) = (status in (2, 3, 5))),
    add check ((status = 5) = (filled = amount)),
    add check (filled <= amount),
    -- A market order takes what is there, and never waits in a book.
    add check (type = 1 or time_in_force <> 1);

create unique index orders_cancelled_in_book on trading.orders (symbol, cancel_sequence)
    where cancel_sequence is not null;
create index orders_open on trading.orders (symbol, side, price, sequence) where status = 2;

-- What has been matched in each book: every entry up to the number. Whoever matches moves it on from the number that
-- his book in memory stands at, in the transaction of the fills: of two who stand at one number, one comes too late.
create table trading.matchers (
    symbol text collate "C" primary key references trading.books,
    matched_sequence bigint not null default 0,
    -- The last place given out in the symbol's outbox.
    position bigint not null default 0
) with (fillfactor = 25);

insert into trading.matchers (symbol) select k.symbol from trading.books as k;

create function trading.add_matcher() returns trigger
language plpgsql as $$
begin
    insert into trading.matchers (symbol) values (new.symbol);
    return null;
end
$$;

create trigger books_have_matchers after insert on trading.books
    for each row execute function trading.add_matcher();

-- Without foreign keys, as the outbox is: one function writes them, in the transaction of what they name, and nobody
-- deletes that. Each fill would pay for four look-ups. The invariants look at all of it.
create table trading.fills (
    symbol text collate "C" not null,
    -- The order that came to the book, by its number there, and which of its fills this is, from 1.
    taker_sequence bigint not null,
    number integer not null,
    -- 1 buy, 2 sell: the side of the order that came.
    taker_side smallint not null check (taker_side in (1, 2)),
    price numeric(38, 18) not null check (price > 0),
    amount numeric(38, 18) not null check (amount > 0),
    trade_id text collate "C" not null unique,
    buy_order_id text collate "C" not null,
    sell_order_id text collate "C" not null,
    buyer_id text collate "C" not null,
    seller_id text collate "C" not null,
    filled_at timestamptz not null default now(),
    primary key (symbol, taker_sequence, number),
    check (buyer_id <> seller_id)
);

create index fills_bought on trading.fills (buy_order_id, taker_sequence, number);
create index fills_sold on trading.fills (sell_order_id, taker_sequence, number);

-- What happened in each book, in its order, without gaps: a fill, or an order that left with something unfilled.
create table trading.outbox (
    symbol text collate "C" not null,
    position bigint not null,
    trade_id text collate "C" unique,
    order_id text collate "C" unique,
    primary key (symbol, position),
    check (num_nonnulls(trade_id, order_id) = 1)
);

-- Record what matching came to between two numbers of a book, or nothing at all: false, where another has matched
-- from the first one in the meantime.
--
-- ``events`` are, in the order of the outbox, fills {t: trade id, s: taker's number, n: which, e: taker's side,
-- p: price, a: amount, b: buy order, c: sell order, u: buyer, v: seller} and orders that left unfilled {i: order id}.
-- ``standings`` tell of every order that changed, once: {i: order id, f: filled, s: status, w: closure or null}.
create function trading.record_matches(
    a_symbol text, matched_from bigint, matched_to bigint, events jsonb, standings jsonb
) returns boolean
language plpgsql as $$
declare
    last_position bigint;
    changed bigint;
begin
    if matched_to <= matched_from then
        raise exception 'a book is matched upward, not from % to %', matched_from, matched_to;
    end if;
    -- The row is held until all is durable: whoever else stands at this number waits here, and comes too late.
    update trading.matchers as m
    set matched_sequence = matched_to, position = m.position + jsonb_array_length(events)
    where m.symbol = a_symbol and m.matched_sequence = matched_from
    returning m.position - jsonb_array_length(events) into last_position;
    if not found then
        return false;
    end if;

    -- In the order in which branches lock them.
    perform
    from trading.orders as o
    where o.order_id in (select c.i from jsonb_to_recordset(standings) as c (i text))
    order by o.order_id
    for no key update;
    update trading.orders as o
    set filled = c.f, status = c.s, closure = c.w
    from jsonb_to_recordset(standings) as c (i text, f numeric, s smallint, w smallint)
    where o.order_id = c.i and o.symbol = a_symbol and o.status = 2 and o.filled <= c.f;
    get diagnostics changed = row_count;
    if changed <> jsonb_array_length(standings) then
        raise exception '% of % orders are not as the book in memory has them',
            jsonb_array_length(standings) - changed, jsonb_array_length(standings);
    end if;

    insert into trading.fills (
        symbol, taker_sequence, number, taker_side, price, amount,
        trade_id, buy_order_id, sell_order_id, buyer_id, seller_id
    )
    select a_symbol, f.s, f.n, f.e, f.p, f.a, f.t, f.b, f.c, f.u, f.v
    from jsonb_to_recordset(events) as f (
        s bigint, n integer, e smallint, p numeric, a numeric, t text, b text, c text, u text, v text
    )
    where f.t is not null;
    insert into trading.outbox (symbol, position, trade_id, order_id)
    select a_symbol, last_position + e.place, e.event ->> 't', e.event ->> 'i'
    from jsonb_array_elements(events) with ordinality as e (event, place);
    return true;
end
$$;
