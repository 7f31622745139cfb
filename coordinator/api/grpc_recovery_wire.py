"""Recovery's values to messages of RecoveryService."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from pincex.tx.v1 import common_pb2, recovery_pb2, resource_pb2, transaction_pb2

from coordinator.doubts import InDoubt
from coordinator.errors import InvalidRequestError
from coordinator.hold import ReleasePlan
from coordinator.log.decision_log import Standing
from coordinator.passes import Attention, ParticipantStatus, Pass, RecoveryStatus, Scope
from coordinator.resolution import Forced
from participant_sdk.breaker import BreakerState
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch
from participant_sdk.wire import write_ack
from participant_sdk.wire_branches import write_branch
from participant_sdk.xa import Decision, DecisionState

RESTORED_SHOWN_MAX: Final = 100

_SCOPES: Final = {
    recovery_pb2.RECOVERY_SCOPE_UNSPECIFIED: Scope.GLOBAL,
    recovery_pb2.RECOVERY_SCOPE_GLOBAL: Scope.GLOBAL,
    recovery_pb2.RECOVERY_SCOPE_TRANSACTION: Scope.TRANSACTION,
    recovery_pb2.RECOVERY_SCOPE_PARTICIPANT: Scope.PARTICIPANT,
    recovery_pb2.RECOVERY_SCOPE_ORPHANS: Scope.ORPHANS,
    recovery_pb2.RECOVERY_SCOPE_WORKFLOWS: Scope.WORKFLOWS,
}
_WIRE_SCOPES: Final = {
    Scope.GLOBAL: recovery_pb2.RECOVERY_SCOPE_GLOBAL,
    Scope.TRANSACTION: recovery_pb2.RECOVERY_SCOPE_TRANSACTION,
    Scope.PARTICIPANT: recovery_pb2.RECOVERY_SCOPE_PARTICIPANT,
    Scope.ORPHANS: recovery_pb2.RECOVERY_SCOPE_ORPHANS,
    Scope.WORKFLOWS: recovery_pb2.RECOVERY_SCOPE_WORKFLOWS,
}
_BREAKERS: Final = {
    BreakerState.CLOSED: recovery_pb2.BREAKER_STATE_CLOSED,
    BreakerState.OPEN: recovery_pb2.BREAKER_STATE_OPEN,
    BreakerState.HALF_OPEN: recovery_pb2.BREAKER_STATE_HALF_OPEN,
}
_STATES: Final = {
    None: transaction_pb2.DECISION_STATE_UNSPECIFIED,
    DecisionState.COMMIT: transaction_pb2.DECISION_STATE_COMMIT,
    DecisionState.ROLLBACK: transaction_pb2.DECISION_STATE_ROLLBACK,
    DecisionState.PENDING: transaction_pb2.DECISION_STATE_PENDING,
    DecisionState.FORGOTTEN: transaction_pb2.DECISION_STATE_FORGOTTEN,
}
_DECISIONS: Final = {
    DecisionState.COMMIT: common_pb2.DECISION_COMMIT,
    DecisionState.ROLLBACK: common_pb2.DECISION_ROLLBACK,
}


def read_scope(scope: recovery_pb2.RecoveryScope.ValueType) -> Scope:
    """Read what a pass looks at. InvalidRequestError for an unknown number."""
    found = _SCOPES.get(scope)
    if found is None:
        raise InvalidRequestError(f"no such scope: {scope}", field="scope", code="SCOPE_UNKNOWN")
    return found


def read_outcome(outcome: int) -> Decision:
    """Read what to force. InvalidRequestError for neither."""
    try:
        return Decision(outcome)
    except ValueError as error:
        raise InvalidRequestError(
            "DECISION_COMMIT or DECISION_ROLLBACK", field="outcome", code="NOT_AN_OUTCOME"
        ) from error


def pass_of(response: recovery_pb2.TriggerRecoveryResponse) -> recovery_pb2.RecoveryPass:
    """The response's field ``pass``, which is one of Python's keywords."""
    message: recovery_pb2.RecoveryPass = getattr(response, "pass")
    return message


def write_pass(ran: Pass, message: recovery_pb2.RecoveryPass) -> None:
    """Write a pass into an empty message."""
    _write_time(ran.began_unix_ms, message.start_time)
    if ran.ended_unix_ms:
        _write_time(ran.ended_unix_ms, message.end_time)
    message.scope = _WIRE_SCOPES[ran.scope]
    message.scanned = ran.scanned
    message.resolved = ran.resolved
    message.failed = ran.failed
    message.in_doubt = ran.in_doubt
    message.taken_over = ran.taken_over
    message.resumed_workflows = ran.resumed
    message.unreachable_participants.extend(ran.unreachable)


def write_status(status: RecoveryStatus, own: int, response: recovery_pb2.GetRecoveryStatusResponse) -> None:
    """Write the state of recovery into an empty response; ``own`` is the incarnation that answers."""
    if status.last is not None:
        write_pass(status.last, response.last_pass)
    if status.current is not None:
        write_pass(status.current, response.current_pass)
    if status.next_unix_ms:
        _write_time(status.next_unix_ms, response.next_pass_time)
    if status.standing is not None:
        _write_standing(status.standing, own, response)
    for participant in status.participants:
        _write_participant(participant, response.participants.add())
    for attention in status.attention:
        _write_attention(attention, response.needs_attention.add())
    response.needs_attention_count = status.attention_count
    response.log_problem = status.log_problem


def write_in_doubt(found: InDoubt, message: recovery_pb2.InDoubtBranch) -> None:
    """Write a branch in doubt into an empty message."""
    message.participant = found.participant
    message.branch.CopyFrom(write_branch(found.branch))
    if found.state in _DECISIONS:
        message.decision = _DECISIONS[found.state]
    message.state = _STATES[found.state]
    message.advice = found.advice


def write_forced(forced: Forced, xid: Xid, response: recovery_pb2.RecoveryServiceResolveBranchResponse) -> None:
    """Write what was forced, or would be, into an empty response."""
    response.branch.CopyFrom(_written(forced.branch, xid))
    if forced.ack is not None:
        response.ack.CopyFrom(write_ack(forced.ack))
    response.advice = forced.advice


def write_plan(plan: ReleasePlan, response: recovery_pb2.ReleaseHoldResponse) -> None:
    """Write what the end of HOLD restored, or would, into an empty response; the oldest 100 commits by name."""
    response.commits_restored = len(plan.commits)
    response.rollbacks_presumed = plan.rollbacks_presumed
    response.sequences_raised = plan.sequences_raised
    for stored in plan.commits[:RESTORED_SHOWN_MAX]:
        record = stored.record
        response.commits.add(
            xid=str(record.xid),
            tenant=record.request.tenant if record.request else "",
            request_id=record.request.name if record.request else "",
            participants=record.prepared,
        )


def _write_standing(standing: Standing, own: int, response: recovery_pb2.GetRecoveryStatusResponse) -> None:
    if standing.is_held:
        _write_time(standing.held_since_unix_ms, response.held_since)
        response.held_reason = standing.held_reason
    if standing.pruned_below_unix_ms:
        _write_time(standing.pruned_below_unix_ms, response.pruned_below_time)
    for live in standing.live:
        message = response.coordinators.add(
            incarnation=live.number,
            coordinator=live.coordinator,
            address=live.address,
            lease_left_ms=round(live.lease_left_s * 1000),
        )
        message.self = live.number == own


def _write_participant(status: ParticipantStatus, message: recovery_pb2.ParticipantRecovery) -> None:
    message.participant = status.participant
    message.up = status.is_up
    message.reason = status.reason
    message.owed = status.owed
    message.in_doubt = status.in_doubt
    message.oldest_in_doubt_ms = status.oldest_in_doubt_ms
    message.breaker = _BREAKERS[status.breaker]
    message.reported = status.reported


def _write_attention(attention: Attention, message: recovery_pb2.NeedsAttention) -> None:
    message.xid = str(attention.xid)
    message.participants.extend(attention.participants)
    message.attempts = attention.attempts
    message.decided_unix_ms = attention.decided_unix_ms
    message.advice = attention.advice


def _written(branch: Branch | None, xid: Xid) -> resource_pb2.Branch:
    """A branch; one that the participant does not know has an xid and no phase."""
    return resource_pb2.Branch(xid=str(xid)) if branch is None else write_branch(branch)


def _write_time(unix_ms: int, stamp: Timestamp) -> None:
    stamp.FromMilliseconds(unix_ms)
