"""A workflow holds its lock_keys for as long as it runs: granted before its first step, or it fails, nothing done."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from coordinator.assembly import Assembly
from coordinator.locks.claims import Owner
from coordinator.log.workflow_log import StoredWorkflow
from coordinator.protocol.workflow_records import WorkflowPhase
from coordinator.workflows.workflows import WorkflowCall
from participant_sdk.ids import Xid
from tests.engine import recovering
from tests.engine.recovering import World, node, until
from tests.engine.workflows import ended, moved, settings

KEYS = ("account/a",)
OTHER = Owner("somebody else", 1)
NOTHING_LEFT = (0, 0, 0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with recovering.world() as around:
        yield around


async def begun(here: Assembly, kind: str = "moves", *, timeout_s: float = 60.0) -> Xid:
    stored = await here.workflows.begin(WorkflowCall(kind, "{}", timeout_s, lock_keys=KEYS))
    return stored.record.workflow_id


async def holders(here: Assembly) -> dict[str, bool]:
    """Whose claims there are, and whether they are granted."""
    return {view.claim.owner.name: view.is_granted for view in await here.locks.locks.look()}


def token(here: Assembly, key: Xid) -> int:
    """The token that a workflow holds its keys by; 0 while it holds none."""
    run = here.workflows._runs[key]  # pyright: ignore[reportPrivateUsage]  Nobody else asks for a run's grant.
    grant = run._locks._grant  # pyright: ignore[reportPrivateUsage]  As above.
    return 0 if grant is None or grant.lost.done() else grant.token


def refusal(stored: StoredWorkflow) -> tuple[WorkflowPhase, str, int]:
    """Where it ended, why, and how many steps it asked for."""
    assert stored.record.failure is not None
    return stored.record.phase, stored.record.failure.code, len(stored.steps)


async def until_waiting(here: Assembly, key: Xid) -> None:
    async with here.locks.locks.holding(Owner("looks", 2), ["another"]):
        while (await holders(here)).get(str(key)) is not False:
            await until(lambda: here.locks.locks.count(is_granted=False) > 0)


async def test_it_begins_once_its_keys_are_granted_and_lets_them_go_at_its_end(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        grant = await here.locks.locks.acquire(OTHER, KEYS)
        key = await begun(here)
        await until_waiting(here, key)
        assert (await here.workflows.find(key)).steps == ()
        here.locks.locks.release(grant)
        stored = await ended(here, key)
        assert (stored.record.phase, stored.record.lock_keys) == (WorkflowPhase.COMPLETED, KEYS)
        # Nobody waits for it any more.
        await here.locks.locks.acquire(OTHER, KEYS, timeout_s=10.0)
    assert moved(world) == (-10, 10, 1)


async def test_without_its_keys_in_time_it_fails_before_any_step(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        await here.locks.locks.acquire(OTHER, KEYS)
        stored = await ended(here, await begun(here, timeout_s=0.2))
        assert refusal(stored) == (WorkflowPhase.COMPENSATED, "LOCK_TIMEOUT", 0)
        assert stored.record.failure is not None
        assert "somebody else" in stored.record.failure.message
        assert moved(world) == NOTHING_LEFT


async def test_one_that_is_cancelled_waits_for_its_keys_no_more(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        await here.locks.locks.acquire(OTHER, KEYS)
        key = await begun(here)
        await until_waiting(here, key)
        await here.workflows.cancel(key, "not wanted any more")
        assert refusal(await ended(here, key)) == (WorkflowPhase.COMPENSATED, "CANCELLED", 0)
        assert str(key) not in await holders(here)


async def test_one_that_is_stuck_holds_its_keys(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        key = await begun(here, "past_pivot")
        stored = await ended(here, key)
        assert stored.record.stuck is not None
        assert (await holders(here))[str(key)]


async def test_keys_that_are_taken_from_it_are_taken_again(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        key = await begun(here, "past_pivot")
        await ended(here, key)
        before = token(here, key)
        await here.locks.locks.break_key(KEYS[0], "by hand")
        await until(lambda: token(here, key) > before)


async def test_workflows_are_counted_by_type_and_end(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        await ended(here, await begun(here))
        stuck = await begun(here, "past_pivot")
        await ended(here, stuck)
        assert (len(here.workflows), here.workflows.stuck) == (1, 1)
