"""Matching in the sidecar's own process, killed and stopped in the middle of it: every fill is there once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import psutil
import psycopg
import pytest

from tests.integration.matchings import SYMBOL, Trading, cancel, is_as_it_must_be, matching, order

WAITING = (
    "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    " and query like '%%record_matches%%'"
)


@pytest.fixture
async def trading(database: str) -> AsyncGenerator[Trading]:
    async with matching(database) as subject:
        yield subject


@asynccontextmanager
async def sidecar(dsn: str) -> AsyncGenerator[Process]:
    """Trading's sidecar as it ships, ready; it does not outlive the block."""
    arguments = ("trading", "--dsn", dsn, "--listen", "127.0.0.1:0", "--log-level", "error")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "sidecars.main", *arguments, stderr=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(90):
        # What is waited for happens in other processes.
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def is_matched(trading: Trading) -> bool:
    progress = await trading.store.progress(SYMBOL)
    return progress.matched == progress.last


async def place_at_random(trading: Trading, chance: random.Random, count: int) -> None:
    """Orders of four users that mostly meet, and cancellations among them."""
    for _ in range(count // 100):
        placed = await trading.place(*[_some_order(chance) for _ in range(90)])
        cancelling = [trading.participation.branch(cancel(each)) for each in chance.sample(placed, 10)]
        votes = await trading.participation.prepare(*cancelling)
        await trading.participation.commit(
            *[branch for branch, vote in zip(cancelling, votes, strict=True) if vote.is_yes]
        )


def _some_order(chance: random.Random) -> tuple[str, str]:
    return order(
        chance.choice(("buy", "sell")),
        str(chance.randint(1, 5)),
        str(chance.randint(95, 105)),
        user_id=chance.choice("abcd"),
        time_in_force=chance.choice(("gtc", "gtc", "gtc", "ioc", "fok")),
    )


@pytest.mark.timeout(240)
async def test_a_sidecar_killed_while_it_matches_leaves_every_fill_once(trading: Trading, database: str) -> None:
    """kill -9 with entries still to match, again and again, while more come."""
    chance, killed_within = random.Random(9), 0
    await place_at_random(trading, chance, 3_000)
    for _ in range(6):
        before = await trading.store.progress(SYMBOL)

        async def has_moved(matched: int = before.matched) -> bool:
            return (await trading.store.progress(SYMBOL)).matched > matched

        async with sidecar(database) as process:
            await until(has_moved)
            process.kill()
            await process.wait()
        killed_within += not await is_matched(trading)
        await place_at_random(trading, chance, 500)
    assert killed_within >= 3, "the sidecar was always done before it was killed"
    async with sidecar(database):
        await until(lambda: is_matched(trading))
    assert len(await trading.trades()) > 1_000
    await is_as_it_must_be(trading.participation)


@asynccontextmanager
async def holding_matcher(dsn: str) -> AsyncGenerator[None]:
    """Keep everybody from recording, in the middle of it."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute("select from trading.matchers where symbol = %s for update", [SYMBOL])
        yield


async def in_flight(trading: Trading, count: int) -> bool:
    return await trading.rows(WAITING) == [(count,)]


@pytest.mark.timeout(180)
async def test_what_was_on_its_way_when_the_sidecar_was_killed_is_recorded_once(
    trading: Trading, database: str
) -> None:
    """The server goes on with a statement whose sender is dead; the next process finds it done, or comes too late."""
    await place_at_random(trading, random.Random(1), 300)
    async with AsyncExitStack() as stack:
        async with holding_matcher(database):
            first = await stack.enter_async_context(sidecar(database))
            await stack.enter_async_context(sidecar(database))
            # Neither waits for long before it tries again, so they wait together now and then.
            await until(lambda: in_flight(trading, 2))
            first.kill()
            await first.wait()
        await until(lambda: is_matched(trading))
    await is_as_it_must_be(trading.participation)


@pytest.mark.timeout(180)
async def test_a_sidecar_stopped_while_it_matches_and_woken_later_matches_nothing_twice(
    trading: Trading, database: str
) -> None:
    """SIGSTOP with its record on its way: another takes over, and the first one, woken, must read its book anew."""
    chance = random.Random(2)
    await place_at_random(trading, chance, 300)
    async with sidecar(database) as stopped, sidecar(database) as other:
        async with holding_matcher(database):
            await until(lambda: in_flight(trading, 2))
            stopped.send_signal(signal.SIGSTOP)
        await until(lambda: _is_stopped(stopped))
        for _ in range(3):
            await place_at_random(trading, chance, 300)
            await until(lambda: is_matched(trading))
        matched = await trading.trades()
        stopped.send_signal(signal.SIGCONT)
        await place_at_random(trading, chance, 900)
        await until(lambda: is_matched(trading))
        assert (await trading.trades())[: len(matched)] == matched
        # The one that was stopped can match still, if need be.
        other.kill()
        await other.wait()
        await place_at_random(trading, chance, 300)
        await until(lambda: is_matched(trading))
    await is_as_it_must_be(trading.participation)


async def _is_stopped(process: Process) -> bool:
    return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED


@pytest.mark.timeout(180)
async def test_a_sidecar_is_ready_and_clean_with_its_matching(trading: Trading, database: str) -> None:
    """It ends when it is told to, and ``--check`` finds nothing."""
    async with sidecar(database) as process:
        await place_at_random(trading, random.Random(3), 200)
        await until(lambda: is_matched(trading))
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        assert process.stderr is not None
        assert _errors(await process.stderr.read()) == []
    check = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecars.main", "trading", "--dsn", database, "--check", stderr=PIPE
    )
    _, told = await check.communicate()
    assert (check.returncode, json.loads(told.splitlines()[-1])["broken"]) == (0, 0)


def _errors(log: bytes) -> Sequence[str]:
    return [line for line in log.decode().splitlines() if json.loads(line)["level"] == "error"]
