"""What every log keeps of workflows, in memory and on PostgreSQL: begun once, saved by the owner alone, taken over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from coordinator.log.decision_log import Checkpoint, OperatorAction
from coordinator.log.postgres import migrate_log
from coordinator.log.workflow_log import CLOCKS_APART_MAX_MS, StoredWorkflow, WorkflowChange, WorkflowFilter
from coordinator.protocol.workflow_records import (
    Failure,
    Intention,
    StepKind,
    StepPhase,
    StepRecord,
    WorkflowPhase,
    WorkflowRecord,
)
from participant_sdk.ids import RequestId, Xid
from tests.conftest import MakeDatabase
from tests.contract.worlds import SHORT_LEASE_S, Coordinator, MemoryWorld, PostgresWorld, World, fenced_by, started

PARAMETERS = '{"amount": "1.50", "note": "\\u00e9 \\"quoted\\""}'
NOW_MS = 1_800_000_000_000


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, databases: MakeDatabase) -> AsyncIterator[World]:
    async with AsyncExitStack() as closing:
        if request.param == "memory":
            yield MemoryWorld()
        else:
            dsn = await databases("log")
            await migrate_log(dsn)
            yield PostgresWorld(dsn, closing)


def record(owner: Coordinator, sequence: int = 1, request: str = "", *, unix_ms: int = NOW_MS) -> WorkflowRecord:
    return WorkflowRecord(
        Xid.make(unix_ms, owner.number, sequence),
        "moves",
        "1",
        PARAMETERS,
        RequestId("default", request) if request else None,
        b"d" * 32,
        owner.number,
        unix_ms + 60_000,
    )


def step(position: int, phase: StepPhase = StepPhase.ASKED) -> StepRecord:
    intention = Intention(f"step-{position}", StepKind.TRANSACTION, b"\x00" * 32, '[["x"],[["x","y","{}"]]]', True)
    return StepRecord(position, intention, phase, message="NUL \x00 and \ud800 are replaced")


async def test_a_workflow_is_begun_once_for_its_request(world: World) -> None:
    log = world.handle()
    owner = await started(log)
    first = record(owner, 1, "order-1")
    begun = await log.workflows.begin(owner.incarnation, first)
    again = await log.workflows.begin(owner.incarnation, first)
    other = await log.workflows.begin(owner.incarnation, record(owner, 2, "order-1"))
    assert begun == again == other == StoredWorkflow(first, ())
    assert await log.workflows.begin(owner.incarnation, record(owner, 3)) is not None
    assert await log.workflows.read(Xid.make(NOW_MS, owner.number, 2)) is None


async def test_what_is_saved_is_read_again(world: World) -> None:
    log = world.handle()
    owner = await started(log)
    begun = record(owner, 1, "order-1")
    await log.workflows.begin(owner.incarnation, begun)
    failed = Failure("INSUFFICIENT_FUNDS", "é, and no more", "take")
    changed = replace(
        begun, phase=WorkflowPhase.COMPENSATING, failure=failed, stuck=failed, cancelled="why", result="1"
    )
    saved = await log.workflows.save(
        owner.incarnation, [WorkflowChange(changed, (step(1), step(2))), WorkflowChange(record(owner, 9), ())]
    )
    assert saved == [begun.workflow_id]
    done = replace(step(2, StepPhase.UNDONE), xid=begun.workflow_id, undo_xid=begun.workflow_id, results="[1]", round=2)
    action = OperatorAction("WORKFLOW_SKIP", "it was paid", participant="take", detail="workflow 1")
    await log.workflows.save(owner.incarnation, [WorkflowChange(changed, (done,), action)])
    stored = await log.workflows.read(begun.workflow_id)
    assert stored is not None
    assert stored.record == changed
    assert [each.phase for each in stored.steps] == [StepPhase.ASKED, StepPhase.UNDONE]
    assert stored.steps[1].intention == done.intention
    assert (stored.steps[1].xid, stored.steps[1].undo_xid, stored.steps[1].results, stored.steps[1].round) == (
        begun.workflow_id,
        begun.workflow_id,
        "[1]",
        2,
    )
    assert await world.actions() == [action]


async def test_only_a_live_owner_changes_anything(world: World) -> None:
    """Invariant 7."""
    log = world.handle()
    first = await started(log, "first", SHORT_LEASE_S)
    begun = record(first)
    await log.workflows.begin(first.incarnation, begun)
    other_log = world.handle()
    second = await started(other_log, "second")
    change = WorkflowChange(replace(begun, cancelled="why"), (step(1),))
    assert await other_log.workflows.save(second.incarnation, [change]) == []
    assert await other_log.workflows.claim(second.incarnation, 10) == []
    await first.append(first.record())
    await fenced_by(other_log, second, [first.number])
    assert await log.workflows.save(first.incarnation, [change]) == []
    assert await log.workflows.begin(first.incarnation, record(first, 7)) is None
    claimed = await other_log.workflows.claim(second.incarnation, 10)
    assert claimed == [StoredWorkflow(replace(begun, incarnation=second.number), ())]
    assert await other_log.workflows.claim(second.incarnation, 10) == []
    assert await log.workflows.claim(first.incarnation, 10) == []
    assert await other_log.workflows.save(second.incarnation, [change]) == [begun.workflow_id]


async def test_finished_ones_are_not_taken_over_and_the_oldest_come_first(world: World) -> None:
    log = world.handle()
    first = await started(log, "first", SHORT_LEASE_S)
    for number in range(1, 5):
        await log.workflows.begin(first.incarnation, record(first, number))
    done = replace(record(first, 2), phase=WorkflowPhase.COMPLETED)
    await log.workflows.save(first.incarnation, [WorkflowChange(done, ())])
    await first.append(first.record())
    second = await started(log, "second")
    await fenced_by(log, second, [first.number])
    claimed = [*await log.workflows.claim(second.incarnation, 2), *await log.workflows.claim(second.incarnation, 2)]
    assert [stored.record.workflow_id.sequence for stored in claimed] == [1, 3, 4]


async def test_nothing_begins_in_hold(world: World) -> None:
    log = world.handle()
    await started(log)
    await log.hold("a restore")
    second = await started(log, "second")
    assert await log.workflows.begin(second.incarnation, record(second)) is None


async def test_they_are_listed_newest_first_by_phase_kind_and_trouble(world: World) -> None:
    log = world.handle()
    owner = await started(log)
    for number in range(1, 5):
        await log.workflows.begin(owner.incarnation, record(owner, number))
    stuck = replace(record(owner, 3), stuck=Failure("PAST_PIVOT", "it can only go forward"))
    over = replace(record(owner, 2), phase=WorkflowPhase.COMPLETED)
    await log.workflows.save(owner.incarnation, [WorkflowChange(stuck, (step(1),)), WorkflowChange(over, ())])

    async def listed(wanted: WorkflowFilter, before: Xid | None = None, limit: int = 10) -> list[int]:
        return [each.record.workflow_id.sequence for each in await log.workflows.list(wanted, before, limit)]

    assert await listed(WorkflowFilter()) == [4, 3, 2, 1]
    assert await listed(WorkflowFilter(), record(owner, 3).workflow_id, 1) == [2]
    assert await listed(WorkflowFilter(WorkflowPhase.COMPLETED)) == [2]
    assert await listed(WorkflowFilter(is_stuck=True)) == [3]
    assert await listed(WorkflowFilter(kind="moves"), limit=2) == [4, 3]
    assert await listed(WorkflowFilter(kind="others")) == []


async def test_the_horizon_stays_below_what_an_unfinished_workflow_may_ask_for(world: World) -> None:
    """R14; and finished workflows go with their decisions."""
    log = world.handle()
    owner = await started(log)
    old_ms = NOW_MS - 1_000_000_000_000
    unfinished = record(owner, 1, unix_ms=old_ms)
    await log.workflows.begin(owner.incarnation, unfinished)
    needed = owner.record("needed", unix_ms=old_ms - CLOCKS_APART_MAX_MS)
    dropped = owner.record("dropped", unix_ms=old_ms - CLOCKS_APART_MAX_MS - 1)
    await owner.append(needed, dropped)
    await log.checkpoint(_finished(owner))
    assert await log.prune(60.0, 100, NOW_MS * 2) == 1
    assert set((await log.read([needed.xid, dropped.xid])).decisions) == {needed.xid}
    over = replace(unfinished, phase=WorkflowPhase.COMPLETED, ended_unix_ms=old_ms)
    await log.workflows.save(owner.incarnation, [WorkflowChange(over, ())])
    assert await log.prune(60.0, 100, NOW_MS * 2) == 1
    assert await log.workflows.read(unfinished.workflow_id) is None


def _finished(owner: Coordinator) -> Checkpoint:
    return Checkpoint(owner.number, owner.sequence)
