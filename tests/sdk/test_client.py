"""The client against the real engine and door: its three endings, whatever happens to the messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Any

import pytest

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import (
    InvalidRequestError,
    OutcomeUnknown,
    RequestInUseError,
    RequestReusedError,
    RolledBackError,
    UnavailableError,
    UnknownTransactionError,
    WrongPhaseError,
)
from participant_sdk.client_results import Committed, RolledBack, Wait
from participant_sdk.faults import Way, proxying
from participant_sdk.interactive import Transaction, current_transaction
from participant_sdk.operations import OperationLike
from participant_sdk.xa import Decision, DecisionState
from tests.sdk.small_system import LEFT, OPENING, RIGHT, Running, System, coordinator, system

NOBODY = "127.0.0.1:1"


@pytest.fixture
async def around() -> AsyncGenerator[System]:
    async with system() as made:
        yield made


@pytest.fixture
async def running(around: System) -> AsyncGenerator[Running]:
    async with coordinator(around) as made:
        yield made


@pytest.fixture
async def client(running: Running) -> AsyncGenerator[TransactionClient]:
    async with TransactionClient(running.address, timeout_s=20) as made:
        yield made


def transfer(amount: int | str | Decimal = 1, source: str = "a", target: str = "b") -> list[OperationLike]:
    return [
        (LEFT, "debit", {"account": source, "amount": amount}),
        (RIGHT, "credit", {"account": target, "amount": amount}),
    ]


async def test_a_transfer_commits_and_is_applied_on_both_sides(around: System, client: TransactionClient) -> None:
    ending = await client.execute(transfer(Decimal("2.50")))
    assert isinstance(ending, Committed)
    assert ending.applied
    assert [branch.participant for branch in ending.branches] == [LEFT, RIGHT]
    assert around.balance(LEFT, "a") == OPENING - Decimal("2.5")
    assert around.balance(RIGHT, "b") == OPENING + Decimal("2.5")


async def test_a_business_no_is_an_ending_with_its_reason(around: System, client: TransactionClient) -> None:
    ending = await client.execute(transfer(OPENING + 1))
    assert isinstance(ending, RolledBack)
    assert ending.reason == "INSUFFICIENT_FUNDS"
    assert LEFT in ending.message
    assert around.balance(RIGHT, "b") == OPENING


async def test_what_operations_return_comes_with_the_branch(client: TransactionClient) -> None:
    ending = await client.execute([(RIGHT, "read", {"account": "a"})])
    assert isinstance(ending, Committed)
    assert str(OPENING) in ending.results(RIGHT)[0]


async def test_decided_is_told_before_the_participants_have_applied(
    around: System, running: Running, client: TransactionClient
) -> None:
    """``Wait.DECIDED`` ends with the decision; phase two goes on without the client (R16)."""
    ending = await client.execute(transfer(), wait=Wait.DECIDED)
    assert isinstance(ending, Committed)
    assert (await running.finished.get()).outcome.xid == ending.xid
    assert around.effects(LEFT) == around.effects(RIGHT) == 1


WRONG: list[tuple[list[Any], str]] = [
    ([], "operations"),
    ([(LEFT, "debit", {"account": "a", "amount": 0.1})], "operations[0].parameters.amount"),
    ([(LEFT, "debit", {"account": "a", "amount": Decimal("NaN")})], "operations[0].parameters.amount"),
    ([(LEFT, "debit", {"account": "a", "amount": "-1"})], "operations[0].parameters.amount"),
    ([(LEFT, "debit", {"account": "a", "amount": 1, "at": object()})], "operations[0].parameters.at"),
    ([(LEFT, "debit", '{"account":"a","amount":1e400}')], "operations[0].parameters.amount"),
    ([("nobody", "debit", {})], "operations[0].service"),
    ([(LEFT, "steal", {})], "operations[0].operation"),
]


@pytest.mark.parametrize(("operations", "field"), WRONG)
async def test_a_wrong_request_is_an_error_that_names_the_field(
    client: TransactionClient, operations: list[OperationLike], field: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.execute(operations)
    assert caught.value.field == field


@pytest.mark.parametrize("timeout_s", [0, -1, 1e9, float("nan")])
async def test_a_wrong_time_out_is_an_error(client: TransactionClient, timeout_s: float) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.execute(transfer(), timeout_s=timeout_s)
    assert caught.value.field == "timeout"


async def test_the_same_request_has_the_same_ending(around: System, client: TransactionClient) -> None:
    """Invariant 11: at most one commit, and once bound always the same answer."""
    first = await client.execute(transfer(), request_id="once")
    again = await client.execute(transfer(), request_id="once")
    assert isinstance(first, Committed)
    assert isinstance(again, Committed)
    assert again.replayed
    assert again.xid == first.xid
    assert around.effects(LEFT) == 1


async def test_a_request_id_cannot_be_used_for_other_operations(client: TransactionClient) -> None:
    await client.execute(transfer(), request_id="once")
    with pytest.raises(RequestReusedError):
        await client.execute(transfer(2), request_id="once")


async def test_a_lost_reply_is_settled_at_the_next_coordinator_with_one_effect(
    around: System, running: Running
) -> None:
    """R3, R19: a cut connection says nothing of the outcome; the same request_id does."""
    async with proxying(running.address) as lossy, TransactionClient(lossy.address, timeout_s=20) as client:
        await client.execute(transfer())
        await running.finished.get()
        lossy.hold(Way.DOWN)
        async with asyncio.TaskGroup() as group:
            lost = group.create_task(client.execute(transfer()))
            await running.finished.get()
            lossy.cut()
            lossy.release(Way.DOWN)
        assert isinstance(lost.result(), Committed)
    assert around.effects(LEFT) == around.effects(RIGHT) == 2


async def test_a_coordinator_that_is_gone_is_left_for_the_next(running: Running) -> None:
    async with TransactionClient([NOBODY, running.address, NOBODY], timeout_s=20) as client:
        for _ in range(3):
            assert isinstance(await client.execute(transfer()), Committed)


async def test_busy_is_no_ending_and_is_sent_again(around: System) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo: nothing was begun; all are served in time."""
    async with coordinator(around, max_concurrent_txns=1) as one, TransactionClient(one.address) as client:
        endings = await asyncio.gather(*(client.execute(transfer()) for _ in range(8)))
    assert all(isinstance(ending, Committed) for ending in endings)


async def test_when_time_is_up_the_intent_is_closed_and_stays_so(around: System, running: Running) -> None:
    """R3: a client that gives up binds ROLLBACK, so that nothing of it can commit later."""
    async with TransactionClient(running.address) as client:
        await client.execute(transfer())
        around.taps[RIGHT].shut()
        ending = await client.execute(transfer(), timeout_s=0.3, request_id="late")
        around.taps[RIGHT].open()
        assert isinstance(ending, RolledBack)
        assert not ending.retry
        again = await client.execute(transfer(), request_id="late")
    assert isinstance(again, RolledBack)
    assert around.effects(LEFT) == 1


async def test_where_nobody_answers_the_outcome_is_unknown_with_the_request_to_ask_by() -> None:
    async with TransactionClient(NOBODY) as client:
        with pytest.raises(OutcomeUnknown) as caught:
            await client.execute(transfer(), timeout_s=0.2)
    assert caught.value.request_id


async def test_a_closed_request_cannot_commit_any_more(around: System, client: TransactionClient) -> None:
    closed = await client.close_request("never")
    assert isinstance(closed, RolledBack)
    assert isinstance(await client.execute(transfer(), request_id="never"), RolledBack)
    assert around.effects(LEFT) == 0


async def test_closing_a_committed_request_tells_so(client: TransactionClient) -> None:
    await client.execute(transfer(), request_id="done")
    assert isinstance(await client.close_request("done"), Committed)


async def test_a_transaction_block_commits_at_its_end(around: System, client: TransactionClient) -> None:
    async with client.transaction() as txn:
        assert current_transaction() is txn
        await txn.enlist(transfer(3))
        await txn.enlist(transfer(4, "c", "d"))
    assert current_transaction() is None
    assert isinstance(txn.ending, Committed)
    assert around.balance(LEFT, "a") == OPENING - 3
    assert around.balance(RIGHT, "d") == OPENING + 4


async def test_a_transaction_block_that_fails_rolls_back(around: System, client: TransactionClient) -> None:
    entered: list[Transaction] = []
    with pytest.raises(LookupError):
        async with client.transaction() as txn:
            entered.append(txn)
            await txn.enlist(transfer())
            raise LookupError("the work failed")
    assert isinstance(entered[0].ending, RolledBack)
    assert around.effects(LEFT) == 0


async def test_a_cancelled_block_rolls_back_even_if_cancelled_again(
    running: Running, client: TransactionClient
) -> None:
    async def work(begun: asyncio.Event) -> None:
        async with client.transaction() as txn:
            await txn.enlist(transfer())
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    task = asyncio.ensure_future(work(begun))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    finished = await running.finished.get()
    assert finished.outcome.decision is Decision.ROLLBACK


async def test_a_block_whose_commit_ends_in_rollback_raises_why(client: TransactionClient) -> None:
    with pytest.raises(RolledBackError) as caught:
        async with client.transaction() as txn:
            await txn.enlist(transfer(OPENING + 1))
    assert caught.value.result.reason == "INSUFFICIENT_FUNDS"


async def test_a_block_that_ended_itself_is_left_alone(client: TransactionClient) -> None:
    async with client.transaction() as txn:
        await txn.enlist(transfer())
        assert isinstance(await txn.rollback("on second thoughts"), RolledBack)


async def test_nothing_is_enlisted_after_the_end(client: TransactionClient) -> None:
    """R13: Enlist is refused once the transaction is not ACTIVE."""
    txn = await client.begin()
    await txn.rollback()
    with pytest.raises(WrongPhaseError):
        await txn.enlist(transfer())


async def test_rollback_only_leaves_no_other_end(client: TransactionClient) -> None:
    txn = await client.begin()
    await txn.enlist(transfer())
    await txn.set_rollback_only("a rule was broken")
    assert isinstance(await txn.commit(), RolledBack)


async def test_commit_told_twice_is_the_same_ending(around: System, client: TransactionClient) -> None:
    txn = await client.begin()
    await txn.enlist(transfer())
    first = await txn.commit()
    again = await txn.commit()
    assert first.xid == again.xid
    assert isinstance(again, Committed)
    assert around.effects(LEFT) == 1


async def test_a_lost_reply_to_commit_is_asked_for_again(around: System, running: Running) -> None:
    async with proxying(running.address) as lossy, TransactionClient(lossy.address, timeout_s=20) as client:
        txn = await client.begin()
        await txn.enlist(transfer())
        lossy.hold(Way.DOWN)
        async with asyncio.TaskGroup() as group:
            lost = group.create_task(txn.commit())
            await running.finished.get()
            lossy.cut()
            lossy.release(Way.DOWN)
    assert isinstance(lost.result(), Committed)
    assert around.effects(LEFT) == around.effects(RIGHT) == 1


async def test_a_transaction_is_shown_listed_and_decided(client: TransactionClient) -> None:
    ending = await client.execute(transfer(), request_id="shown")
    state = await client.get_transaction(ending.xid)
    assert state.phase == "COMMITTED"
    assert isinstance(state.ending, Committed)
    assert state.request_id == "shown"
    assert state.events
    page = await client.list_transactions(phase="COMMITTED")
    assert [shown.xid for shown in page.transactions] == [ending.xid]
    assert (await client.get_decision(ending.xid)).state is DecisionState.COMMIT


async def test_watching_tells_of_each_phase_until_the_end(client: TransactionClient) -> None:
    txn = await client.begin()
    await txn.enlist(transfer())
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_phases(client, txn.xid))
        # The watch is known to be there once it has shown the first state, or any later one.
        group.create_task(txn.commit())
    assert watching.result()[-1] == "COMMITTED"


async def _phases(client: TransactionClient, xid: object) -> list[str]:
    return [state.phase async for state in client.watch_transactions(str(xid))]


async def test_an_unknown_transaction_and_an_unknown_phase_are_errors(client: TransactionClient) -> None:
    with pytest.raises(UnknownTransactionError):
        await client.get_transaction("01987654-3210-8000-8000-000000000001")
    with pytest.raises(InvalidRequestError):
        await client.list_transactions(phase="SLEEPING")


async def test_a_question_that_nobody_answers_is_unavailable() -> None:
    async with TransactionClient(NOBODY, timeout_s=0.2) as client:
        with pytest.raises(UnavailableError):
            await client.list_transactions()


async def test_a_lost_reply_to_begin_costs_no_second_transaction(running: Running) -> None:
    """Sent again under its name, it is the one that was begun."""
    async with proxying(running.address) as lossy, TransactionClient(lossy.address, timeout_s=20) as client:
        first = await client.begin()
        lossy.hold(Way.DOWN)
        async with asyncio.TaskGroup() as group:
            lost = group.create_task(client.begin())
            while running.engine.in_flight < 2:  # noqa: ASYNC110 - the engine has no event for us.
                await asyncio.sleep(0)
            lossy.cut()
            lossy.release(Way.DOWN)
        assert lost.result().xid != first.xid
        assert running.engine.in_flight == 2


async def test_a_request_that_another_transaction_works_for_can_be_sent_again_after_it(
    around: System, client: TransactionClient
) -> None:
    """R3: until that one has ended, nothing is begun; afterwards its end is everybody's."""
    txn = await client.begin(request_id="once")
    await txn.enlist(transfer())
    with pytest.raises(RequestInUseError):
        await client.begin(request_id="once", timeout_s=0.3)
    with pytest.raises(RequestInUseError) as caught:
        await client.execute(transfer(), request_id="once", timeout_s=0.3)
    assert caught.value.xid == str(txn.xid)
    assert isinstance(await txn.commit(), Committed)
    again = await client.execute(transfer(), request_id="once")
    assert isinstance(again, Committed)
    assert again.replayed
    assert around.effects(LEFT) == 1
