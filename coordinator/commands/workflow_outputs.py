"""What the commands of workflows print: JSON as HTTP spells it, or tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import typer
from pincex.tx.v1 import workflow_pb2
from rich.console import Console
from rich.table import Column, Table

from coordinator.commands.outputs import wide_enough
from coordinator.commands.recovery_json import Members, time_text, word
from coordinator.json_text import list_text, object_text, result_text

_COLOURS: Final = {"COMPLETED": "green", "COMPENSATED": "red", "STUCK": "bold red"}


def show_workflow(told: workflow_pb2.Workflow, *, as_json: bool) -> None:
    """Print one workflow."""
    if as_json:
        typer.echo(workflow_json(told))
        return
    console = Console()
    state = state_of(told)
    colour = _COLOURS.get(state, "yellow")
    console.print(
        f"[{colour}]{state}[/{colour}]  [bold]{told.workflow_id}[/bold]  {told.workflow_type}", soft_wrap=True
    )
    for name, has in (("stuck", told.HasField("stuck")), ("failure", told.HasField("failure"))):
        if has:
            failure: workflow_pb2.WorkflowFailure = getattr(told, name)
            at = f" (step {failure.step})" if failure.step else ""
            console.print(f"{name}: {failure.code}: {failure.message}{at}", markup=False, soft_wrap=True)
    if told.result:
        console.print(told.result, markup=False, soft_wrap=True)
    steps = Table("step", "state", "attempts", "transaction", "undone by", "what was wrong")
    for step in told.steps:
        steps.add_row(
            step.name + (" (pivot)" if step.pivot else ""),
            word(workflow_pb2.WorkflowStepState.Name(step.state), "WORKFLOW_STEP_STATE_"),
            str(step.attempts) if step.attempts else "",
            step.xid,
            step.undo_xid,
            f"{step.reason} {step.message}".strip(),
        )
    wide_enough(steps).print(steps)


def show_workflows(told: Sequence[workflow_pb2.Workflow], *, as_json: bool) -> None:
    """Print a list of workflows."""
    if as_json:
        typer.echo(list_text(workflow_json(each) for each in told))
        return
    whole = [Column(name, no_wrap=True) for name in ("workflow", "type", "began", "state")]
    table = Table(*whole, "steps", "why")
    for each in told:
        failure = each.stuck if each.HasField("stuck") else each.failure
        why = f"{failure.code} {failure.step}".strip()
        began = time_text(each.start_time) or ""
        table.add_row(each.workflow_id, each.workflow_type, began, state_of(each), str(len(each.steps)), why)
    wide_enough(table).print(table)


def state_of(told: workflow_pb2.Workflow) -> str:
    """The state as people read it."""
    return "STUCK" if told.HasField("stuck") else _phase(told)


def workflow_json(told: workflow_pb2.Workflow) -> str:
    """A workflow as HTTP spells it."""
    failures: Members = {
        "stuck": _failure(told.stuck) if told.HasField("stuck") else None,
        "failure": _failure(told.failure) if told.HasField("failure") else None,
    }
    plain: Members = {
        "workflow_id": told.workflow_id,
        "workflow_type": told.workflow_type,
        "version": told.version,
        "state": state_of(told),
        "phase": _phase(told),
        **failures,
        "cancel_reason": told.cancel_reason or None,
        "request_id": told.request_id or None,
        "incarnation": told.incarnation,
        "began_at": time_text(told.start_time),
        "deadline": time_text(told.deadline),
        "ended_at": time_text(told.end_time),
    }
    return object_text(
        [
            *((key, json.dumps(value)) for key, value in plain.items()),
            ("result", result_text(told.result)),
            ("parameters", told.parameters),
            ("lock_keys", json.dumps(list(told.lock_keys))),
            ("steps", list_text(_step(step) for step in told.steps)),
        ]
    )


def _phase(told: workflow_pb2.Workflow) -> str:
    return word(workflow_pb2.WorkflowState.Name(told.state), "WORKFLOW_STATE_")


def _failure(failure: workflow_pb2.WorkflowFailure) -> Members:
    return {"code": failure.code, "message": failure.message, "step": failure.step or None}


def _step(step: workflow_pb2.WorkflowStep) -> str:
    plain: Members = {
        "name": step.name,
        "state": word(workflow_pb2.WorkflowStepState.Name(step.state), "WORKFLOW_STEP_STATE_"),
        "attempts": step.attempts,
        "transaction_id": step.xid or None,
        "undo_transaction_id": step.undo_xid or None,
        "reason": step.reason,
        "message": step.message,
        "has_compensation": step.has_compensation,
        "pivot": step.pivot,
        "read": step.read,
        "began_at": time_text(step.start_time),
        "ended_at": time_text(step.end_time),
    }
    return object_text(
        [*((key, json.dumps(value)) for key, value in plain.items()), ("results", step.results or "null")]
    )
