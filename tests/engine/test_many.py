"""Ten thousand decided, unfinished transactions taken over at once: everything else goes on meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from coordinator.log.decision_log import Incarnation
from coordinator.log.memory import MemoryLog
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.timing import Timing
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation, Prepare
from participant_sdk.xa import Decision
from tests.engine.recovering import CLOCK, LEFT, LOG_ID, RIGHT, World, node, until, world
from tests.engine.test_engine import call, credit, debit

pytestmark = pytest.mark.timeout(120)

MANY = 10_000
# What the loop may be held up by one step, the participants' in this very process among them.
STEP_MAX_S = 0.25


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def leave_many(around: World) -> Incarnation:
    """Have both participants prepared, and COMMIT decided, of so many transactions of a dead coordinator."""
    log, incarnation = await around.dead()
    xids = [Xid.make(CLOCK.unix_ms(), incarnation.number, number) for number in range(1, MANY + 1)]
    for name in (LEFT, RIGHT):
        work = (Operation(name, "credit", '{"account":"b","amount":"1"}'),)
        until_s = CLOCK.monotonic_s() + 60
        await around.resource(name).prepare([Prepare(LOG_ID, xid, work, until_s, (LEFT, RIGHT)) for xid in xids])
    await _append(log, incarnation, xids)
    return incarnation


async def _append(log: MemoryLog, incarnation: Incarnation, xids: list[Xid]) -> None:
    for first in range(0, MANY, 1_000):
        records = [DecisionRecord(xid, Decision.COMMIT, (LEFT, RIGHT)) for xid in xids[first : first + 1_000]]
        await log.append(incarnation, first, records)


async def longest_step_s() -> float:
    """The most of the processor's time that the loop spent between two of its turns, until cancelled.

    Not by the clock on the wall: other work on the machine must not count.
    """
    longest_s, last_s = 0.0, time.thread_time()
    try:
        while True:
            await asyncio.sleep(0)
            now_s = time.thread_time()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
    except asyncio.CancelledError:
        return longest_s


async def test_ten_thousand_are_finished_and_new_work_does_not_wait_for_them(around: World) -> None:
    dead = await leave_many(around)
    async with node(around, timing=Timing()) as assembly:
        await until(lambda: assembly.engine.unfinished > 0)
        watching = asyncio.create_task(longest_step_s())
        began_s = CLOCK.monotonic_s()
        ended = await assembly.engine.execute(call(debit(LEFT, "1"), credit(RIGHT, "1")))
        first_commit_s = CLOCK.monotonic_s() - began_s
        assert ended.outcome.decision is Decision.COMMIT
        await until(lambda: not assembly.engine.unfinished)
        finished_s = CLOCK.monotonic_s() - began_s
        watching.cancel()
        step_s = await watching
        print(f"first commit {first_commit_s:.3f} s, all {finished_s:.3f} s, longest step {step_s:.3f} s")
        assert around.effects(LEFT) == around.effects(RIGHT) == MANY + 1
        assert step_s < STEP_MAX_S
        await assembly.life.write_checkpoints()
        assert around.log.unfinished(dead.number) == []
        assert assembly.passes.attention_count == 0
