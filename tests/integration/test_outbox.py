"""The outbox of trading: readers follow it in order, and lose or repeat nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import psycopg
import pytest

from tests.integration.matchings import SYMBOL, Trading, cancel, matching, order, told

READ = "select symbol, position, event, detail from trading.read_outbox(%s, %s)"
ACKNOWLEDGE = "select trading.acknowledge_outbox(%s, %s, %s, %s)"
TAKEN = "create table taken (reader text, symbol text, position bigint, primary key (reader, symbol, position))"


@pytest.fixture
async def trading(database: str) -> AsyncGenerator[Trading]:
    async with matching(database) as subject:
        yield subject


async def trade(trading: Trading, symbol: str = SYMBOL, times: int = 1) -> None:
    for _ in range(times):
        await trading.place(order("sell", "1", "100", symbol=symbol), order("buy", "1", "100", symbol=symbol))
    await trading.match(symbol)


async def acknowledge(trading: Trading, first: int, last: int, symbol: str = SYMBOL, reader: str = "r") -> bool:
    ((was_taken,),) = await trading.rows(ACKNOWLEDGE, reader, symbol, first, last)
    return was_taken


async def test_a_reader_is_told_of_everything_in_order_until_it_acknowledges(trading: Trading) -> None:
    """Fills, and orders that left with something unfilled; the second of two readers is not concerned."""
    sell, buy = await trading.place(order("sell", "1", "100"), order("buy", "2", "100"))
    await trading.participation.do(cancel(buy))
    await trading.match()
    rows = await trading.rows(READ, "r", 10)
    assert [row[:3] for row in rows] == [(SYMBOL, 1, "FILL"), (SYMBOL, 2, "ORDER_CLOSED")]
    fill, closed = rows[0][3], rows[1][3]
    assert (fill["trade_id"], fill["sell_order_id"], fill["buy_order_id"]) == ("BTC/USD-2-1", sell, buy)
    assert (closed["order_id"], closed["status"], closed["reason"], closed["remaining"]) == (
        buy,
        "CANCELLED",
        "CANCEL_REQUESTED",
        "1",
    )
    assert await trading.rows(READ, "r", 10) == rows
    assert await acknowledge(trading, 1, 1)
    assert await trading.rows(READ, "r", 10) == rows[1:]
    assert await acknowledge(trading, 2, 2)
    assert await trading.rows(READ, "r", 10) == []
    assert await trading.rows(READ, "other", 10) == rows


async def test_every_book_has_its_own_places(trading: Trading) -> None:
    """So many of each, so that a busy one keeps no other waiting."""
    await trade(trading, times=5)
    await trade(trading, "ETH/USD", times=2)
    rows = await trading.rows(READ, "r", 3)
    assert [row[:2] for row in rows] == [(SYMBOL, 1), (SYMBOL, 2), (SYMBOL, 3), ("ETH/USD", 1), ("ETH/USD", 2)]
    assert await acknowledge(trading, 1, 2, "ETH/USD")
    assert [row[:2] for row in await trading.rows(READ, "r", 3)] == [(SYMBOL, 1), (SYMBOL, 2), (SYMBOL, 3)]


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 4), (-1, -1), (None, 1)])
async def test_only_what_is_there_can_be_acknowledged(trading: Trading, first: int, last: int) -> None:
    await trade(trading, times=3)
    with pytest.raises(psycopg.errors.RaiseException, match="has places 1 to 3"):
        await acknowledge(trading, first, last)
    with pytest.raises(psycopg.errors.RaiseException):
        await acknowledge(trading, 1, 1, "BTC/XYZ")


async def test_one_that_comes_too_late_or_too_early_takes_nothing(trading: Trading) -> None:
    """Of two processes of one reader one takes an event; a gap is never acknowledged away."""
    await trade(trading, times=3)
    assert await acknowledge(trading, 1, 2)
    assert not await acknowledge(trading, 1, 2)
    assert not await acknowledge(trading, 1, 3)
    assert await acknowledge(trading, 3, 3)


async def test_readers_that_race_take_each_event_once(trading: Trading, database: str) -> None:
    """What is made of the events and their acknowledgement are one transaction: exactly once, in order."""
    await trading.rows(TAKEN)

    async def follow() -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            while len(taken) < 40:
                await _take_some(connection)
                taken[:] = await trading.rows("select position from taken order by position")

    taken: list[tuple[Any, ...]] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(follow())
        await trade(trading, times=40)
    assert await trading.rows("select count(*), min(position), max(position) from taken") == [(40, 1, 40)]
    assert len(await told(trading.participation)) == 40


async def _take_some(connection: psycopg.AsyncConnection) -> None:
    """What a service does that keeps its own tables beside the cursor: all of it, or nothing."""
    async with connection.transaction() as transaction:
        rows = await (await connection.execute(READ, ("r", 7))).fetchall()
        if not rows:
            return
        places = [position for _, position, _, _ in rows]
        cursor = await connection.execute(ACKNOWLEDGE, ("r", SYMBOL, places[0], places[-1]))
        if await cursor.fetchone() != (True,):
            raise psycopg.Rollback(transaction)
        for place in places:
            await connection.execute("insert into taken values ('r', %s, %s)", (SYMBOL, place))


async def test_a_reader_past_the_end_is_a_violation(trading: Trading) -> None:
    await trade(trading)
    await acknowledge(trading, 1, 1)
    await trading.rows("update trading.outbox_cursors set position = 2")
    assert [each.partition(":")[0] for each in await trading.participation.violations()] == ["CURSOR_AHEAD"]
    await trading.rows("update trading.outbox_cursors set position = 1")
