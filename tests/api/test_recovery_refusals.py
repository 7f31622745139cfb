"""RecoveryService refuses: a bad request by its field, the state of things by its reason, and nothing is changed."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from pincex.tx.v1 import common_pb2, recovery_pb2, transaction_pb2
from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceStub

from coordinator.api.gate import Gate
from coordinator.api.grpc_lock import LockService
from coordinator.api.grpc_recovery import RecoveryService
from coordinator.api.grpc_server import GrpcDoor
from coordinator.api.grpc_transaction import TransactionService
from coordinator.api.grpc_workflow import WorkflowService
from coordinator.telemetry import Telemetry
from tests.api.doors import Doors, Refused, doors, read_refusal, transfer
from tests.api.stuck import XID_UNKNOWN, Resolve, forcing, forgotten, owed, prepared, recovery
from tests.sdk.small_system import LEFT, OPENING, RIGHT

if TYPE_CHECKING:
    # The generated stubs know it; the module itself has it not.
    from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceAsyncStub

Trigger = recovery_pb2.TriggerRecoveryRequest

ONE: Final = recovery_pb2.RECOVERY_SCOPE_TRANSACTION
AT: Final = recovery_pb2.RECOVERY_SCOPE_PARTICIPANT
ORPHANS: Final = recovery_pb2.RECOVERY_SCOPE_ORPHANS
COMMIT: Final = common_pb2.DECISION_COMMIT
GOOD: Final = Resolve(xid=XID_UNKNOWN, participant=LEFT, outcome=COMMIT, reason="tried")


def but(**fields: object) -> Resolve:
    """A good request, but for these fields."""
    request = Resolve()
    request.CopyFrom(GOOD)
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def page_from(token: str) -> recovery_pb2.ListInDoubtRequest:
    """A page that begins where a token says."""
    return recovery_pb2.ListInDoubtRequest(page_token=token)


async def refused(call: Awaitable[Message]) -> Refused:
    """Make a call that must be refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return read_refusal(raised.value)


AT_THE_DOOR: Final[dict[str, tuple[str, Message, str, str]]] = {
    "no such scope": ("TriggerRecovery", Trigger(scope=17), "scope", "SCOPE_UNKNOWN"),  # pyright: ignore[reportArgumentType]  no such number
    "no transaction": ("TriggerRecovery", Trigger(scope=ONE), "xid", "REQUIRED"),
    "malformed transaction": ("TriggerRecovery", Trigger(scope=ONE, xid="x"), "xid", "XID_MALFORMED"),
    "no participant": ("TriggerRecovery", Trigger(scope=AT), "participant", "REQUIRED"),
    "unknown participant": (
        "TriggerRecovery",
        Trigger(scope=AT, participant="nobody"),
        "participant",
        "SERVICE_UNKNOWN",
    ),
    "malformed participant": (
        "TriggerRecovery",
        Trigger(scope=AT, participant="No Body"),
        "participant",
        "NAME_MALFORMED",
    ),
    "a transaction for all": ("TriggerRecovery", Trigger(xid=XID_UNKNOWN), "xid", "FIELD_UNEXPECTED"),
    "a participant for orphans": (
        "TriggerRecovery",
        Trigger(scope=ORPHANS, participant=LEFT),
        "participant",
        "FIELD_UNEXPECTED",
    ),
    "a page too large": ("ListInDoubt", recovery_pb2.ListInDoubtRequest(page_size=1001), "page_size", ""),
    "a token of nothing": ("ListInDoubt", page_from("next"), "page_token", ""),
    "a token that is a transaction": (
        "ListInDoubt",
        page_from(f"{XID_UNKNOWN}:"),
        "page_token",
        "",
    ),
    "in doubt at nobody": (
        "ListInDoubt",
        recovery_pb2.ListInDoubtRequest(participant="nobody"),
        "participant",
        "SERVICE_UNKNOWN",
    ),
    "in doubt at no name": (
        "ListInDoubt",
        recovery_pb2.ListInDoubtRequest(participant="No Body"),
        "participant",
        "NAME_MALFORMED",
    ),
    "retry of no xid": ("RetryTransaction", recovery_pb2.RetryTransactionRequest(), "xid", "XID_MALFORMED"),
    "resolve of no xid": ("ResolveBranch", but(xid=""), "xid", "XID_MALFORMED"),
    "resolve without outcome": ("ResolveBranch", but(outcome=0), "outcome", "NOT_AN_OUTCOME"),
    "resolve to another outcome": ("ResolveBranch", but(outcome=9), "outcome", "NOT_AN_OUTCOME"),
    "resolve without reason": ("ResolveBranch", but(reason=""), "reason", "REQUIRED"),
    "resolve with a blank reason": ("ResolveBranch", but(reason="  "), "reason", "REQUIRED"),
    "resolve with a long reason": ("ResolveBranch", but(reason="x" * 201), "reason", "REASON_MALFORMED"),
    "preview without reason": ("ResolveBranch", but(reason="", preview=True), "reason", "REQUIRED"),
    "resolve at nobody": ("ResolveBranch", but(participant="nobody"), "participant", "SERVICE_UNKNOWN"),
    "resolve at no name": ("ResolveBranch", but(participant=""), "participant", "NAME_MALFORMED"),
    "forget without reason": (
        "ForgetHeuristic",
        recovery_pb2.ForgetHeuristicRequest(xid=XID_UNKNOWN),
        "reason",
        "REQUIRED",
    ),
    "forget of no xid": ("ForgetHeuristic", recovery_pb2.ForgetHeuristicRequest(reason="r"), "xid", "XID_MALFORMED"),
    "hold without reason": ("Hold", recovery_pb2.HoldRequest(), "reason", "REQUIRED"),
    "release without reason": ("ReleaseHold", recovery_pb2.ReleaseHoldRequest(preview=True), "reason", "REQUIRED"),
}


@pytest.mark.parametrize("name", AT_THE_DOOR)
async def test_a_bad_request_names_its_field(open_doors: Doors, name: str) -> None:
    method, request, field, reason = AT_THE_DOOR[name]
    error = await refused(getattr(recovery(open_doors), method)(request))
    assert (error.code, error.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    assert error.info.reason == reason or not reason
    assert error.info.metadata["field"] == field
    assert not open_doors.around.log.tables.held


def unmet(error: Refused) -> tuple[str, str]:
    """What a refusal says of the state of things."""
    failure = error.details["PreconditionFailure"]
    assert isinstance(failure, error_details_pb2.PreconditionFailure)
    (violation,) = failure.violations
    assert error.code is grpc.StatusCode.FAILED_PRECONDITION
    assert violation.type == error.info.reason
    return error.info.reason, violation.subject


async def test_an_unknown_transaction_is_not_found(open_doors: Doors) -> None:
    """Its incarnation was never drawn by this log, and is above all that were."""
    stub = recovery(open_doors)
    xid = "01890000-0000-8fff-bfff-fc0000000001"
    for call in (
        stub.RetryTransaction(recovery_pb2.RetryTransactionRequest(xid=xid)),
        stub.TriggerRecovery(Trigger(scope=ONE, xid=xid)),
        stub.ResolveBranch(forcing(xid)),
    ):
        error = await refused(call)
        assert (error.code, error.info.reason) == (grpc.StatusCode.NOT_FOUND, "TRANSACTION_UNKNOWN")
        assert "ResourceInfo" in error.details


async def test_a_finished_transaction_is_not_resolved(open_doors: Doors) -> None:
    xid = (await open_doors.stub.Execute(transfer())).result.xid
    error = await refused(recovery(open_doors).ResolveBranch(forcing(xid)))
    assert unmet(error) == ("ALREADY_FINISHED", f"transaction {xid}")
    assert error.info.metadata["transaction_id"] == xid


async def test_a_live_transaction_is_not_resolved(open_doors: Doors) -> None:
    """Neither one that is still open, nor one that is decided and being told; the error says what to do instead."""
    begun = (await open_doors.stub.Begin(transaction_pb2.BeginRequest())).xid
    decided = await owed(open_doors)
    for xid in (begun, decided):
        error = await refused(recovery(open_doors).ResolveBranch(forcing(xid, RIGHT)))
        assert unmet(error) == ("TRANSACTION_LIVE", f"transaction {xid}")
        assert "pincex tx retry" in error.message


async def test_a_known_decision_is_not_overruled(open_doors: Doors) -> None:
    """Of an incarnation that is gone, without a commit in the log: ROLLBACK, and only that (R12)."""
    xid = str(await prepared(open_doors))
    error = await refused(recovery(open_doors).ResolveBranch(forcing(xid)))
    assert unmet(error) == ("DECISION_KNOWN", f"transaction {xid}")
    assert "ROLLBACK" in error.message
    assert open_doors.around.balance(LEFT, "a") == OPENING


async def test_what_is_not_in_doubt_there_is_not_resolved(open_doors: Doors) -> None:
    xid = str(await forgotten(open_doors))
    stub = recovery(open_doors)
    assert unmet(await refused(stub.ResolveBranch(forcing(xid, RIGHT))))[0] == "NOT_IN_DOUBT"
    await stub.ResolveBranch(forcing(xid))
    other = Resolve(xid=xid, participant=LEFT, outcome=common_pb2.DECISION_ROLLBACK, reason="after all")
    assert unmet(await refused(stub.ResolveBranch(other)))[0] == "NOT_IN_DOUBT"
    assert open_doors.around.balance(LEFT, "a") == OPENING - 5


async def test_nothing_heuristic_is_not_forgotten(open_doors: Doors) -> None:
    xid = (await open_doors.stub.Execute(transfer())).result.xid
    error = await refused(
        recovery(open_doors).ForgetHeuristic(recovery_pb2.ForgetHeuristicRequest(xid=xid, reason="r"))
    )
    assert unmet(error) == ("NOT_HEURISTIC", f"transaction {xid}")


async def test_an_undecided_transaction_is_not_retried(open_doors: Doors) -> None:
    xid = (await open_doors.stub.Begin(transaction_pb2.BeginRequest())).xid
    error = await refused(recovery(open_doors).RetryTransaction(recovery_pb2.RetryTransactionRequest(xid=xid)))
    assert unmet(error) == ("NOT_DECIDED", f"transaction {xid}")


async def test_a_log_that_is_not_held_is_not_released(open_doors: Doors) -> None:
    for preview in (True, False):
        request = recovery_pb2.ReleaseHoldRequest(reason="why not", preview=preview)
        assert unmet(await refused(recovery(open_doors).ReleaseHold(request))) == ("NOT_HELD", "the decision log")


async def test_release_waits_for_every_participant() -> None:
    """One that is missing may have committed what the log lost; it is named (R15)."""
    async with doors(held="restored", absent="gone") as opened:
        request = recovery_pb2.ReleaseHoldRequest(reason="in a hurry")
        error = await refused(recovery(opened).ReleaseHold(request))
        assert unmet(error) == ("PARTICIPANTS_MISSING", "the decision log")
        assert "gone" in error.message
        assert opened.around.log.tables.held


async def test_without_its_log_nothing_is_forced(open_doors: Doors) -> None:
    """What cannot be read is no answer; the error names the way at the participant itself."""
    xid = str(await forgotten(open_doors))
    open_doors.wire.is_cut = True
    stub = recovery(open_doors)
    for call in (
        stub.ResolveBranch(forcing(xid)),
        stub.ForgetHeuristic(recovery_pb2.ForgetHeuristicRequest(xid=xid, reason="r")),
        stub.RetryTransaction(recovery_pb2.RetryTransactionRequest(xid=xid)),
        stub.Hold(recovery_pb2.HoldRequest(reason="r")),
        stub.ReleaseHold(recovery_pb2.ReleaseHoldRequest(reason="r")),
    ):
        error = await refused(call)
        assert (error.code, error.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert "RetryInfo" in error.details
    assert open_doors.around.balance(LEFT, "a") == OPENING
    (found,) = (await stub.ListInDoubt(recovery_pb2.ListInDoubtRequest())).branches
    assert found.state == transaction_pb2.DECISION_STATE_UNSPECIFIED
    open_doors.wire.is_cut = False


async def test_a_participant_that_does_not_answer_is_not_forced() -> None:
    async with doors(absent="gone") as opened:
        xid = str(await forgotten(opened))
        error = await refused(recovery(opened).ResolveBranch(forcing(xid, "gone")))
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert "nothing was forced" in error.message


async def test_a_coordinator_that_starts_says_so() -> None:
    """RecoveryService, too, has nothing to tell before its log is open."""
    gate, telemetry = Gate(), Telemetry("error")
    service = TransactionService(gate, telemetry, timedelta(seconds=1))
    others = (WorkflowService(gate, telemetry), LockService(gate, telemetry))
    door = GrpcDoor(service, RecoveryService(gate, telemetry), *others, telemetry)
    door.listen("127.0.0.1:0")
    await door.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
        stub: RecoveryServiceAsyncStub = RecoveryServiceStub(channel)
        error = await refused(stub.GetRecoveryStatus(recovery_pb2.GetRecoveryStatusRequest()))
    await door.stop(0)
    assert (error.code, error.info.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
