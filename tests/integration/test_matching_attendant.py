"""What matches beside the participant: woken by orders, stopped by nothing but its owner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from participant_sdk.clock import SystemClock
from sidecars.sidecar import Surroundings
from sidecars.trading import matcher
from tests.integration.matchings import SYMBOL, Trading, is_as_it_must_be, matching, order

_LISTENING = "select pid from pg_stat_activity where datname = current_database() and query = 'listen trading_book'"


@pytest.fixture
async def trading(database: str) -> AsyncGenerator[Trading]:
    async with matching(database) as subject:
        attendant = asyncio.create_task(matcher.match_orders(Surroundings("trading", database, SystemClock(), {})))
        await until(lambda: listening(subject))
        yield subject
        attendant.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attendant


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            pass


async def listening(trading: Trading) -> list[int]:
    return [pid for (pid,) in await trading.rows(_LISTENING)]


async def trade(trading: Trading, symbol: str = SYMBOL) -> str:
    _, buy = await trading.place(order("sell", "1", "100", symbol=symbol), order("buy", "1", "100", symbol=symbol))
    return buy


async def is_filled(trading: Trading, order_id: str) -> bool:
    return (await trading.status(order_id))["status"] == "FILLED"


async def test_orders_are_matched_as_they_enter(trading: Trading) -> None:
    for symbol in (SYMBOL, "ETH/USD", SYMBOL):
        buy = await trade(trading, symbol)
        await until(lambda placed=buy: is_filled(trading, placed))
    await is_as_it_must_be(trading.participation)


async def test_a_lost_connection_is_opened_again(trading: Trading) -> None:
    """What entered meanwhile is found."""
    await trade(trading)
    (pid,) = await listening(trading)
    ended = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid = %s"
    await trading.rows(ended, pid)
    buy = await trade(trading, "ETH/USD")
    await until(lambda: is_filled(trading, buy))
    await until(lambda: _listens_as_another(trading, pid))
    buy = await trade(trading)
    await until(lambda: is_filled(trading, buy))


async def _listens_as_another(trading: Trading, pid: int) -> bool:
    return any(each != pid for each in await listening(trading))


async def test_a_book_that_cannot_be_matched_stops_no_other(trading: Trading) -> None:
    """It is tried again until somebody has mended it."""
    await trading.rows("update trading.books set last_sequence = 1 where symbol = %s", SYMBOL)
    stuck = await trade(trading)
    buy = await trade(trading, "ETH/USD")
    await until(lambda: is_filled(trading, buy))
    assert (await trading.status(stuck))["status"] == "OPEN"
    await trading.rows("update trading.orders set sequence = sequence - 1 where symbol = %s", SYMBOL)
    await trading.rows("update trading.books set last_sequence = 2 where symbol = %s", SYMBOL)
    await until(lambda: is_filled(trading, stuck))


async def test_a_symbol_that_comes_later_is_matched(trading: Trading) -> None:
    await trading.rows(
        "insert into trading.symbols select 'BTC/CHF', status, tick, lot, amount_min, amount_max, price_max,"
        " notional_min, notional_max from trading.symbols where symbol = %s",
        SYMBOL,
    )
    await trading.rows("insert into trading.books (symbol) values ('BTC/CHF')")
    buy = await trade(trading, "BTC/CHF")
    await until(lambda: is_filled(trading, buy))


async def test_of_two_attendants_one_stands_by(trading: Trading, database: str) -> None:
    """Both are told of every order; each entry is matched once, and both live on."""
    second = asyncio.create_task(matcher.match_orders(Surroundings("trading", database, SystemClock(), {})))
    await until(lambda: _two_listen(trading))
    for _ in range(20):
        buy = await trade(trading)
        await until(lambda placed=buy: is_filled(trading, placed))
    await is_as_it_must_be(trading.participation)
    assert not second.done()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second


async def _two_listen(trading: Trading) -> bool:
    return len(await listening(trading)) == 2
