-- What is traded, and the orders.

-- A pair: the base currency is bought and sold, the quote currency pays.
create table trading.symbols (
    symbol text collate "C" primary key,
    -- 1 trading, 2 halted.
    status smallint not null default 1 check (status in (1, 2)),
    -- Prices are multiples of the tick, amounts of the lot.
    tick numeric(38, 18) not null check (tick > 0),
    lot numeric(38, 18) not null check (lot > 0),
    amount_min numeric(38, 18) not null,
    amount_max numeric(38, 18) not null,
    price_max numeric(38, 18) not null,
    -- Price times amount, for limit orders.
    notional_min numeric(38, 18) not null,
    notional_max numeric(38, 18) not null
);

-- The last number given out in each book. Whoever gives one out holds this row until it is durable, so that a
-- matcher which reads upward never finds a lower number later.
create table trading.books (
    symbol text collate "C" primary key references trading.symbols,
    last_sequence bigint not null default 0
) with (fillfactor = 25);

create table trading.orders (
    branch bigint not null,
    -- The operation's place in its branch, from 0.
    operation smallint not null,
    -- 1 buy, 2 sell.
    side smallint not null check (side in (1, 2)),
    -- 1 limit, 2 market.
    type smallint not null check (type in (1, 2)),
    -- 1 PENDING, 2 OPEN, 3 CANCELLED, 4 REJECTED. Matching sees none but OPEN.
    status smallint not null check (status between 1 and 4),
    -- The order's place in its book, from when it enters it.
    sequence bigint,
    -- The branch that will cancel it, while that is in doubt.
    cancelling bigint,
    amount numeric(38, 18) not null check (amount > 0),
    price numeric(38, 18) check (price > 0),
    order_id text collate "C" not null unique,
    user_id text collate "C" not null,
    symbol text collate "C" not null,
    placed_at timestamptz not null default now(),
    primary key (branch, operation),
    check ((type = 1) = (price is not null)),
    check ((sequence is not null) = (status in (2, 3)))
) with (fillfactor = 70);

create unique index orders_in_book on trading.orders (symbol, sequence) where sequence is not null;
create index orders_cancelling on trading.orders (cancelling) where cancelling is not null;

insert into trading.symbols
    (symbol, tick, lot, amount_min, amount_max, price_max, notional_min, notional_max)
values
    ('BTC/USD', 0.01, 0.00000001, 0.00001, 1000, 10000000, 1, 100000000),
    ('BTC/EUR', 0.01, 0.00000001, 0.00001, 1000, 10000000, 1, 100000000),
    ('BTC/USDT', 0.01, 0.00000001, 0.00001, 1000, 10000000, 1, 100000000),
    ('ETH/USD', 0.01, 0.000001, 0.0001, 20000, 1000000, 1, 100000000),
    ('ETH/EUR', 0.01, 0.000001, 0.0001, 20000, 1000000, 1, 100000000),
    ('ETH/BTC', 0.000001, 0.000001, 0.0001, 20000, 100, 0.00001, 2000),
    ('SOL/USD', 0.001, 0.0001, 0.01, 500000, 100000, 1, 50000000),
    ('XRP/USD', 0.0001, 0.01, 1, 50000000, 10000, 1, 50000000),
    ('LTC/USD', 0.01, 0.00001, 0.001, 200000, 100000, 1, 50000000),
    ('USDT/USD', 0.0001, 0.01, 1, 100000000, 10, 1, 100000000);

insert into trading.books (symbol) select s.symbol from trading.symbols as s;
