"""Workflows and their steps as PostgreSQL's rows, and as the JSON that one statement takes many of."""

from __future__ import annotations

import json
from collections.abc import Sequence

from psycopg.rows import TupleRow

from coordinator.log.columns import storable
from coordinator.log.decision_log import OperatorAction
from coordinator.log.workflow_log import WorkflowChange
from coordinator.protocol.workflow_records import (
    Failure,
    Intention,
    StepKind,
    StepPhase,
    StepRecord,
    WorkflowPhase,
    WorkflowRecord,
)
from participant_sdk.ids import RequestId, Xid


def workflows_text(changes: Sequence[WorkflowChange]) -> str:
    """What changes of the workflows' own rows."""
    return json.dumps(
        [
            {
                "workflow_id": str(record.workflow_id),
                "phase": record.phase,
                "ended_unix_ms": record.ended_unix_ms,
                "failure": failure_text(record.failure),
                "stuck": failure_text(record.stuck),
                "cancelled": storable(record.cancelled),
                "result": storable(record.result),
            }
            for record in (change.record for change in changes)
        ]
    )


def steps_text(changes: Sequence[WorkflowChange]) -> str:
    """The rows of the steps that changed."""
    return json.dumps([_step_members(change.record.workflow_id, step) for change in changes for step in change.steps])


def actions_text(changes: Sequence[WorkflowChange]) -> str:
    """What operators did."""
    acted = [(change.record.workflow_id, change.action) for change in changes]
    return json.dumps([_action_members(key, action) for key, action in acted if action is not None])


def failure_text(failure: Failure | None) -> str | None:
    """A failure as its column; None for none."""
    if failure is None:
        return None
    return json.dumps([failure.code, storable(failure.message), failure.step])


def record_of(row: TupleRow) -> WorkflowRecord:
    """A row of ``workflows``, its columns in the order in which every statement reads them."""
    key, kind, version, parameters, tenant, request_id, digest, incarnation, deadline_unix_ms = row[:9]
    phase, ended_unix_ms, failure, stuck, cancelled, result, lock_keys = row[9:]
    return WorkflowRecord(
        key,
        kind,
        version,
        parameters,
        None if request_id is None else RequestId(tenant, request_id),
        digest,
        incarnation,
        deadline_unix_ms,
        WorkflowPhase(phase),
        ended_unix_ms,
        _failure(failure),
        _failure(stuck),
        cancelled,
        result,
        tuple(lock_keys),
    )


def step_of(row: TupleRow) -> StepRecord:
    """A row of ``workflow_steps``, without its workflow's id."""
    position, name, kind, digest, compensation, is_pivot, phase = row[:7]
    intention = Intention(name, StepKind(kind), digest, compensation, is_pivot)
    return StepRecord(position, intention, StepPhase(phase), *row[7:])


def _failure(text: str | None) -> Failure | None:
    return None if text is None else Failure(*json.loads(text))


def _step_members(workflow_id: Xid, step: StepRecord) -> dict[str, object]:
    wanted = step.intention
    return {
        "workflow_id": str(workflow_id),
        "position": step.position,
        "name": wanted.name,
        "kind": wanted.kind,
        "digest": wanted.digest.hex(),
        "compensation": wanted.compensation,
        "is_pivot": wanted.is_pivot,
        "phase": step.phase,
        "round": step.round,
        "undo_round": step.undo_round,
        "attempts": step.attempts,
        "xid": None if step.xid is None else str(step.xid),
        "undo_xid": None if step.undo_xid is None else str(step.undo_xid),
        "reason": storable(step.reason),
        "message": storable(step.message),
        "results": storable(step.results),
        "began_unix_ms": step.began_unix_ms,
        "ended_unix_ms": step.ended_unix_ms,
    }


def _action_members(workflow_id: Xid, action: OperatorAction) -> dict[str, str]:
    return {
        "workflow_id": str(workflow_id),
        "action": action.action,
        "participant": action.participant,
        "detail": storable(action.detail),
        "reason": storable(action.reason),
    }
