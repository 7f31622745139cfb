"""A workflow runs its steps once each, in order, and undoes them in reverse when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.errors import InvalidRequestError, RefusedError, RequestReusedError
from coordinator.protocol.workflow_records import StepPhase, WorkflowPhase
from coordinator.requests import ExecuteCall
from coordinator.workflows import StepRefused, Workflow, WorkflowFailed, result_of
from participant_sdk.operations import OperationLike, Parameter, operations_of
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
    fail,
    moved,
    phases,
    read,
    run,
    settings,
)

COMMITTED, REFUSED, UNDONE, SKIPPED = StepPhase.COMMITTED, StepPhase.REFUSED, StepPhase.UNDONE, StepPhase.SKIPPED
NOTHING_LEFT = (0, 0, 0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with recovering.world() as around:
        yield around


def beside_it(operation: OperationLike) -> ExecuteCall:
    """A transaction beside the workflow."""
    return ExecuteCall(operations_of([operation]), 10.0)


async def test_steps_commit_in_order_and_the_result_is_told(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        stored = await run(here, "moves", '{"amount":"7.5"}')
    assert stored.record.phase is WorkflowPhase.COMPLETED
    assert stored.record.result == '{"moved":7.5}'
    assert phases(stored) == {"take": COMMITTED, "give": COMMITTED, "last": COMMITTED}
    assert moved(world) == (-7.5, 7.5, 1)


async def test_an_end_is_told_once_it_is_durable(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        key = await begun(here, "moves")
        held_up: list[asyncio.Future[None]] = []

        def hold_up_the_end(statement: str) -> asyncio.Future[None] | None:
            if statement != "workflow_save" or world.effects(RIGHT) < 2:
                return None
            held_up.append(asyncio.get_running_loop().create_future())
            return held_up[-1]

        world.log_tap.before = hold_up_the_end
        await until(lambda: bool(held_up))
        waiting = asyncio.ensure_future(here.workflows.wait(key))
        await here.commit.confirm()
        assert not (await here.workflows.find(key)).record.is_finished
        assert not waiting.done()
        world.log_tap.before = lambda _: None
        held_up[0].set_result(None)
        assert (await waiting).record.phase is WorkflowPhase.COMPLETED


async def test_a_refusal_undoes_what_was_done_and_nothing_is_left(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        stored = await run(here, "refused")
    assert stored.record.phase is WorkflowPhase.COMPENSATED
    assert stored.record.failure is not None
    assert (stored.record.failure.code, stored.record.failure.step) == ("TOLD_TO_FAIL", "last")
    assert phases(stored) == {"take": UNDONE, "give": UNDONE, "last": REFUSED}
    assert moved(world) == NOTHING_LEFT
    undone = {step.name: step.undo_xid for step in stored.steps if step.undo_xid is not None}
    assert undone["give"] < undone["take"], "the last is undone first"


async def test_a_step_s_request_ids_name_the_workflow_and_the_step(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        stored = await run(here, "refused")
    key = str(stored.record.workflow_id)
    tables = world.log.tables
    bound = {request.name: tables.decisions[xid].record.decision for request, xid in tables.requests.items()}
    assert bound == {
        f"{key}:take": Decision.COMMIT,
        f"{key}:give": Decision.COMMIT,
        f"{key}:last": Decision.ROLLBACK,
        f"{key}:take:undo": Decision.COMMIT,
        f"{key}:give:undo": Decision.COMMIT,
    }


async def test_a_compensation_is_given_what_its_step_returned(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        looked = await wf.step(
            "look",
            [credit(RIGHT, "b", "2"), read(LEFT, "a")],
            compensate=[(LEFT, "debit", {"account": "a", "amount": result_of(1, "balance")})],
        )
        assert looked.amount(1, "balance") == recovering.OPENING
        raise WorkflowFailed("ENOUGH", "it has seen enough")

    async with node(world, workflows=settings(defined(function))) as here:
        stored = await run(here)
    assert stored.record.failure is not None
    assert stored.record.failure.code == "ENOUGH"
    assert phases(stored) == {"look": UNDONE}
    assert moved(world) == (-recovering.OPENING, 0, 2)


@pytest.mark.parametrize(("count", "pad"), [(1, 30_000), (5, 10_000)])
async def test_a_compensation_that_its_results_make_too_large_waits_for_an_operator(
    world: World, count: int, pad: int
) -> None:
    """It is written anew, with escapes where it had letters: past the bound of one operation, then past that of all."""
    undo = f'{{"account":"a","amount":{{"$result":[0,"balance"]}},"note":"{"é" * pad}"}}'

    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.step("look", [read(LEFT, "a"), credit(RIGHT, "b", "2")], compensate=[(LEFT, "debit", undo)] * count)
        raise WorkflowFailed("ENOUGH", "it has seen enough")

    async with node(world, workflows=settings(defined(function))) as here:
        stored = await run(here)
    assert stored.record.stuck is not None
    assert (stored.record.stuck.code, stored.record.stuck.step) == ("UNDO_REFUSED", "look")
    assert "bytes" in stored.record.stuck.message
    assert moved(world) == (0, 0, 2)


async def test_a_function_may_take_a_refusal_and_go_on(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        try:
            await wf.step("first", [fail(LEFT)])
        except StepRefused as refusal:
            return refusal.reason
        return "accepted"

    async with node(world, workflows=settings(defined(function))) as here:
        stored = await run(here)
    assert (stored.record.phase, stored.record.result) == (WorkflowPhase.COMPLETED, '"TOLD_TO_FAIL"')


async def test_any_error_of_the_function_undoes_what_it_did(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.step("take", [debit(LEFT, "a", "3")], compensate=[credit(LEFT, "a", "3")])
        return {"there": "it is"}["missing"]

    async with node(world, workflows=settings(defined(function))) as here:
        stored = await run(here)
    assert stored.record.failure is not None
    assert (stored.record.failure.code, stored.record.failure.message) == ("EXCEPTION", "KeyError: 'missing'")
    assert moved(world) == NOTHING_LEFT


@pytest.mark.parametrize(
    ("name", "operations"),
    [("Take", [debit(LEFT, "a", "1")]), ("x" * 49, [debit(LEFT, "a", "1")]), ("take", [])],
    ids=["capitals", "long", "empty"],
)
async def test_a_step_that_is_none_fails_the_workflow(world: World, name: str, operations: list[object]) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.step(name, operations)  # pyright: ignore[reportArgumentType]  That is what is tried.
        return None

    async with node(world, workflows=settings(defined(function))) as here:
        stored = await run(here)
    assert (stored.record.phase, stored.steps) == (WorkflowPhase.COMPENSATED, ())


async def test_a_name_used_twice_and_steps_side_by_side_fail_the_workflow(world: World) -> None:
    async def twice(wf: Workflow, _: Nothing) -> Parameter:
        for _again in range(2):
            await wf.step("take", [debit(LEFT, "a", "1")], compensate=[credit(LEFT, "a", "1")])
        return None

    async def beside(wf: Workflow, _: Nothing) -> Parameter:
        await asyncio.gather(wf.step("one", [debit(LEFT, "a", "1")]), wf.step("two", [debit(LEFT, "a", "1")]))
        return None

    async with node(world, workflows=settings(defined(twice), defined(beside, kind="beside"))) as here:
        first, second = await run(here), await run(here, "beside")
    assert first.record.failure is not None
    assert "asked for before" in first.record.failure.message
    assert phases(first) == {"take": UNDONE}
    assert second.record.failure is not None
    assert "one step at a time" in second.record.failure.message


async def test_a_time_out_around_a_step_fails_the_workflow_once_the_outcome_is_known(world: World) -> None:
    """Nothing is compensated while a step's outcome is unknown."""
    asked = asyncio.Event()

    async def function(wf: Workflow, _: Nothing) -> Parameter:
        step = asyncio.ensure_future(wf.step("take", [debit(LEFT, "a", "4")], compensate=[credit(LEFT, "a", "4")]))
        await asked.wait()
        step.cancel()
        raise WorkflowFailed("IMPATIENT", "it would not wait")

    async with node(world, workflows=settings(defined(function))) as here:
        world.taps[LEFT].shut()
        key = await begun(here)
        await until(lambda: here.engine.in_flight > 0)
        asked.set()
        await asyncio.sleep(0)
        world.taps[LEFT].open()
        stored = await ended(here, key)
        # A step that nobody could vote on is told as refused at once, and its Rollback is owed.
        await until(lambda: world.stores[LEFT].durable.accounts["a"].held == 0)
    assert stored.record.phase is WorkflowPhase.COMPENSATED
    assert stored.steps[0].phase in (REFUSED, UNDONE)
    assert moved(world) == NOTHING_LEFT


async def test_what_is_read_is_kept_and_told_again(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        seen = await wf.until("rich", [read(LEFT, "b")], lambda told: told.amount(0, "balance") > recovering.OPENING)
        return seen.text(0, "balance")

    async with node(world, workflows=settings(defined(function))) as here:
        key = await begun(here)
        await until(lambda: len(world.log.tables.decisions) > 1)
        assert not (await here.workflows.find(key)).record.is_finished
        await here.engine.execute(beside_it(credit(LEFT, "b", "5")))
        stored = await ended(here, key)
    assert stored.record.result == f'"{recovering.OPENING + 5}"'
    assert stored.steps[0].results


async def test_a_read_that_changes_something_is_stuck(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.read("look", [debit(LEFT, "a", "1")])
        return None

    async with node(world, workflows=settings(defined(function))) as here:
        stored = await run(here)
    assert stored.record.stuck is not None
    assert stored.record.stuck.code == "NOT_READ_ONLY"


async def test_a_refused_read_is_kept_and_raised(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.read("look", [read(LEFT, "nobody")])
        return None

    async with node(world, workflows=settings(defined(function))) as here:
        stored = await run(here)
    assert stored.record.failure is not None
    assert (stored.record.failure.code, phases(stored)) == ("UNKNOWN_ACCOUNT", {"look": REFUSED})


async def test_one_request_runs_one_workflow(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        first = await begun(here, "moves", '{"amount":"2"}', request_id="order-1")
        again = await begun(here, "moves", '{ "amount": "2" }', request_id="order-1")
        with pytest.raises(RequestReusedError):
            await begun(here, "moves", '{"amount":"3"}', request_id="order-1")
        await ended(here, first)
        late = await begun(here, "moves", '{"amount":"2"}', request_id="order-1")
    assert first == again == late
    assert moved(world) == (-2, 2, 1)


@pytest.mark.parametrize(
    ("kind", "parameters", "field", "code"),
    [
        ("nobody_s", "{}", "workflow_type", "WORKFLOW_TYPE_UNKNOWN"),
        ("moves", '{"amount":1}', "parameters.amount", "BAD_PARAMETERS"),
        ("moves", '{"amount":"1","more":true}', "parameters.more", "BAD_PARAMETERS"),
        ("moves", "[]", "parameters", "BAD_PARAMETERS"),
        ("moves", '{"amount":', "parameters", "BAD_PARAMETERS"),
    ],
)
async def test_what_cannot_run_is_refused_before_it_begins(
    world: World, kind: str, parameters: str, field: str, code: str
) -> None:
    async with node(world, workflows=settings()) as here:
        with pytest.raises(InvalidRequestError) as refusal:
            await begun(here, kind, parameters)
    assert (refusal.value.field, refusal.value.code) == (field, code)
    assert "operations[0]" not in str(refusal.value)
    assert not world.log.tables.workflows


async def test_the_time_of_a_workflow_ends_its_waiting_and_undoes_it(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.step("take", [debit(LEFT, "a", "3")], compensate=[credit(LEFT, "a", "3")])
        await wf.until("rich", [read(LEFT, "b")], lambda _: False, every_s=0.05)
        return None

    async with node(world, workflows=settings(defined(function))) as here:
        stored = await run(here, timeout_s=0.5)
    assert stored.record.failure is not None
    assert (stored.record.phase, stored.record.failure.code) == (WorkflowPhase.COMPENSATED, "TIMED_OUT")
    assert moved(world) == NOTHING_LEFT


async def test_past_a_pivot_nothing_is_undone_and_an_operator_is_needed(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        stuck = await run(here, "past_pivot")
        key = stuck.record.workflow_id
        assert stuck.record.stuck is not None
        assert (stuck.record.stuck.code, stuck.record.stuck.step) == ("PAST_PIVOT", "last")
        with pytest.raises(RefusedError) as refusal:
            await here.workflows.cancel(key, "too late")
        assert refusal.value.code == "PAST_PIVOT"
        assert moved(world) == (-10, 10, 0)
        await here.engine.execute(beside_it(credit(RIGHT, "c", "1")))
        await here.workflows.retry(key, "the account was topped up")
        stored = await ended(here, key)
    assert (stored.record.phase, stored.record.result) == (WorkflowPhase.COMPLETED, '"through"')
    assert stored.steps[-1].round == 2
    assert f"{key}:last#2" in {request.name for request in world.log.tables.requests}


async def test_past_a_pivot_an_operator_may_skip_the_step(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        key = (await run(here, "past_pivot")).record.workflow_id
        with pytest.raises(RefusedError) as refusal:
            await here.workflows.skip(key, "give", "the wrong one")
        assert refusal.value.code == "STEP_NOT_WAITED_FOR"
        await here.workflows.skip(key, "last", "paid by hand")
        stored = await ended(here, key)
    assert stored.record.phase is WorkflowPhase.COMPLETED
    assert phases(stored) == {"take": COMMITTED, "give": COMMITTED, "last": SKIPPED}
    action = world.log.tables.actions[-1]
    assert (action.action, action.participant, action.reason) == ("WORKFLOW_SKIP", "last", "paid by hand")


async def test_a_cancelled_workflow_is_undone(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        await world.hosts[RIGHT].stop()
        key = await begun(here, "moves")
        await until(lambda: any(step.attempts for step in world.log.tables.workflows[key].steps))
        await here.workflows.cancel(key, "the client left")
        stored = await ended(here, key)
        with pytest.raises(RefusedError) as refusal:
            await here.workflows.cancel(key, "again")
        await world.hosts[RIGHT].start()
    assert refusal.value.code == "ALREADY_FINISHED"
    assert stored.record.failure is not None
    assert (stored.record.failure.code, stored.record.failure.message) == ("CANCELLED", "the client left")
    assert phases(stored) == {"take": UNDONE, "give": REFUSED}
    assert moved(world) == NOTHING_LEFT


async def test_a_step_that_is_tried_in_vain_can_be_skipped(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        await world.hosts[RIGHT].stop()
        key = await begun(here, "moves")
        await until(lambda: any(step.attempts for step in world.log.tables.workflows[key].steps))
        await here.workflows.skip(key, "give", "given by hand")
        await world.hosts[RIGHT].start()
        stored = await ended(here, key)
    assert stored.record.phase is WorkflowPhase.COMPLETED
    assert phases(stored) == {"take": COMMITTED, "give": SKIPPED, "last": COMMITTED}
    assert moved(world) == (-10, 0, 1)


async def test_a_refused_compensation_waits_for_an_operator(world: World) -> None:
    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.step("take", [debit(LEFT, "a", "3")], compensate=[credit(LEFT, "a", "3")])
        await wf.step("give", [credit(RIGHT, "a", "3")], compensate=[fail(RIGHT)])
        raise WorkflowFailed("ENOUGH", "that is all")

    async with node(world, workflows=settings(defined(function))) as here:
        stuck = await run(here)
        key = stuck.record.workflow_id
        assert stuck.record.stuck is not None
        assert (stuck.record.stuck.code, stuck.record.stuck.step) == ("UNDO_REFUSED", "give")
        assert phases(stuck) == {"take": COMMITTED, "give": StepPhase.UNDOING}
        await here.workflows.retry(key, "once more")
        again = await ended(here, key)
        assert again.record.stuck is not None
        await here.workflows.skip(key, "give", "taken back by hand")
        stored = await ended(here, key)
    assert stored.record.phase is WorkflowPhase.COMPENSATED
    assert phases(stored) == {"take": UNDONE, "give": StepPhase.LEFT}
    assert moved(world) == (0, 3, 0)
