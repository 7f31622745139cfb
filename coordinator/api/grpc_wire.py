"""Domain values to messages of TransactionService, and its requests to calls."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from sys import intern
from typing import Final

from google.protobuf.duration_pb2 import Duration
from pincex.tx.v1 import common_pb2, lock_pb2, transaction_pb2

from coordinator.api import checks
from coordinator.errors import InvalidRequestError
from coordinator.protocol.outcome import BranchOutcome, Outcome, xa_code_of
from coordinator.protocol.phases import COMMITTED, Phase
from coordinator.requests import DecisionAnswer, Ended, ExecuteCall, TransactionView
from participant_sdk.participant import Operation
from participant_sdk.wire import write_vote
from participant_sdk.xa import PREPARED, Decision, DecisionState

PLAIN_RESULTS_MAX: Final = 1024

_NANOS: Final = 1_000_000_000
_NANOS_MAX: Final = 999_999_999
_DURATION_MAX_S: Final = 315_576_000_000
_TIMEOUT_MAX_NS: Final = checks.TIMEOUT_MAX_S * _NANOS
_COMMIT: Final = Decision.COMMIT
_PREPARED_VOTE: Final = write_vote(PREPARED)
_OUTCOMES: Final = {
    Decision.COMMIT: transaction_pb2.OUTCOME_COMMITTED,
    Decision.ROLLBACK: transaction_pb2.OUTCOME_ROLLED_BACK,
}
_WAITS: Final[dict[int, bool]] = {
    transaction_pb2.WAIT_UNSPECIFIED: True,
    transaction_pb2.WAIT_APPLIED: True,
    transaction_pb2.WAIT_DECIDED: False,
}
_STATES: Final = {
    DecisionState.COMMIT: transaction_pb2.DECISION_STATE_COMMIT,
    DecisionState.ROLLBACK: transaction_pb2.DECISION_STATE_ROLLBACK,
    DecisionState.PENDING: transaction_pb2.DECISION_STATE_PENDING,
    DecisionState.FORGOTTEN: transaction_pb2.DECISION_STATE_FORGOTTEN,
}


def read_execute(request: transaction_pb2.ExecuteRequest, timeout_default_s: float) -> ExecuteCall:
    """Read a transaction to run. InvalidRequestError names the field."""
    timeout_s = read_timeout(request, timeout_default_s)
    wait_applied = read_wait(wait) if (wait := request.wait) else True
    operations = read_operations(request.operations)
    return checks.execute_call(
        operations, timeout_s, request.request_id, wait_applied=wait_applied, lock_keys=request.lock_keys
    )


def read_operations(operations: Sequence[common_pb2.Operation], *, least: int = 1) -> tuple[Operation, ...]:
    """Read ``least`` to 100 operations, otherwise unchecked. InvalidRequestError for another number."""
    checks.check_count(len(operations), least=least)
    # A message makes its texts anew for whoever asks, and the same few names come all the time: each is held once.
    return tuple([Operation(intern(each.service), intern(each.operation), each.parameters) for each in operations])


def read_timeout(
    request: transaction_pb2.ExecuteRequest | transaction_pb2.BeginRequest | lock_pb2.AcquireRequest, default_s: float
) -> float:
    """Read a time-out in seconds, the default where the request has none. InvalidRequestError."""
    if not request.HasField("timeout"):
        return default_s
    timeout = request.timeout
    seconds, nanos = timeout.seconds, timeout.nanos
    # Whole numbers are exact too, and faster than the decimals that a refusal shows.
    if 0 <= nanos <= _NANOS_MAX and 0 < (total_ns := seconds * _NANOS + nanos) <= _TIMEOUT_MAX_NS:
        return total_ns / _NANOS
    # Both have one sign, or one is zero.
    if abs(nanos) > _NANOS_MAX or abs(seconds) > _DURATION_MAX_S or seconds * nanos < 0:
        raise InvalidRequestError(
            f"no duration: {seconds} seconds and {nanos} nanoseconds",
            field="timeout",
            code="TIMEOUT_OUT_OF_RANGE",
        )
    return checks.check_timeout(seconds + Decimal(nanos) / _NANOS)


def read_wait(wait: int) -> bool:
    """Read when to answer: True for applied. InvalidRequestError for an unknown number."""
    wait_applied = _WAITS.get(wait)
    if wait_applied is None:
        raise InvalidRequestError(f"no such wait: {wait}", field="wait", code="WAIT_UNKNOWN")
    return wait_applied


def read_phase(phase: int) -> Phase | None:
    """Read a phase to filter by; None for all. InvalidRequestError for an unknown number."""
    if phase == common_pb2.PHASE_UNSPECIFIED:
        return None
    try:
        return Phase(phase)
    except ValueError as error:
        raise InvalidRequestError(f"no such phase: {phase}", field="phase", code="PHASE_UNKNOWN") from error


def write_ended(ended: Ended, result: transaction_pb2.TransactionResult) -> int:
    """Write how a transaction ended into an empty result; return roughly what its operations' results take of it."""
    size_chars = _write_outcome(ended.outcome, result)
    write_seconds(ended.duration_s, result.duration)
    return size_chars


def write_seconds(seconds: float, duration: Duration) -> None:
    """Write seconds, 0 or more."""
    whole = int(seconds)
    duration.seconds = whole
    duration.nanos = int((seconds - whole) * _NANOS)


def write_view(view: TransactionView, transaction: transaction_pb2.Transaction) -> None:
    """Write everything known of a transaction into an empty message."""
    if view.outcome is not None:
        _write_outcome(view.outcome, transaction.result)
    else:
        transaction.result.xid = str(view.xid)
        _write_branches(view.branches, transaction.result)
    transaction.result.phase = common_pb2.Phase.ValueType(view.phase)
    transaction.begin_time.FromMilliseconds(view.began_unix_ms)
    if view.deadline_unix_ms is not None:
        transaction.deadline.FromMilliseconds(view.deadline_unix_ms)
    transaction.request_id = view.request_id
    transaction.incarnation = view.incarnation
    transaction.sequence = view.sequence
    transaction.waiting_for = view.waiting_for
    for told in view.events:
        event = transaction.events.add(event=told.event, participant=told.participant, detail=told.detail)
        event.time.FromMilliseconds(told.unix_ms)


def write_decision(answer: DecisionAnswer, response: transaction_pb2.GetDecisionResponse) -> None:
    """Write the answer to a participant in doubt into an empty response."""
    response.decision = _STATES[answer.state]
    response.incarnation = answer.incarnation
    response.sequence = answer.sequence
    response.owner_address = answer.owner_address
    response.epoch = answer.epoch


def _write_outcome(outcome: Outcome, result: transaction_pb2.TransactionResult) -> int:
    """Write it; return how many characters the results take."""
    xid, decision, phase, reason, message, retry, branches, replayed, heuristic = outcome
    result.xid = str(xid)
    # There is nothing to tell of most, but that they committed, and of their branches.
    if phase is COMMITTED and decision is _COMMIT and not (replayed or retry or reason or message or heuristic):
        plain = tuple([name for name, vote, done, end in branches if done and vote == PREPARED and not end])
        if len(plain) == len(branches):
            result.MergeFrom(_plain_result(plain))
            return 0
    _write_fields(outcome, result)
    return sum([sum(map(len, branch.vote.results)) for branch in branches if branch.vote is not None])


@lru_cache(maxsize=PLAIN_RESULTS_MAX)
def _plain_result(participants: tuple[str, ...]) -> transaction_pb2.TransactionResult:
    """All but the xid of a plain commit whose branches are done after a bare yes.

    Kept to be copied, for the same few participants come all the time: writing it takes several times as long.
    """
    return transaction_pb2.TransactionResult(
        outcome=transaction_pb2.OUTCOME_COMMITTED,
        phase=common_pb2.PHASE_COMMITTED,
        applied=True,
        branches=[
            transaction_pb2.BranchResult(participant=name, vote=_PREPARED_VOTE, done=True) for name in participants
        ],
    )


def _write_fields(outcome: Outcome, result: transaction_pb2.TransactionResult) -> None:
    result.outcome = _OUTCOMES[outcome.decision]
    result.phase = common_pb2.Phase.ValueType(outcome.phase)
    result.applied = outcome.applied
    _write_branches(outcome.branches, result)
    # Fields that hold their default for most transactions are left alone: each costs as much as a useful one.
    if outcome.reason:
        result.reason = outcome.reason
    if outcome.message:
        result.message = outcome.message
    if outcome.retry:
        result.retry = True
    if code := xa_code_of(outcome):
        result.xa_code = code
    if outcome.replayed:
        result.replayed = True
    if outcome.heuristic is not None:
        result.heuristic = common_pb2.Heuristic.ValueType(outcome.heuristic)


def _write_branches(branches: Sequence[BranchOutcome], result: transaction_pb2.TransactionResult) -> None:
    for branch in branches:
        written = result.branches.add(participant=branch.participant, done=branch.done)
        if branch.vote is not None:
            written.vote.CopyFrom(_PREPARED_VOTE if branch.vote == PREPARED else write_vote(branch.vote))
        if branch.heuristic is not None:
            written.heuristic = common_pb2.Heuristic.ValueType(branch.heuristic)
