"""Workflows to messages of WorkflowService, and its requests to calls."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from pincex.tx.v1 import workflow_pb2

from coordinator.api import workflow_checks
from coordinator.errors import InvalidRequestError
from coordinator.log.workflow_log import StoredWorkflow, WorkflowFilter
from coordinator.protocol.workflow_records import Failure, StepKind, StepRecord, WorkflowPhase

_NANOS: Final = 1_000_000_000


def read_timeout(timeout: Duration) -> Decimal:
    """A duration in seconds, exactly."""
    return timeout.seconds + Decimal(timeout.nanos) / _NANOS


def read_filter(request: workflow_pb2.ListWorkflowsRequest) -> WorkflowFilter:
    """Which workflows to list. InvalidRequestError for an unknown state, and for what is no workflow's name."""
    try:
        phase = WorkflowPhase(request.state) if request.state else None
    except ValueError as error:
        raise InvalidRequestError(f"no such state: {request.state}", field="state", code="STATE_UNKNOWN") from error
    return WorkflowFilter(phase, workflow_checks.check_kind(request.workflow_type), request.stuck)


def write_workflow(stored: StoredWorkflow, message: workflow_pb2.Workflow) -> None:
    """Write a workflow into an empty message."""
    record = stored.record
    message.workflow_id = str(record.workflow_id)
    message.workflow_type = record.kind
    message.version = record.version
    message.parameters = record.parameters
    message.state = workflow_pb2.WorkflowState.ValueType(record.phase)
    _write_failure(record.stuck, message.stuck)
    _write_failure(record.failure, message.failure)
    message.result = record.result
    message.cancel_reason = record.cancelled
    message.request_id = record.request.name if record.request else ""
    message.incarnation = record.incarnation
    _write_time(record.workflow_id.unix_ms, message.start_time)
    _write_time(record.deadline_unix_ms, message.deadline)
    if record.ended_unix_ms:
        _write_time(record.ended_unix_ms, message.end_time)
    message.lock_keys.extend(record.lock_keys)
    for step in stored.steps:
        _write_step(step, message.steps.add())


def _write_step(step: StepRecord, message: workflow_pb2.WorkflowStep) -> None:
    message.name = step.name
    message.state = workflow_pb2.WorkflowStepState.ValueType(step.phase)
    message.attempts = step.attempts
    message.xid = "" if step.xid is None else str(step.xid)
    message.undo_xid = "" if step.undo_xid is None else str(step.undo_xid)
    message.reason = step.reason
    message.message = step.message
    message.has_compensation = bool(step.intention.compensation)
    message.pivot = step.intention.is_pivot
    message.read = step.intention.kind is StepKind.READ
    message.results = step.results
    _write_time(step.began_unix_ms, message.start_time)
    if step.ended_unix_ms:
        _write_time(step.ended_unix_ms, message.end_time)


def _write_failure(failure: Failure | None, message: workflow_pb2.WorkflowFailure) -> None:
    if failure is not None:
        message.code = failure.code
        message.message = failure.message
        message.step = failure.step
        # Present, even where all of it is empty.
        message.SetInParent()


def _write_time(unix_ms: int, stamp: Timestamp) -> None:
    stamp.FromMilliseconds(unix_ms)
