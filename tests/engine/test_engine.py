"""The engine over real links, participants and group commit, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from coordinator import canonical
from coordinator.errors import (
    BusyError,
    InvalidRequestError,
    OutcomeUnknownError,
    RequestInUseError,
    RequestReusedError,
    UnknownTransactionError,
    WrongPhaseError,
)
from coordinator.protocol.phases import Phase
from coordinator.requests import ExecuteCall
from participant_sdk.exact_json import ALL_PARAMETERS_MAX_BYTES
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation
from participant_sdk.xa import Decision
from tests.sdk.small_system import LEFT, OPENING, RIGHT, Running, System, coordinator, system


@pytest.fixture
async def world() -> AsyncGenerator[System]:
    async with system() as around:
        yield around


@pytest.fixture
async def node(world: System) -> AsyncGenerator[Running]:
    async with coordinator(world, max_concurrent_txns=4) as running:
        await connected(running)
        yield running


async def connected(node: Running) -> None:
    """Wait until an empty read at both participants commits: both links are up."""
    while True:
        ended = await node.engine.execute(call(read(LEFT), read(RIGHT)))
        if ended.outcome.decision is Decision.COMMIT:
            return


def call(
    *operations: Operation, request_id: str = "", wait_applied: bool = True, timeout_s: float = 30.0
) -> ExecuteCall:
    digest = canonical.digest(operations) if request_id else b""
    return ExecuteCall(operations, timeout_s, request_id=request_id, digest=digest, wait_applied=wait_applied)


def debit(participant: str, amount: str = "10") -> Operation:
    return Operation(participant, "debit", f'{{"account":"a","amount":"{amount}"}}')


def credit(participant: str, amount: str = "10") -> Operation:
    return Operation(participant, "credit", f'{{"account":"a","amount":"{amount}"}}')


def read(participant: str) -> Operation:
    return Operation(participant, "read", '{"account":"a"}')


async def test_a_transfer_is_applied_at_both_when_its_caller_is_told(world: System, node: Running) -> None:
    ended = await node.engine.execute(call(debit(LEFT), credit(RIGHT)))
    assert ended.outcome.decision is Decision.COMMIT
    assert ended.outcome.applied
    assert world.balance(LEFT, "a") == OPENING - 10
    assert world.balance(RIGHT, "a") == OPENING + 10


async def test_a_business_no_leaves_nothing_behind(world: System, node: Running) -> None:
    ended = await node.engine.execute(call(credit(LEFT), debit(RIGHT, "2000000")))
    assert ended.outcome.decision is Decision.ROLLBACK
    assert not ended.outcome.retry
    assert ended.outcome.message.startswith(RIGHT)
    assert world.balance(LEFT, "a") == OPENING
    assert world.held(LEFT, "a") == 0
    assert world.held(RIGHT, "a") == 0


async def test_unknown_services_and_empty_requests_are_refused_before_anything_begins(node: Running) -> None:
    with pytest.raises(InvalidRequestError) as unknown:
        node.engine.execute(call(debit(LEFT), Operation("nowhere", "debit", "{}")))
    assert unknown.value.field == "operations[1].service"
    with pytest.raises(InvalidRequestError) as empty:
        node.engine.execute(call())
    assert empty.value.field == "operations"
    xid = node.engine.begin(30.0, "default", "")
    with pytest.raises(InvalidRequestError) as enlisted:
        node.engine.enlist(xid, "nowhere", (), 0)
    assert enlisted.value.field == "participant"


async def test_more_than_allowed_in_flight_is_refused_with_a_time_to_come_again(world: System, node: Running) -> None:
    """Invariant 12."""
    world.taps[LEFT].shut()
    futures = [node.engine.execute(call(debit(LEFT, "1"))) for _ in range(4)]
    with pytest.raises(BusyError) as busy:
        node.engine.execute(call(debit(LEFT, "1")))
    assert busy.value.retry_after_s > 0
    world.taps[LEFT].open()
    for ended in await asyncio.gather(*futures):
        assert ended.outcome.decision is Decision.COMMIT
    assert node.engine.in_flight == 0


async def test_the_same_request_sent_twice_at_once_runs_once(world: System, node: Running) -> None:
    """Invariant 11."""
    one = node.engine.execute(call(debit(LEFT), request_id="order-1"))
    two = node.engine.execute(call(debit(LEFT), request_id="order-1"))
    assert (await one).outcome.xid == (await two).outcome.xid
    again = await node.engine.execute(call(debit(LEFT), request_id="order-1"))
    assert again.outcome.replayed
    assert again.outcome.xid == (await one).outcome.xid
    assert again.outcome.applied, "this coordinator knows that the original is applied"
    assert world.balance(LEFT, "a") == OPENING - 10
    assert world.held(LEFT, "a") == 0


async def test_the_same_request_id_with_other_operations_is_an_error(world: System, node: Running) -> None:
    """R3: in flight, and bound."""
    first = node.engine.execute(call(debit(LEFT), request_id="order-1"))
    with pytest.raises(RequestInUseError):
        node.engine.execute(call(debit(LEFT, "11"), request_id="order-1"))
    await first
    with pytest.raises(RequestReusedError):
        await node.engine.execute(call(debit(LEFT, "11"), request_id="order-1"))
    assert world.held(LEFT, "a") == 0


async def test_a_request_id_in_use_is_told_apart_from_one_that_is_bound(world: System, node: Running) -> None:
    running = node.engine.execute(call(debit(LEFT), request_id="order-2"))
    with pytest.raises(RequestInUseError):
        node.engine.begin(30.0, "default", "order-2")
    await running
    xid = node.engine.begin(30.0, "default", "order-3")
    with pytest.raises(RequestInUseError):
        node.engine.execute(call(debit(LEFT), request_id="order-3"))
    node.engine.enlist(xid, LEFT, (debit(LEFT),), 0)
    with pytest.raises(RequestInUseError):
        node.engine.begin(30.0, "default", "order-3")


async def test_a_begin_whose_reply_was_lost_may_be_sent_again(node: Running) -> None:
    xid = node.engine.begin(30.0, "default", "order-1", "call-1")
    assert node.engine.begin(30.0, "default", "order-1", "call-1") == xid
    assert node.engine.in_flight == 1
    for other in ("call-2", ""):
        with pytest.raises(RequestInUseError):
            node.engine.begin(30.0, "default", "order-1", other)
    assert node.engine.begin(30.0, "default", "") != node.engine.begin(30.0, "default", "")


async def test_work_enlisted_piece_by_piece_is_bounded_as_a_whole(node: Running) -> None:
    """Invariant 12."""
    xid = node.engine.begin(30.0, "default", "")
    node.engine.enlist(xid, LEFT, (read(LEFT),) * 100, 0)
    with pytest.raises(InvalidRequestError) as carried:
        node.engine.enlist(xid, LEFT, (read(LEFT),), 0)
    assert carried.value.field == "operations"
    node.engine.enlist(xid, RIGHT, (), 10_000)
    with pytest.raises(InvalidRequestError) as embedded:
        node.engine.enlist(xid, RIGHT, (), 1)
    assert embedded.value.field == "embedded_operations"


async def test_the_parameters_of_all_that_was_enlisted_are_bounded_together(node: Running) -> None:
    """Whoever commits reads them all at once, and everybody waits for that. What is refused adds nothing."""
    xid = node.engine.begin(30.0, "default", "")
    part = Operation(LEFT, "read", read(LEFT).parameters.ljust(ALL_PARAMETERS_MAX_BYTES // 8))
    node.engine.enlist(xid, LEFT, (part,) * 4, 0)
    node.engine.enlist(xid, RIGHT, (part._replace(service=RIGHT),) * 4, 0)
    for participant in (LEFT, RIGHT):
        with pytest.raises(InvalidRequestError) as refused:
            node.engine.enlist(xid, participant, (read(participant),), 0)
        assert (refused.value.field, refused.value.code) == ("operations", "OPERATIONS_TOO_LARGE")
    ended = await node.engine.commit(xid)
    assert ended.outcome.decision is Decision.COMMIT
    assert [branch.participant for branch in ended.outcome.branches] == [LEFT, RIGHT]


async def test_a_caller_that_gives_up_does_not_stop_phase_two(world: System, node: Running) -> None:
    """R16."""
    world.taps[RIGHT].shut()
    future = node.engine.execute(call(debit(LEFT), credit(RIGHT)))
    future.cancel()
    world.taps[RIGHT].open()
    while True:
        finished = await node.finished.get()
        if finished.operation_count == 2 and world.effects(LEFT):
            break
    assert world.balance(RIGHT, "a") == OPENING + 10


async def test_a_participant_that_does_not_answer_is_rolled_back_by_name_in_time(world: System, node: Running) -> None:
    """R2: silence is no."""
    world.taps[RIGHT].shut()
    ended = await node.engine.execute(call(debit(LEFT), credit(RIGHT), timeout_s=0.2))
    assert ended.outcome.decision is Decision.ROLLBACK
    assert ended.outcome.retry
    assert RIGHT in ended.outcome.message
    assert ended.outcome.owed == (RIGHT,)
    world.taps[RIGHT].open()
    while (await node.finished.get()).outcome.xid != ended.outcome.xid:
        pass
    assert world.held(LEFT, "a") == 0
    assert world.balance(RIGHT, "a") == OPENING


async def test_an_interactive_transaction_commits_what_was_enlisted(world: System, node: Running) -> None:
    xid = node.engine.begin(30.0, "default", "basket-1")
    assert node.engine.enlist(xid, LEFT, (debit(LEFT),), 0).branch_number == 1
    assert node.engine.enlist(xid, RIGHT, (credit(RIGHT, "4"),), 0).branch_number == 2
    assert node.engine.enlist(xid, RIGHT, (credit(RIGHT, "6"),), 0).branch_number == 2
    ended = await node.engine.commit(xid)
    assert ended.outcome.decision is Decision.COMMIT
    assert world.balance(RIGHT, "a") == OPENING + 10
    assert (await node.engine.commit(xid)).outcome == ended.outcome, "asked again, the same answer"
    assert (await node.engine.rollback(xid, "too late")).outcome.decision is Decision.COMMIT
    with pytest.raises(WrongPhaseError) as late:
        node.engine.enlist(xid, LEFT, (debit(LEFT),), 0)
    assert late.value.code == "NOT_ACTIVE"
    replay = await node.engine.execute(call(debit(LEFT), credit(RIGHT, "4"), credit(RIGHT, "6"), request_id="basket-1"))
    assert replay.outcome.replayed, "the digest is of the operations, however they came"


async def test_rollback_only_leaves_no_other_end(world: System, node: Running) -> None:
    xid = node.engine.begin(30.0, "default", "")
    node.engine.enlist(xid, LEFT, (debit(LEFT),), 0)
    node.engine.set_rollback_only(xid, "the book is closed")
    ended = await node.engine.commit(xid)
    assert ended.outcome.decision is Decision.ROLLBACK
    assert "the book is closed" in ended.outcome.message
    assert world.held(LEFT, "a") == 0


async def test_a_transaction_that_nobody_ends_expires(node: Running) -> None:
    """R16."""
    xid = node.engine.begin(0.05, "default", "")
    node.engine.enlist(xid, LEFT, (debit(LEFT),), 0)
    while (finished := await node.finished.get()).outcome.xid != xid:
        pass
    assert finished.outcome.reason == "TIMEOUT"
    assert node.engine.in_flight == 0


async def test_an_intent_that_was_closed_never_commits(world: System, node: Running) -> None:
    """R3."""
    closed = await node.engine.close_intent("default", "order-9", "the client gave up")
    assert closed.outcome.decision is Decision.ROLLBACK
    assert not closed.outcome.retry
    late = await node.engine.execute(call(debit(LEFT), request_id="order-9"))
    assert late.outcome.replayed
    assert late.outcome.decision is Decision.ROLLBACK
    assert world.balance(LEFT, "a") == OPENING
    assert world.held(LEFT, "a") == 0


async def test_closing_an_intent_that_committed_tells_so(node: Running) -> None:
    """R3."""
    done = await node.engine.execute(call(debit(LEFT), request_id="order-1"))
    closed = await node.engine.close_intent("default", "order-1", "the client gave up")
    assert closed.outcome.decision is Decision.COMMIT
    assert closed.outcome.xid == done.outcome.xid


async def test_an_unknown_xid_is_an_error(node: Running) -> None:
    stranger = Xid.make(1, 1, 1)
    with pytest.raises(UnknownTransactionError):
        node.engine.commit(stranger)
    with pytest.raises(UnknownTransactionError):
        node.engine.rollback(stranger, "")
    with pytest.raises(UnknownTransactionError):
        node.engine.enlist(stranger, LEFT, (), 0)
    with pytest.raises(UnknownTransactionError):
        node.engine.set_rollback_only(stranger, "")


async def test_a_stopped_engine_tells_nobody_that_a_transaction_was_rolled_back(world: System, node: Running) -> None:
    """R5, R19."""
    world.taps[RIGHT].shut()
    future = node.engine.execute(call(debit(LEFT), credit(RIGHT)))
    node.engine.stop("fenced")
    with pytest.raises(OutcomeUnknownError):
        await future
    with pytest.raises(OutcomeUnknownError):
        node.engine.execute(call(debit(LEFT)))


async def test_told_when_decided_comes_before_applied(world: System, node: Running) -> None:
    """R1: the decision is durable, the effect may still be owed."""
    ended = await node.engine.execute(call(debit(LEFT), wait_applied=False))
    assert ended.outcome.decision is Decision.COMMIT
    assert ended.outcome.phase in (Phase.COMMITTING, Phase.COMMITTED)
    while (await node.finished.get()).outcome.xid != ended.outcome.xid:
        pass
    assert world.balance(LEFT, "a") == OPENING - 10


async def test_the_story_of_a_transaction_is_told_in_order(node: Running) -> None:
    ended = await node.engine.execute(call(debit(LEFT), credit(RIGHT)))
    running = node.engine.find(ended.outcome.xid)
    assert running is not None
    view = running.view()
    told = [event.event for event in view.events]
    assert told[0] == "began"
    assert told.index("voted") < told.index("recorded") < told.index("acknowledged")
    assert view.waiting_for == ""
    assert view.sequence > 0


async def test_what_it_waits_for_is_told_by_name(world: System, node: Running) -> None:
    world.taps[RIGHT].shut()
    future = node.engine.execute(call(debit(LEFT), credit(RIGHT)))
    (view,) = [view for view in node.engine.views() if view.phase is Phase.PREPARING]
    assert RIGHT in view.waiting_for
    world.taps[RIGHT].open()
    await future
