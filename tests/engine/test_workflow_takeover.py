"""A workflow whose coordinator dies goes on at another, from where the log says that it stands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Final

import pytest

from coordinator.assembly import Assembly
from coordinator.log.workflow_log import StoredWorkflow
from coordinator.passes import Scope
from coordinator.protocol.workflow_records import StepPhase, WorkflowPhase
from coordinator.workflows import Workflow, WorkflowFailed
from coordinator.workflows.workflows import WorkflowSettings
from participant_sdk.ids import RequestId, Xid
from participant_sdk.operations import Parameter
from participant_sdk.xa import Decision
from tests.engine import recovering
from tests.engine.recovering import LEFT, RIGHT, World, node, until
from tests.engine.workflows import (
    Nothing,
    begun,
    credit,
    debit,
    defined,
    ended,
    moved,
    phases,
    read,
    settings,
)

LONG_S: Final = 30.0
# More log statements than any of these workflows makes.
STATEMENTS: Final = ("workflow_save", "append")


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with recovering.world() as around:
        yield around


async def die_at(around: World, name: str, nth: int, kind: str, workflows: WorkflowSettings) -> Xid | None:
    """Begin a workflow, and kill its coordinator before its ``nth`` statement of a kind; None where it ended before."""
    hit = asyncio.Event()
    count = 0

    def before(statement: str) -> asyncio.Future[None] | None:
        nonlocal count
        if statement != name or not key:
            return None
        count += 1
        if count != nth:
            return None
        hit.set()
        # It never comes to it: its tasks are cancelled meanwhile.
        return asyncio.get_running_loop().create_future()

    key: list[Xid] = []
    async with node(around, workflows=workflows, lease_s=LONG_S) as here:
        around.log_tap.before = before
        key.append(await begun(here, kind))
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(hit.wait()), tasks.create_task(here.workflows.wait(key[0]))]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()
        died = hit.is_set()
    around.log_tap.before = lambda _: None
    expire(around)
    return key[0] if died else None


def expire(around: World) -> None:
    """The leases of those who died are over."""
    for row in around.log.tables.incarnations.values():
        row.lease_until_ms = 0


async def resumed(around: World, here: Assembly, key: Xid) -> StoredWorkflow:
    """The workflow's end, at another coordinator."""
    async with asyncio.timeout(20):
        while not here.workflows.is_held(key) and not around.log.tables.workflows[key].record.is_finished:
            await here.passes.trigger(Scope.WORKFLOWS)
        # The participants here do not ask what became of the dead one's branches: a pass tells them.
        await here.passes.trigger(Scope.GLOBAL)
    return await ended(here, key)


@pytest.mark.parametrize("kind", ["moves", "refused"])
@pytest.mark.parametrize("statement", STATEMENTS)
async def test_killed_before_any_statement_it_ends_once(world: World, kind: str, statement: str) -> None:
    """Committed once each, or undone with nothing left behind; whatever was under way."""
    commits, deaths = 0, 0
    for nth in range(1, 20):
        key = await die_at(world, statement, nth, kind, settings())
        if key is not None:
            deaths += 1
        async with node(world, workflows=settings()) as successor:
            if key is not None:
                stored = await resumed(world, successor, key)
                assert stored.record.is_finished
        if kind == "moves":
            commits += 1
        assert moved(world) == (-10 * commits, 10 * commits, commits)
        if key is None:
            break
    assert deaths > 2


async def test_compensations_are_not_run_twice_nor_forward_after_compensating(world: World) -> None:
    """The function is not run again once COMPENSATING is durable."""
    runs = 0

    async def function(wf: Workflow, _: Nothing) -> Parameter:
        nonlocal runs
        runs += 1
        await wf.step("take", [debit(LEFT, "a", "3")], compensate=[credit(LEFT, "a", "3")])
        await wf.step("give", [credit(RIGHT, "a", "3")], compensate=[debit(RIGHT, "a", "3")])
        if runs > 1:
            return "it went forward"
        raise WorkflowFailed("ENOUGH", "that is all")

    workflows = settings(defined(function))
    # The third change saved is the failure; the fourth would say that the first undo begins.
    key = await die_at(world, "workflow_save", 5, "tried", workflows)
    assert key is not None
    assert world.log.tables.workflows[key].record.phase is WorkflowPhase.COMPENSATING
    async with node(world, workflows=workflows) as successor:
        stored = await resumed(world, successor, key)
    assert (stored.record.phase, runs) == (WorkflowPhase.COMPENSATED, 1)
    assert moved(world) == (0, 0, 0)


async def test_a_row_that_is_stale_is_not_believed(world: World) -> None:
    """What a step came to, the decision log says; its row is a copy for people."""
    key = await die_at(world, "workflow_save", 3, "refused", settings())
    assert key is not None
    stored = world.log.tables.workflows[key]
    # As if the last save had said more than was so, and the one before less.
    world.log.tables.workflows[key] = stored._replace(
        steps=tuple(
            recovering.replace(step, phase=StepPhase.REFUSED if step.name == "take" else StepPhase.COMMITTED)
            for step in stored.steps
        )
    )
    async with node(world, workflows=settings()) as successor:
        ended_so = await resumed(world, successor, key)
    assert ended_so.record.phase is WorkflowPhase.COMPENSATED
    assert moved(world) == (0, 0, 0)


async def test_an_outcome_that_is_unknown_is_made_known_before_anything_is_undone(world: World) -> None:
    """A cancelled workflow whose step was under way: its intent is closed, and then it is undone."""

    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.step("take", [debit(LEFT, "a", "3")], compensate=[credit(LEFT, "a", "3")])
        await wf.step("give", [credit(RIGHT, "a", "3")], compensate=[debit(RIGHT, "a", "3")])
        return None

    workflows = settings(defined(function))
    async with node(world, workflows=workflows, lease_s=LONG_S) as here:
        await world.hosts[RIGHT].stop()
        key = await begun(here)
        await until(lambda: any(step.attempts for step in world.log.tables.workflows[key].steps))
        world.log_tap.before = lambda name: asyncio.get_running_loop().create_future() if name == "append" else None
        await here.workflows.cancel(key, "the client left")
    world.log_tap.before = lambda _: None
    expire(world)
    await world.hosts[RIGHT].start()
    async with node(world, workflows=workflows) as successor:
        stored = await resumed(world, successor, key)
    assert stored.record.failure is not None
    assert stored.record.failure.code == "CANCELLED"
    assert phases(stored) == {"take": StepPhase.UNDONE, "give": StepPhase.REFUSED}
    closed = world.log.tables.decisions[world.log.tables.requests[RequestId("default", f"{key}:give")]]
    assert (closed.record.decision, closed.record.reason) == (Decision.ROLLBACK, "INTENT_CLOSED")
    assert moved(world) == (0, 0, 0)


@pytest.mark.parametrize("change", ["other_amount", "other_name", "left_out", "failed_before"])
async def test_changed_code_is_noticed_and_nothing_is_undone(world: World, change: str) -> None:
    def version(number: str, *, is_changed: bool) -> WorkflowSettings:
        async def function(wf: Workflow, _: Nothing) -> Parameter:
            if is_changed and change == "failed_before":
                raise WorkflowFailed("CHANGED", "it gives up at once")
            if not is_changed or change != "left_out":
                name = "grab" if is_changed and change == "other_name" else "take"
                amount = "4" if is_changed and change == "other_amount" else "3"
                await wf.step(name, [debit(LEFT, "a", amount)], compensate=[credit(LEFT, "a", amount)])
            if is_changed and change == "left_out":
                return "without it"
            await wf.step("give", [credit(RIGHT, "a", "3")], compensate=[debit(RIGHT, "a", "3")])
            return "done"

        return settings(defined(function, version=number))

    key = await die_at(world, "workflow_save", 2, "tried", version("1", is_changed=False))
    assert key is not None
    async with node(world, workflows=version("2", is_changed=True)) as successor:
        stuck = await resumed(world, successor, key)
        assert stuck.record.phase is WorkflowPhase.RUNNING
        assert stuck.record.stuck is not None
        assert (stuck.record.stuck.code, stuck.record.stuck.step) == ("NONDETERMINISTIC", "take")
        assert "version 1" in stuck.record.stuck.message
    assert moved(world) == (-3, 0, 0)
    # The old code is put back, and it goes on by itself.
    expire(world)
    async with node(world, workflows=version("1", is_changed=False)) as third:
        stored = await resumed(world, third, key)
    assert (stored.record.phase, stored.record.result) == (WorkflowPhase.COMPLETED, '"done"')
    assert moved(world) == (-3, 3, 0)


async def test_a_workflow_that_nobody_defines_any_more_waits(world: World) -> None:
    key = await die_at(world, "workflow_save", 2, "moves", settings())
    assert key is not None
    async with node(world) as successor:
        stuck = await resumed(world, successor, key)
        assert stuck.record.stuck is not None
        assert stuck.record.stuck.code == "TYPE_UNKNOWN"
        # It can be undone all the same: the compensations are stored.
        await successor.workflows.cancel(key, "it was retired")
        stored = await ended(successor, key)
    assert stored.record.phase is WorkflowPhase.COMPENSATED
    assert moved(world) == (0, 0, 0)


async def test_what_was_read_is_not_read_again(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        seen = await wf.read("look", [read(LEFT, "b")])
        await wf.step("give", [credit(RIGHT, "a", "3")])
        return seen.text(0, "balance")

    workflows = settings(defined(function))
    key = await die_at(world, "workflow_save", 4, "tried", workflows)
    assert key is not None
    async with node(world, workflows=workflows) as successor:
        # The balance is another one by now.
        account = world.stores[LEFT].durable.accounts["b"]
        world.stores[LEFT].durable.accounts["b"] = account._replace(balance=account.balance + 1)
        stored = await resumed(world, successor, key)
    assert stored.record.result == f'"{recovering.OPENING}"'


async def test_a_fenced_coordinator_changes_nothing(world: World) -> None:
    """Its workflow is another's, and it lets go of it (invariant 7)."""
    async with node(world, workflows=settings(), lease_s=LONG_S) as first:
        await world.hosts[RIGHT].stop()
        key = await begun(first, "moves")
        await until(lambda: any(step.attempts for step in world.log.tables.workflows[key].steps))
        row = world.log.tables.incarnations[first.engine.incarnation.number]
        row.fenced_by = row.number + 1
        before = world.log.tables.workflows[key]
        await first.workflows.retry(key, "by hand")
        await until(lambda: not first.workflows.is_held(key))
        assert world.log.tables.workflows[key] == before
        assert not world.log.tables.actions


async def test_stopping_begins_no_step_and_the_next_goes_on(world: World) -> None:
    gate = asyncio.Event()

    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.step("take", [debit(LEFT, "a", "3")], compensate=[credit(LEFT, "a", "3")])
        await gate.wait()
        await wf.step("give", [credit(RIGHT, "a", "3")], compensate=[debit(RIGHT, "a", "3")])
        return None

    workflows = settings(defined(function))
    async with node(world, workflows=workflows) as first:
        key = await begun(first)
        await until(lambda: world.effects(LEFT) == 1)
        first.workflows.stop()
        gate.set()
        await first.commit.confirm()
        assert [step.name for step in world.log.tables.workflows[key].steps] == ["take"]
        await first.life.resign()
    async with node(world, workflows=workflows) as second:
        stored = await resumed(world, second, key)
    assert stored.record.phase is WorkflowPhase.COMPLETED
    assert moved(world) == (Decimal(-3), Decimal(3), 0)


async def test_a_decision_that_an_unfinished_workflow_needs_is_kept(world: World) -> None:
    """R14: however old it is."""
    async with node(world, workflows=settings(), lease_s=LONG_S) as here:
        await world.hosts[RIGHT].stop()
        key = await begun(here, "moves")
        await until(lambda: any(step.attempts for step in world.log.tables.workflows[key].steps))
        log = recovering.MemoryLog(world.log)
        await asyncio.sleep(0.01)
        assert await log.prune(-3600.0, 100, recovering.CLOCK.unix_ms() + 3_600_000) == 0
        await world.hosts[RIGHT].start()
        await here.workflows.retry(key, "it is back")
        await ended(here, key)
    assert moved(world) == (-10, 10, 1)
