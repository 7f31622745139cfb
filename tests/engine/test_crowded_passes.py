"""Passes that many ask for, and participants that use up a pass's time: neither stops the coordinator's own work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from coordinator.passes import PassSettings, Scope
from coordinator.recovery_passes import WAITING_MAX
from tests.engine.recovering import BY_HAND, LEFT, World, node, until, world

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def test_however_many_passes_are_asked_for_those_that_come_by_themselves_come(around: World) -> None:
    """Invariant 12: the bound is for those who ask, and what has its turn due is refused nothing."""
    async with node(around, PassSettings(interval_s=0.5)) as assembly:
        await until(lambda: assembly.passes.status().last is not None)
        due_unix_ms = assembly.passes.status().next_unix_ms
        around.wires[LEFT].open.clear()
        async with asyncio.TaskGroup() as asking:
            for _ in range(WAITING_MAX + 1):
                asking.create_task(assembly.passes.trigger(Scope.ORPHANS))
            await until(lambda: assembly.passes.status().next_unix_ms > due_unix_ms)
            around.wires[LEFT].open.set()
        await until(lambda: (last := assembly.passes.status().last) is not None and last.scope is Scope.GLOBAL)


async def test_the_log_is_pruned_though_a_participant_uses_up_the_time_of_every_pass(around: World) -> None:
    """R14."""
    # As long as a real one takes to answer.
    around.log_tap.before = lambda name: asyncio.sleep(0.01) if name == "prune" else None
    async with node(around, replace(BY_HAND, within_s=2.0, retention_s=0.001)) as assembly:
        around.wires[LEFT].open.clear()
        ran = await assembly.passes.trigger(Scope.GLOBAL)
        assert ran.unreachable == (LEFT,)
        assert around.log.tables.pruned_below_unix_ms > 0
        assert ran.ended_unix_ms - ran.began_unix_ms < 5_000
