"""Ten thousand decided, unfinished transactions taken over at once: everything else goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from coordinator.engine import Engine
from coordinator.log.decision_log import Incarnation
from coordinator.log.memory import MemoryLog
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.timing import Timing
from coordinator.recovery import SLICE_MAX, WINDOW
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation, Prepare
from participant_sdk.xa import Decision
from tests.engine.recovering import CLOCK, LEFT, LOG_ID, RIGHT, World, node, until, world
from tests.engine.test_engine import call, credit, debit

pytestmark = [pytest.mark.timeout(120), pytest.mark.uncounted]

MANY = 10_000


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def leave_many(around: World, count: int = MANY) -> Incarnation:
    """Have both participants prepared, and COMMIT decided, of so many transactions of a dead coordinator."""
    log, incarnation = await around.dead()
    xids = [Xid.make(CLOCK.unix_ms(), incarnation.number, number) for number in range(1, count + 1)]
    for name in (LEFT, RIGHT):
        work = (Operation(name, "credit", '{"account":"b","amount":"1"}'),)
        until_s = CLOCK.monotonic_s() + 60
        await around.resource(name).prepare([Prepare(LOG_ID, xid, work, until_s, (LEFT, RIGHT)) for xid in xids])
    await _append(log, incarnation, xids)
    return incarnation


async def _append(log: MemoryLog, incarnation: Incarnation, xids: list[Xid]) -> None:
    for first in range(0, len(xids), 1_000):
        records = [DecisionRecord(xid, Decision.COMMIT, (LEFT, RIGHT)) for xid in xids[first : first + 1_000]]
        await log.append(incarnation, first, records)


async def largest_jump(engine: Engine) -> int:
    """By how many transactions the engine held more from one turn of the loop to the next, until cancelled."""
    largest, before = 0, 0
    try:
        while True:
            await asyncio.sleep(0)
            largest, before = max(largest, engine.unfinished - before), engine.unfinished
    except asyncio.CancelledError:
        return largest


async def test_ten_thousand_are_finished_and_new_work_does_not_wait_for_them(around: World) -> None:
    """No step of the loop takes more of them on than one slice, and none is flagged only because others were first."""
    dead = await leave_many(around)
    async with node(around, timing=Timing(retry_initial_s=30)) as assembly:
        watching = asyncio.create_task(largest_jump(assembly.engine))
        await until(lambda: assembly.engine.unfinished > 0)
        ended = await assembly.engine.execute(call(debit(LEFT, "1"), credit(RIGHT, "1")))
        assert ended.outcome.decision is Decision.COMMIT
        assert around.effects(LEFT) < MANY, "it did not wait for all of them"
        async with asyncio.timeout(90):
            while assembly.engine.unfinished:  # noqa: ASYNC110 - the engine has no event for its emptiness
                await asyncio.sleep(0.05)
        watching.cancel()
        assert await watching <= SLICE_MAX + 1
        assert around.effects(LEFT) == around.effects(RIGHT) == MANY + 1
        await assembly.life.write_checkpoints()
        assert around.log.unfinished(dead.number) == []
        assert assembly.passes.attention_count == 0


async def test_one_that_does_not_acknowledge_slows_the_others_and_stops_nobody(around: World) -> None:
    """R17."""
    await leave_many(around, 3 * WINDOW)
    around.log_tap.fails = lambda statement: statement == "fence_expired"
    async with node(around, timing=Timing(retry_initial_s=30)) as assembly:
        around.taps[RIGHT].shut()
        around.log_tap.fails = lambda _: False
        async with asyncio.timeout(60):
            while around.effects(LEFT) < 3 * WINDOW:  # noqa: ASYNC110 - a participant has no event for tests
                await asyncio.sleep(0.05)
        assert around.effects(RIGHT) == 0
        assert assembly.passes.status().participants[1].owed == 3 * WINDOW
