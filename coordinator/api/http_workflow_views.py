"""Workflows as JSON. What they were given and what they return are JSON texts, and go into the answer as they are."""

from __future__ import annotations

import json
from typing import Final

from coordinator.api.http_views import time_json
from coordinator.api.workflow_checks import WorkflowPage
from coordinator.json_text import list_text, object_text, result_text
from coordinator.log.workflow_log import StoredWorkflow
from coordinator.protocol.workflow_records import Failure, StepKind, StepRecord

_STUCK: Final = "STUCK"


def workflow_json(stored: StoredWorkflow) -> str:
    """One workflow. ``state`` is STUCK where it waits for an operator, else its phase."""
    record = stored.record
    return object_text(
        [
            ("workflow_id", json.dumps(str(record.workflow_id))),
            ("workflow_type", json.dumps(record.kind)),
            ("version", json.dumps(record.version)),
            ("state", json.dumps(_STUCK if record.stuck is not None else record.phase.name)),
            ("phase", json.dumps(record.phase.name)),
            ("stuck", _failure(record.stuck)),
            ("failure", _failure(record.failure)),
            ("result", result_text(record.result)),
            ("cancel_reason", json.dumps(record.cancelled or None)),
            ("request_id", json.dumps(record.request.name if record.request else None)),
            ("incarnation", json.dumps(record.incarnation)),
            ("began_at", time_json(record.workflow_id.unix_ms)),
            ("deadline", time_json(record.deadline_unix_ms)),
            ("ended_at", time_json(record.ended_unix_ms or None)),
            ("parameters", record.parameters),
            ("lock_keys", json.dumps(record.lock_keys)),
            ("steps", list_text(_step(step) for step in stored.steps)),
        ]
    )


def page_json(page: WorkflowPage) -> str:
    """A page of workflows."""
    return object_text(
        [
            ("workflows", list_text(workflow_json(stored) for stored in page.workflows)),
            ("next_page_token", json.dumps(page.next_token or None)),
        ]
    )


def _failure(failure: Failure | None) -> str:
    if failure is None:
        return "null"
    return json.dumps({"code": failure.code, "message": failure.message, "step": failure.step or None})


def _step(step: StepRecord) -> str:
    wanted = step.intention
    return object_text(
        [
            ("name", json.dumps(wanted.name)),
            ("state", json.dumps(step.phase.name)),
            ("attempts", json.dumps(step.attempts)),
            ("transaction_id", json.dumps(None if step.xid is None else str(step.xid))),
            ("undo_transaction_id", json.dumps(None if step.undo_xid is None else str(step.undo_xid))),
            ("reason", json.dumps(step.reason)),
            ("message", json.dumps(step.message)),
            ("has_compensation", json.dumps(bool(wanted.compensation))),
            ("pivot", json.dumps(wanted.is_pivot)),
            ("read", json.dumps(wanted.kind is StepKind.READ)),
            ("results", step.results or "null"),
            ("began_at", time_json(step.began_unix_ms)),
            ("ended_at", time_json(step.ended_unix_ms or None)),
        ]
    )
