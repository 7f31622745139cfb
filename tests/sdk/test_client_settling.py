"""What the client makes of answers that no sound coordinator gives: never an outcome out of thin air (R19)."""

from __future__ import annotations

import grpc
import pytest
from pincex.tx.v1 import transaction_pb2 as wire

from coordinator.errors import InvalidRequestError as ServerInvalidRequestError
from coordinator.errors import OutcomeUnknownError as ServerOutcomeUnknownError
from coordinator.errors import RequestInUseError as ServerRequestInUseError
from coordinator.errors import RequestReusedError as ServerRequestReusedError
from coordinator.errors import UnknownTransactionError as ServerUnknownTransactionError
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import (
    InvalidRequestError,
    OutcomeUnknown,
    RefusedError,
    RequestInUseError,
    RequestReusedError,
)
from participant_sdk.client_results import Committed, Ending, RolledBack
from participant_sdk.interactive import Transaction
from tests.sdk.scripted import COMMITTED, NOTHING, ROLLED_BACK, XID, Scripted, serving_script

WORK = [("service", "operation", "{}")]
INVALID = ServerInvalidRequestError("no such service", field="operations[0].service", code="SERVICE_UNKNOWN")
REUSED = ServerRequestReusedError("other operations")
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def execute(scripted: Scripted, *, timeout_s: float = 10, request_id: str | None = None) -> Ending:
    async with serving_script(scripted) as address, TransactionClient(address) as client:
        return await client.execute(WORK, timeout_s=timeout_s, request_id=request_id)


@pytest.mark.parametrize(
    "status",
    [
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.ALREADY_EXISTS,
    ],
)
async def test_no_status_is_an_outcome(status: grpc.StatusCode) -> None:
    assert isinstance(await execute(Scripted(execute=[status, COMMITTED])), Committed)


async def test_an_answer_without_an_outcome_or_a_transaction_is_no_ending() -> None:
    nameless = wire.TransactionResult(outcome=wire.OUTCOME_COMMITTED)
    undecided = wire.TransactionResult(xid=str(XID))
    assert isinstance(await execute(Scripted(execute=[NOTHING, nameless, undecided, ROLLED_BACK])), RolledBack)


@pytest.mark.parametrize(
    "status", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED]
)
async def test_a_caller_who_is_not_served_is_told_so_at_once(status: grpc.StatusCode) -> None:
    scripted = Scripted(execute=[status])
    with pytest.raises(RefusedError):
        await execute(scripted)
    assert scripted.calls == ["execute"]


async def test_an_error_after_a_lost_try_is_told_only_once_that_try_is_closed() -> None:
    scripted = Scripted(execute=[UNAVAILABLE, INVALID], rollback=[ROLLED_BACK])
    with pytest.raises(InvalidRequestError) as caught:
        await execute(scripted)
    assert caught.value.field == "operations[0].service"
    assert caught.value.reason == "SERVICE_UNKNOWN"
    assert scripted.calls == ["execute", "execute", "rollback"]


async def test_an_error_after_a_try_that_committed_is_not_told() -> None:
    ending = await execute(Scripted(execute=[UNAVAILABLE, INVALID], rollback=[COMMITTED]))
    assert isinstance(ending, Committed)


async def test_the_last_reason_is_told_when_time_is_up() -> None:
    busy = wire.TransactionResult(
        xid=str(XID), outcome=wire.OUTCOME_ROLLED_BACK, reason="PARTICIPANT_UNREACHABLE", retry=True
    )
    ending = await execute(Scripted(execute=[busy], rollback=[ROLLED_BACK]), timeout_s=0.1)
    assert isinstance(ending, RolledBack)
    assert ending.reason == "PARTICIPANT_UNREACHABLE"
    assert not ending.retry


async def test_closing_takes_no_retry_for_an_end() -> None:
    retry = wire.TransactionResult(xid=str(XID), outcome=wire.OUTCOME_ROLLED_BACK, reason="LOG_BUSY", retry=True)
    scripted = Scripted(execute=[UNAVAILABLE], rollback=[UNAVAILABLE, retry, COMMITTED])
    assert isinstance(await execute(scripted, timeout_s=0.05), Committed)


async def test_a_closing_that_is_refused_leaves_the_outcome_unknown() -> None:
    scripted = Scripted(execute=[UNAVAILABLE], rollback=[grpc.StatusCode.UNIMPLEMENTED])
    with pytest.raises(OutcomeUnknown):
        await execute(scripted, timeout_s=0.05)


async def test_a_caller_s_request_id_that_committed_for_others_is_no_commit_of_ours() -> None:
    """Rollback by request_id matches any operations, so only sending ours again shows whose commit it was."""
    scripted = Scripted(execute=[UNAVAILABLE, REUSED], rollback=[COMMITTED])
    with pytest.raises(RequestReusedError):
        await execute(scripted, timeout_s=0.015, request_id="mine")


@pytest.mark.parametrize(("again", "ending"), [(COMMITTED, Committed), (UNAVAILABLE, OutcomeUnknown)])
async def test_a_caller_s_request_id_that_committed_is_confirmed(
    again: wire.TransactionResult | grpc.StatusCode, ending: type
) -> None:
    scripted = Scripted(execute=[UNAVAILABLE, again], rollback=[COMMITTED])
    try:
        told: object = await execute(scripted, timeout_s=0.015, request_id="mine")
    except OutcomeUnknown as unknown:
        told = unknown
        assert unknown.request_id == "mine"
    assert isinstance(told, ending)


async def commit(scripted: Scripted) -> tuple[Transaction, Ending]:
    async with serving_script(scripted) as address, TransactionClient(address) as client:
        txn = await client.begin(timeout_s=5)
        return txn, await txn.commit()


GONE = ServerUnknownTransactionError("not held here", xid=XID)
CANNOT_SAY = ServerOutcomeUnknownError("its client asked another incarnation", xid=XID)
IN_USE = ServerRequestInUseError("another one has not ended", xid=XID)


@pytest.mark.parametrize(
    ("decision", "ending"),
    [(wire.DECISION_STATE_COMMIT, Committed), (wire.DECISION_STATE_ROLLBACK, RolledBack)],
)
async def test_a_commit_whose_coordinator_is_gone_is_asked_of_the_log(
    decision: wire.DecisionState.ValueType, ending: type
) -> None:
    """Only COMMIT and ROLLBACK end the doubt."""
    scripted = Scripted(commit=[UNAVAILABLE, GONE], decision=[UNAVAILABLE, wire.DECISION_STATE_PENDING, decision])
    txn, told = await commit(scripted)
    assert isinstance(told, ending)
    assert txn.ending == told


async def test_a_commit_of_an_unknown_transaction_is_an_error_at_the_first_try() -> None:
    with pytest.raises(Exception, match="not held here"):
        await commit(Scripted(commit=[GONE]))


@pytest.mark.parametrize(
    ("decision", "ending"),
    [(wire.DECISION_STATE_COMMIT, Committed), (wire.DECISION_STATE_ROLLBACK, RolledBack)],
)
async def test_a_coordinator_that_cannot_say_the_end_is_asked_for_the_decision(
    decision: wire.DecisionState.ValueType, ending: type
) -> None:
    """After a restart it holds the transaction, and was not there when the commit was asked for."""
    scripted = Scripted(commit=[CANNOT_SAY], decision=[wire.DECISION_STATE_PENDING, decision])
    txn, told = await commit(scripted)
    assert isinstance(told, ending)
    assert txn.ending == told


async def test_a_begin_whose_reply_was_lost_is_sent_again_under_one_name_to_the_same_coordinator() -> None:
    """Only it can tell what it began; anywhere else a second transaction would be begun."""
    two = [Scripted(begin=[UNAVAILABLE]) for _ in range(2)]
    async with (
        serving_script(two[0]) as one,
        serving_script(two[1]) as other,
        TransactionClient([one, other]) as client,
    ):
        txn = await client.begin()
    asked = two[0].begun or two[1].begun
    assert asked == [txn.request_id] * 2
    assert txn.request_id
    assert not (two[0].begun and two[1].begun)


async def test_a_begin_goes_to_the_next_coordinator_where_one_fails_again() -> None:
    two = [Scripted(begin=[UNAVAILABLE] * 2) for _ in range(2)]
    async with (
        serving_script(two[0]) as one,
        serving_script(two[1]) as other,
        TransactionClient([one, other]) as client,
    ):
        txn = await client.begin(request_id="mine")
    assert txn.request_id == "mine"
    assert two[0].begun and two[1].begun


async def test_a_request_in_use_is_waited_for_and_not_closed() -> None:
    assert isinstance(await execute(Scripted(execute=[IN_USE, COMMITTED]), request_id="mine"), Committed)
    scripted = Scripted(execute=[IN_USE])
    with pytest.raises(RequestInUseError) as caught:
        await execute(scripted, timeout_s=0.1, request_id="mine")
    assert caught.value.xid == str(XID)
    assert "rollback" not in scripted.calls
