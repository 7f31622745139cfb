"""The client's end of the wire: requests from values, values from answers, failures from statuses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from pincex.tx.v1 import common_pb2, transaction_pb2

from participant_sdk.client_errors import Failed
from participant_sdk.client_results import (
    BranchResult,
    Committed,
    Ending,
    Enlisted,
    KnownDecision,
    RolledBack,
    StoryEvent,
    TransactionState,
    Wait,
)
from participant_sdk.ids import InvalidIdentifierError, Xid
from participant_sdk.participant import Operation
from participant_sdk.xa import PREPARED, DecisionState, Heuristic, Vote, VoteKind

_DETAILS_KEY: Final = "grpc-status-details-bin"
_NANOS: Final = 1_000_000_000
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
# A number that this version does not know says nothing.
_HEURISTICS: Final = {int(heuristic): heuristic for heuristic in Heuristic}
_VOTE_KINDS: Final = {int(kind): kind for kind in VoteKind}
_STATES: Final = {
    transaction_pb2.DECISION_STATE_COMMIT: DecisionState.COMMIT,
    transaction_pb2.DECISION_STATE_ROLLBACK: DecisionState.ROLLBACK,
    transaction_pb2.DECISION_STATE_FORGOTTEN: DecisionState.FORGOTTEN,
}


class AnswerError(Exception):
    """The answer does not say what the contract promises; it tells nothing (R19)."""


def write_execute(operations: Iterable[Operation], request_id: str, wait: Wait) -> transaction_pb2.ExecuteRequest:
    """Write a transaction to run, its time-out left to ``set_timeout``."""
    request = transaction_pb2.ExecuteRequest(request_id=request_id, wait=wire_wait(wait))
    _add_operations(request, operations)
    return request


def write_enlist(xid: Xid, participant: str, operations: Iterable[Operation]) -> transaction_pb2.EnlistRequest:
    """Write operations of one participant, to be added to a transaction."""
    request = transaction_pb2.EnlistRequest(xid=str(xid), participant=participant)
    _add_operations(request, operations)
    return request


def _add_operations(
    request: transaction_pb2.ExecuteRequest | transaction_pb2.EnlistRequest, operations: Iterable[Operation]
) -> None:
    # In place: messages made apart would be copied.
    for service, name, parameters in operations:
        request.operations.add(service=service, operation=name, parameters=parameters)


def wire_wait(wait: Wait) -> transaction_pb2.Wait.ValueType:
    """Write when to answer."""
    return transaction_pb2.WAIT_APPLIED if wait is Wait.APPLIED else transaction_pb2.WAIT_DECIDED


def set_timeout(duration: Duration, seconds: float) -> None:
    """Write seconds into a message's duration."""
    whole = int(seconds)
    duration.seconds = whole
    duration.nanos = int((seconds - whole) * _NANOS)


def seconds_of(duration: Duration) -> float:
    """Read a duration, in seconds."""
    return duration.seconds + duration.nanos / _NANOS


def read_xid(text: str) -> Xid:
    """Read the transaction that an answer names. AnswerError where it names none."""
    try:
        return Xid.parse(text)
    except InvalidIdentifierError as error:
        raise AnswerError(f"an answer without a transaction: {error}") from error


def read_ending(result: transaction_pb2.TransactionResult, request_id: str = "") -> Ending:
    """Read how a transaction ended. AnswerError unless it says one of the two endings."""
    xid = read_xid(result.xid)
    branches = tuple([_read_branch(branch) for branch in result.branches])
    heuristic = _HEURISTICS.get(result.heuristic)
    duration_s = seconds_of(result.duration)
    if result.outcome == transaction_pb2.OUTCOME_COMMITTED:
        return Committed(xid, request_id, result.applied, branches, duration_s, result.replayed, heuristic)
    if result.outcome != transaction_pb2.OUTCOME_ROLLED_BACK:
        raise AnswerError(f"transaction {xid}: an answer without an outcome")
    return RolledBack(
        xid,
        result.reason,
        result.message,
        request_id,
        result.applied,
        branches,
        duration_s,
        result.replayed,
        result.retry,
        heuristic,
    )


def read_enlisted(xid: Xid, participant: str, answer: transaction_pb2.EnlistResponse) -> Enlisted:
    """Read what names a branch that was added."""
    return Enlisted(xid, answer.log_id, participant, answer.branch_number, seconds_of(answer.remaining))


def read_state(transaction: transaction_pb2.Transaction) -> TransactionState:
    """Read the view of one transaction. AnswerError where it lacks an xid."""
    result = transaction.result
    ended = result.outcome != transaction_pb2.OUTCOME_UNSPECIFIED
    return TransactionState(
        xid=read_xid(result.xid),
        phase=common_pb2.Phase.Name(result.phase).removeprefix("PHASE_"),
        ending=read_ending(result, transaction.request_id) if ended else None,
        branches=tuple(_read_branch(branch) for branch in result.branches),
        began=_read_time(transaction.begin_time),
        deadline=_read_time(transaction.deadline) if transaction.HasField("deadline") else None,
        request_id=transaction.request_id,
        incarnation=transaction.incarnation,
        sequence=transaction.sequence,
        waiting_for=transaction.waiting_for,
        events=tuple(StoryEvent(_read_time(e.time), e.event, e.participant, e.detail) for e in transaction.events),
    )


def read_decision(answer: transaction_pb2.GetDecisionResponse) -> KnownDecision:
    """Read what is known of a decision; a state that this version does not know is PENDING."""
    state = _STATES.get(answer.decision, DecisionState.PENDING)
    return KnownDecision(state, answer.incarnation, answer.sequence, answer.owner_address, answer.epoch)


def read_failure(failure: transaction_pb2.Failure) -> Failed:
    """Read a stream's failure: what a unary call would have failed with."""
    code = _CODES.get(failure.code, grpc.StatusCode.UNKNOWN)
    retry_after_s = seconds_of(failure.retry_after)
    return Failed(code, failure.message, failure.reason, failure.field, retry_after_s, failure.xid)


def read_status(error: grpc.aio.AioRpcError) -> Failed:
    """Read a call's error status, with the details of google.rpc where it has them."""
    reason, field, retry_after_s, xid = "", "", 0.0, ""
    for detail in _details(error):
        match detail.TypeName():
            case "google.rpc.ErrorInfo":
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason, xid = info.reason, info.metadata.get("transaction_id", "")
            case "google.rpc.BadRequest":
                violations = error_details_pb2.BadRequest.FromString(detail.value).field_violations
                field = violations[0].field if violations else ""
            case "google.rpc.RetryInfo":
                retry_after_s = seconds_of(error_details_pb2.RetryInfo.FromString(detail.value).retry_delay)
            case _:
                pass
    return Failed(error.code(), error.details() or "", reason, field, retry_after_s, xid)


def _details(error: grpc.aio.AioRpcError) -> Sequence[any_pb2.Any]:
    for key, value in error.trailing_metadata():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value).details
    return ()


def _read_branch(branch: transaction_pb2.BranchResult) -> BranchResult:
    return BranchResult(branch.participant, _read_vote(branch.vote), branch.done, _HEURISTICS.get(branch.heuristic))


def _read_vote(vote: common_pb2.Vote) -> Vote | None:
    kind = _VOTE_KINDS.get(vote.kind)
    if kind is VoteKind.PREPARED and not vote.results:
        # Most votes are this one, which needs no more looking.
        return PREPARED
    if kind is None:
        return None
    return Vote(kind, vote.xa_code, vote.reason, vote.message, vote.transient, vote.field, tuple(vote.results))


def _read_time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(UTC)
