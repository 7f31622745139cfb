"""The suite against the real engine and door: XA's verbs, a block's endings, scenarios."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator
from datetime import timedelta
from decimal import Decimal

import pytest

from participant_sdk.client_errors import InvalidRequestError, OutcomeUnknown, RolledBackError
from participant_sdk.client_results import Committed, RolledBack
from participant_sdk.faults import Way, proxying
from participant_sdk.interactive import Transaction, current_transaction
from participant_sdk.operations import OperationLike
from participant_sdk.scenarios import ScenarioStatus, TestScenario
from participant_sdk.suite import (
    TransactionManagerSuite,
    TransactionOperation,
    get_transaction_manager_suite,
    with_xa_transaction,
)
from tests.sdk.small_system import LEFT, OPENING, RIGHT, Running, System, coordinator, system

SOON = timedelta(seconds=20)


@pytest.fixture
async def around() -> AsyncGenerator[System]:
    async with system() as made:
        yield made


@pytest.fixture
async def running(around: System) -> AsyncGenerator[Running]:
    async with coordinator(around) as made:
        yield made


@pytest.fixture
async def suite(running: Running) -> AsyncGenerator[TransactionManagerSuite]:
    async with get_transaction_manager_suite(addresses=[running.address]) as made:
        yield made


def transfer(amount: int | Decimal = 1) -> list[OperationLike]:
    return [
        TransactionOperation(LEFT, "debit", {"account": "a", "amount": amount}),
        TransactionOperation(service=RIGHT, operation="credit", parameters={"account": "b", "amount": amount}),
    ]


async def test_a_transaction_is_executed_within_its_time(around: System, suite: TransactionManagerSuite) -> None:
    ending = await suite.execute_distributed_transaction(transfer(), SOON, request_id="one")
    assert isinstance(ending, Committed)
    again = await suite.execute_distributed_transaction(transfer(), timeout=SOON, request_id="one")
    assert isinstance(again, Committed)
    assert (again.xid, again.replayed, around.balance(RIGHT, "b")) == (ending.xid, True, OPENING + 1)
    with pytest.raises(InvalidRequestError, match="timeout"):
        await suite.execute_distributed_transaction(transfer(), timedelta(hours=2))


async def test_start_enlist_commit(around: System, suite: TransactionManagerSuite) -> None:
    txn = await suite.start(SOON)
    enlisted = await suite.enlist(txn, transfer())
    assert [each.participant for each in enlisted] == [LEFT, RIGHT]
    committed = await suite.commit(txn)
    assert (committed.xid, around.balance(RIGHT, "b")) == (txn.xid, OPENING + 1)


async def test_a_commit_that_ends_in_rollback_says_why(around: System, suite: TransactionManagerSuite) -> None:
    txn = await suite.start(SOON)
    await suite.enlist(txn, transfer(OPENING + 1))
    with pytest.raises(RolledBackError, match="INSUFFICIENT_FUNDS"):
        await suite.commit(txn)
    assert around.held(LEFT, "a") == 0


async def test_start_enlist_abort(around: System, suite: TransactionManagerSuite) -> None:
    txn = await suite.start(SOON)
    await suite.enlist(txn, transfer())
    ending = await suite.abort(txn, "second thoughts")
    assert isinstance(ending, RolledBack)
    assert "second thoughts" in ending.message
    assert around.balance(LEFT, "a") == OPENING


async def test_the_block_s_transaction_is_the_task_s_and_that_of_tasks_begun_inside(
    around: System, suite: TransactionManagerSuite
) -> None:
    async def work(amount: int) -> None:
        txn = current_transaction()
        assert txn is not None
        await txn.enlist(transfer(amount))

    outside = asyncio.Event()

    async def beside() -> None:
        await outside.wait()
        assert current_transaction() is None

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(beside())
        async with suite.transaction(timeout=SOON) as txn:
            assert current_transaction() is txn
            outside.set()
            await tasks.create_task(work(1))
            await work(2)
    assert current_transaction() is None
    assert isinstance(txn.ending, Committed)
    assert around.balance(RIGHT, "b") == OPENING + 3


async def test_two_blocks_at_once_are_two_transactions(around: System, suite: TransactionManagerSuite) -> None:
    async def block(amount: int) -> str:
        async with suite.transaction() as txn:
            await txn.enlist(transfer(amount))
            assert current_transaction() is txn
        return str(txn.xid)

    assert len(set(await asyncio.gather(block(1), block(2), block(3)))) == 3
    assert around.balance(RIGHT, "b") == OPENING + 6


async def test_by_hand_the_context_is_given_for_a_block(suite: TransactionManagerSuite) -> None:
    txn = await suite.start(SOON)
    with with_xa_transaction(txn) as inside:
        assert current_transaction() is inside is txn
    assert current_transaction() is None
    await suite.abort(txn)


async def test_an_exception_rolls_the_block_back_and_is_raised_again(
    around: System, suite: TransactionManagerSuite
) -> None:
    error = ZeroDivisionError("mine")
    begun: list[Transaction] = []
    with pytest.raises(ZeroDivisionError) as raised:
        async with suite.transaction(SOON) as txn:
            begun.append(txn)
            await txn.enlist(transfer())
            raise error
    assert raised.value is error
    assert isinstance(begun[0].ending, RolledBack)
    assert (around.balance(LEFT, "a"), around.held(LEFT, "a")) == (OPENING, 0)


async def test_a_block_whose_end_nobody_tells_is_unknown(around: System, running: Running) -> None:
    """It is raised as such, and the transaction commits all the same."""
    async with proxying(running.address) as proxy, get_transaction_manager_suite(addresses=[proxy.address]) as suite:
        with pytest.raises(OutcomeUnknown) as unknown:
            async with suite.transaction(timedelta(seconds=0.5)) as txn:
                await txn.enlist(transfer())
                proxy.hold(Way.DOWN)
        proxy.cut()
        proxy.release(Way.DOWN)
    assert str((await running.finished.get()).outcome.xid) == unknown.value.xid
    assert around.balance(RIGHT, "b") == OPENING + 1


async def test_a_suite_that_is_not_open_says_so(running: Running) -> None:
    suite = TransactionManagerSuite(running.address)
    with pytest.raises(RuntimeError, match="async with suite"):
        await suite.start()
    async with suite:
        assert isinstance(await suite.execute_distributed_transaction(transfer()), Committed)
    with pytest.raises(RuntimeError, match="async with suite"):
        await suite.execute_distributed_transaction(transfer())


async def test_a_scenario_that_commits_is_a_success(suite: TransactionManagerSuite) -> None:
    scenario = TestScenario(name="Simple Transfer", operations=transfer(), expected_result="success")
    result = await suite.execute_scenario(scenario)
    assert result.status == "success"
    assert result.as_expected
    assert isinstance(result.ending, Committed)
    assert str(result) == "Simple Transfer: expected success, and was success"
    assert 0 < result.duration_s < scenario.timeout.total_seconds()


async def test_a_scenario_is_judged_by_status_and_reason(suite: TransactionManagerSuite) -> None:
    too_much = transfer(OPENING + 1)
    result = await suite.execute_scenario(TestScenario("Too Much", too_much, "rolled_back", "INSUFFICIENT_FUNDS"))
    assert result.as_expected, result
    assert isinstance(result.ending, RolledBack)
    for expected, reason in (("success", ""), ("rolled_back", "NO_SUCH_ACCOUNT"), ("unknown", "")):
        wrong = await suite.execute_scenario(TestScenario("Too Much", too_much, expected, reason))
        assert not wrong.as_expected
        assert f"Too Much: expected {expected}" in str(wrong)
        assert "and was rolled_back: INSUFFICIENT_FUNDS: " in str(wrong)


async def test_a_wrong_request_is_an_invalid_scenario(suite: TransactionManagerSuite) -> None:
    wrong: list[tuple[list[OperationLike], str]] = [
        ([("left", "debit", {"account": "a", "amount": "x"})], "amount"),
        ([("nobody", "debit", "{}")], "nobody"),
        ([], "operations"),
    ]
    for operations, message in wrong:
        result = await suite.execute_scenario(TestScenario("Wrong", operations, "invalid"))
        assert (result.status, result.as_expected, result.ending) == (ScenarioStatus.INVALID, True, None)
        assert message in result.message


async def test_a_scenario_that_nobody_answers_is_unknown() -> None:
    async with get_transaction_manager_suite(addresses=["127.0.0.1:1"]) as suite:
        scenario = TestScenario("Alone", transfer(), "unknown", timeout=timedelta(seconds=0.2))
        result = await suite.execute_scenario(scenario)
    assert (result.status, result.reason, result.as_expected) == ("unknown", "OUTCOME_UNKNOWN", True), result


def test_an_expectation_that_is_no_status_is_refused() -> None:
    with pytest.raises(ValueError, match="Typo: expected_result is one of success, rolled_back, invalid, unknown"):
        TestScenario("Typo", [], "sucess")


def test_pytest_does_not_take_a_scenario_for_tests() -> None:
    """Its name is the specification's, and begins as a test's does."""
    assert not TestScenario.__test__
    assert "__test__" not in inspect.signature(TestScenario).parameters
