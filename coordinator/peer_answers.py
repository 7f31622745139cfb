"""What a peer answered, as this coordinator's own values: for the doors that do not speak the peer's wire."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from grpc import StatusCode
from pincex.tx.v1 import recovery_pb2

from coordinator.errors import (
    BusyError,
    InvalidRequestError,
    OutcomeUnknownError,
    RefusedError,
    TransactionError,
    UnavailableError,
    UnknownTransactionError,
    WrongPhaseError,
)
from coordinator.passes import Pass, Scope
from coordinator.protocol.outcome import BranchOutcome, Outcome
from coordinator.protocol.phases import Phase
from coordinator.requests import StoryEvent, TransactionView
from coordinator.resolution import Forced
from participant_sdk.client_errors import OUTCOME_UNKNOWN, Failed
from participant_sdk.client_results import BranchResult, Committed, Ending, TransactionState
from participant_sdk.ids import InvalidIdentifierError, Xid
from participant_sdk.wire import read_ack
from participant_sdk.wire_branches import read_branch
from participant_sdk.xa import Decision

_BUSY_RETRY_AFTER_S: Final = 0.1


class PeerRefusedError(Exception):
    """The owner's own error. ``failed`` is what it says; ``trailing`` carries its rich status, to be passed on."""

    def __init__(self, failed: Failed, trailing: Sequence[tuple[str, str | bytes]]) -> None:
        super().__init__(str(failed))
        self.failed = failed
        self.trailing = trailing

    def as_told_here(self) -> TransactionError:
        """The same error, as if this coordinator had raised it. One of no known kind tells nothing (R19)."""
        failed = self.failed
        xid = _xid_of(failed)
        match failed.code:
            case StatusCode.INVALID_ARGUMENT:
                return InvalidRequestError(failed.message, field=failed.field, code=failed.reason, xid=xid)
            case StatusCode.NOT_FOUND:
                return UnknownTransactionError(failed.message, xid=xid)
            case StatusCode.FAILED_PRECONDITION:
                return _unmet(failed, xid)
            case StatusCode.RESOURCE_EXHAUSTED:
                return BusyError(failed.message, retry_after_s=failed.retry_after_s or _BUSY_RETRY_AFTER_S)
            case StatusCode.UNKNOWN if failed.reason == OUTCOME_UNKNOWN:
                return OutcomeUnknownError(failed.message, xid=xid)
            case _:
                return UnavailableError(f"its owner could not answer: {failed}", xid=xid)


def view_of(state: TransactionState) -> TransactionView:
    """The view of a transaction that its owner holds."""
    return TransactionView(
        state.xid,
        Phase[state.phase],
        None if state.ending is None else _outcome_of(state.ending, Phase[state.phase]),
        _branches_of(state.branches),
        _unix_ms(state.began),
        None if state.deadline is None else _unix_ms(state.deadline),
        state.request_id,
        state.incarnation,
        state.sequence,
        state.waiting_for,
        tuple(StoryEvent(_unix_ms(e.time), e.event, e.participant, e.detail) for e in state.events),
    )


def pass_of(answer: recovery_pb2.TriggerRecoveryResponse, scope: Scope) -> Pass:
    """The pass that its owner ran."""
    # The field's name is one of Python's keywords.
    ran: recovery_pb2.RecoveryPass = getattr(answer, "pass")
    return Pass(
        scope,
        ran.start_time.ToMilliseconds(),
        ran.end_time.ToMilliseconds(),
        ran.scanned,
        ran.resolved,
        ran.failed,
        ran.in_doubt,
        ran.taken_over,
        tuple(ran.unreachable_participants),
    )


def forced_of(answer: recovery_pb2.RecoveryServiceResolveBranchResponse, log_id: str) -> Forced:
    """The branch that its owner forced, or would. InvalidFieldError for what is unknown here."""
    # A branch that the participant does not know has an xid and no phase.
    branch = read_branch(answer.branch, log_id) if answer.branch.phase else None
    return Forced(branch, read_ack(answer.ack) if answer.HasField("ack") else None, answer.advice)


def _outcome_of(ending: Ending, phase: Phase) -> Outcome:
    branches = _branches_of(ending.branches)
    if isinstance(ending, Committed):
        return Outcome(
            ending.xid,
            Decision.COMMIT,
            phase,
            branches=branches,
            replayed=ending.replayed,
            heuristic=ending.heuristic,
        )
    return Outcome(
        ending.xid,
        Decision.ROLLBACK,
        phase,
        ending.reason,
        ending.message,
        ending.retry,
        branches,
        ending.replayed,
        ending.heuristic,
    )


def _branches_of(branches: Sequence[BranchResult]) -> tuple[BranchOutcome, ...]:
    return tuple(BranchOutcome(each.participant, each.vote, each.done, each.heuristic) for each in branches)


def _unmet(failed: Failed, xid: Xid | None) -> TransactionError:
    if xid is None:
        return RefusedError(failed.message, code=failed.reason)
    return WrongPhaseError(failed.message, code=failed.reason, xid=xid)


def _unix_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _xid_of(failed: Failed) -> Xid | None:
    try:
        return Xid.parse(failed.xid)
    except InvalidIdentifierError:
        return None
