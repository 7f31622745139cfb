"""Passes that are asked for and passes that come by themselves: whose turn it is, and who owns them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from coordinator.errors import RefusedError, UnavailableError
from coordinator.passes import PassSettings, Scope
from coordinator.recovery_passes import WAITING_MAX
from participant_sdk.branch import BranchPhase
from tests.engine.recovering import CLOCK, LEASE_S, LEFT, World, node, until, world

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def test_one_pass_runs_at_a_time_and_too_many_waiters_are_refused(around: World) -> None:
    """Invariant 12."""
    async with node(around) as assembly:
        around.wires[LEFT].open.clear()
        first = asyncio.create_task(assembly.passes.trigger(Scope.PARTICIPANT, participant=LEFT))
        await around.wires[LEFT].reached.wait()
        current = assembly.passes.status().current
        assert current is not None
        assert current.scope is Scope.PARTICIPANT
        assert current.ended_unix_ms == 0
        waiting = [asyncio.create_task(assembly.passes.trigger(Scope.ORPHANS)) for _ in range(WAITING_MAX)]
        await asyncio.sleep(0)
        with pytest.raises(RefusedError) as refused:
            await assembly.passes.trigger(Scope.ORPHANS)
        assert refused.value.code == "PASS_RUNNING"
        around.wires[LEFT].open.set()
        assert (await first).unreachable == ()
        await asyncio.gather(*waiting)
        assert assembly.passes.status().current is None


async def test_whoever_goes_away_stops_nothing(around: World) -> None:
    """A pass that was asked for goes on, and the status tells how it ended."""
    xid = await around.leave(decided=False)
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        await assembly.life.take_over()
        around.wires[LEFT].open.clear()
        asking = asyncio.create_task(assembly.passes.trigger(Scope.PARTICIPANT, participant=LEFT))
        await around.wires[LEFT].reached.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        around.wires[LEFT].open.set()
        await until(lambda: assembly.passes.status().last is not None)
        last = assembly.passes.status().last
        assert last is not None
        assert (last.scope, last.resolved) == (Scope.PARTICIPANT, 1)
        assert around.phase(LEFT, xid) is BranchPhase.ROLLED_BACK


async def test_whoever_waits_for_a_pass_hears_that_the_coordinator_stopped(around: World) -> None:
    """R19: no answer, however far the pass and those behind it had come."""
    async with node(around) as assembly:
        around.wires[LEFT].open.clear()
        asking = [asyncio.create_task(assembly.passes.trigger(Scope.ORPHANS)) for _ in range(2)]
        await around.wires[LEFT].reached.wait()
    for each in asking:
        with pytest.raises(UnavailableError, match="stopped"):
            await each
    with pytest.raises(UnavailableError, match="stopped"):
        await assembly.passes.trigger(Scope.ORPHANS)


async def test_passes_by_themselves_come_however_many_were_asked_for(around: World) -> None:
    """Operators who ask too often are refused; the coordinator's own pass waits for its turn."""
    async with node(around, PassSettings(interval_s=0.05)) as assembly:
        around.wires[LEFT].open.clear()
        asking = [asyncio.create_task(assembly.passes.trigger(Scope.ORPHANS)) for _ in range(WAITING_MAX + 1)]
        await around.wires[LEFT].reached.wait()
        await until(lambda: assembly.passes.status().next_unix_ms < CLOCK.unix_ms())
        around.wires[LEFT].open.set()
        await asyncio.gather(*asking)
        await until(lambda: assembly.passes.status().next_unix_ms > CLOCK.unix_ms())


async def test_passes_come_by_themselves_unless_they_are_disabled(around: World) -> None:
    async with node(around, PassSettings(interval_s=0.05)) as assembly:
        await until(lambda: assembly.passes.status().last is not None)
        first = assembly.passes.status().last
        await until(lambda: assembly.passes.status().last is not first)
        assert assembly.passes.status().next_unix_ms > 0
    async with node(around) as assembly:
        assert assembly.passes.status().next_unix_ms == 0
        assert (await assembly.passes.trigger(Scope.GLOBAL)).ended_unix_ms > 0
