"""Trading's invariants: each notices what it is there for."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import psycopg
import pytest

from sidecars.trading.operations import SERVICE
from tests.integration.matchings import Trading, cancel, matching, order

FIRST_FILL = "(select min(f.trade_id) from trading.fills as f)"
BROKEN = {
    "PENDING_WITHOUT_BRANCH": ["delete from pincex.branches where phase = 2"],
    "STATUS_NOT_BRANCH": ["update pincex.branches set phase = 4 where phase = 3"],
    "CANCELLING_WITHOUT_BRANCH": ["update trading.orders set cancelling = 999 where status = 2"],
    "CLIENT_ORDER_ID_WITHOUT_ORDER": ["update trading.client_orders set operation = 7"],
    "BOOK_NUMBER_WRONG": ["update trading.books set last_sequence = last_sequence + 1"],
    "TICK_OR_LOT": ["update trading.symbols set tick = 7"],
    "FILL_WITHOUT_ORDERS": [f"update trading.fills set price = 1 where trade_id = {FIRST_FILL}"],
    "FILLED_NOT_FILLS": [f"update trading.fills set amount = 0.1 where trade_id = {FIRST_FILL}"],
    "WAITING_WRONGLY": ["update trading.orders set time_in_force = 2 where status = 2"],
    "BOOK_CROSSED": ["update trading.orders set price = 500 where status = 2 and side = 1"],
    "CLOSURE_WRONG": ["update trading.orders set closure = 1 where status = 2"],
    "OUTBOX_NOT_FILLS": [
        "delete from trading.outbox where trade_id is not null",
        "update trading.outbox set trade_id = 'another' where position = 1",
    ],
    "OUTBOX_NOT_CLOSURES": [
        "delete from trading.outbox where order_id is not null",
        "insert into trading.outbox values ('BTC/USD', 99, null, 'another')",
    ],
    "OUTBOX_GAP": ["update trading.outbox set position = position + 10"],
    "CURSOR_AHEAD": ["insert into trading.outbox_cursors select 'r', symbol, 99 from trading.matchers"],
}
# By the tables themselves, so that no statement of ours, and no operator's, gets through with it.
REFUSED = [
    "update trading.fills set buyer_id = seller_id",
    "update trading.orders set filled = amount where status = 2",
    "update trading.orders set filled = amount + 1 where status = 3",
    "update trading.orders set status = 5 where status = 2",
    "update trading.orders set type = 2, price = null where status = 2",
    "insert into trading.outbox select symbol, position + 100, trade_id, order_id from trading.outbox",
    "insert into trading.fills select f.* from trading.fills as f",
]


@pytest.fixture
async def connection(database: str) -> AsyncGenerator[psycopg.AsyncConnection]:
    """A book in which everything has happened that can, and a transaction that nobody will see."""
    async with matching(database) as trading:
        await _trade(trading)
        async with await psycopg.AsyncConnection.connect(database) as opened:
            yield opened
            await opened.rollback()


async def _trade(trading: Trading) -> None:
    await trading.place(order("sell", "1", "100", client_order_id="mine"), order("sell", "2", "102"))
    (buy,) = await trading.place(order("buy", "2", "101"))
    await trading.place(order("buy", "1", "99"), order("buy", "9", "99"))
    await trading.participation.do(cancel(buy))
    await trading.match()
    # Two trades, so that the outbox is no single row.
    await trading.place(order("sell", "0.5", "99"))
    await trading.match()
    await trading.participation.prepare(trading.participation.branch(order("buy", "1", "98")))


async def violations(connection: psycopg.AsyncConnection) -> set[str]:
    rows = await (await connection.execute(SERVICE.invariants.read_bytes())).fetchall()
    return {name for name, _ in rows}


@pytest.mark.parametrize(
    ("name", "statement"), [(name, statement) for name, statements in BROKEN.items() for statement in statements]
)
async def test_what_is_broken_is_told(connection: psycopg.AsyncConnection, name: str, statement: str) -> None:
    assert await violations(connection) == set()
    assert (await connection.execute(statement.encode())).rowcount > 0
    assert name in await violations(connection)


@pytest.mark.parametrize("statement", REFUSED)
async def test_what_the_tables_refuse(connection: psycopg.AsyncConnection, statement: str) -> None:
    with pytest.raises(psycopg.IntegrityError):
        await connection.execute(statement.encode())


def test_every_invariant_is_tried() -> None:
    text = SERVICE.invariants.read_text(encoding="utf-8")
    assert {name for name in BROKEN if f"'{name}'" in text} == set(BROKEN)
    assert text.count("union all\n-- ") + text.count("union all\nselect") == len(BROKEN) - 1
