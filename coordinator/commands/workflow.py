"""Commands of workflows: run, list, show, cancel, retry, skip."""

from __future__ import annotations

import secrets
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from coordinator.commands.exits import ExitCode, confirm, fail
from coordinator.commands.options import ADDRESS_DEFAULT, Address, AsJson, Reason, Yes

# The client and what draws tables are imported where they are used: asking for help should not wait for them.
# ruff: noqa: PLC0415

WorkflowId = Annotated[str, typer.Argument(help="The workflow, as run printed it.")]
_PREFIX: Final = "WORKFLOW_STATE_"


class StateWord(StrEnum):
    """Where a workflow stands."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    STUCK = "stuck"


def run(
    workflow_type: Annotated[str, typer.Argument(help="What the workflow is called.")],
    *,
    parameters: Annotated[str, typer.Option("--parameters", "-p", help="A JSON object; @file reads one, - stdin.")],
    request_id: Annotated[str, typer.Option(help="The name of this intent: sent again, it runs once.")] = "",
    timeout: Annotated[float, typer.Option(min=0, help="Seconds for all of it; 0 leaves it to the coordinator.")] = 0,
    lock_key: Annotated[
        list[str] | None, typer.Option("--lock-key", help="A key to hold alone while it runs; may be given again.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return as soon as it has begun, durably.")] = False,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Run a workflow, and print how it ended.

    Exit codes: 0 completed (or begun, with --no-wait), 1 compensated, 2 bad usage or request, 3 it goes on, or waits
    for an operator, 4 nobody to be reached.
    """
    from pincex.tx.v1 import workflow_pb2

    from coordinator.commands.workflow_calls import WorkflowCalls, ask_workflows
    from coordinator.commands.workflow_outputs import show_workflow

    try:
        text = _text_of(parameters)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--parameters: {error}", ExitCode.BAD_REQUEST, as_json=as_json)
    # So that a reply that is lost on the way can be asked for at another coordinator.
    name = request_id or f"cli-{secrets.token_hex(16)}"
    request = workflow_pb2.RunWorkflowRequest(
        workflow_type=workflow_type, parameters=text, request_id=name, no_wait=True, lock_keys=lock_key or ()
    )
    if timeout:
        request.timeout.FromNanoseconds(round(timeout * 1_000_000_000))

    async def asked(calls: WorkflowCalls) -> workflow_pb2.Workflow:
        begun = await calls.run(request)
        left_s = begun.deadline.ToMilliseconds() / 1000 - begun.start_time.ToMilliseconds() / 1000
        return begun if no_wait else await calls.ended(begun.workflow_id, left_s)

    told = ask_workflows(address, asked, as_json=as_json)
    show_workflow(told, as_json=as_json)
    raise typer.Exit(ExitCode.DONE if no_wait else _exit_code(told))


def show(workflow_id: WorkflowId, *, address: Address = ADDRESS_DEFAULT, as_json: AsJson = False) -> None:
    """Show one workflow with its steps."""
    from coordinator.commands.workflow_calls import ask_workflows
    from coordinator.commands.workflow_outputs import show_workflow

    show_workflow(ask_workflows(address, lambda calls: calls.show(workflow_id), as_json=as_json), as_json=as_json)


def list_(
    *,
    state: Annotated[StateWord | None, typer.Option(help="Only those that stand there.")] = None,
    workflow_type: Annotated[str, typer.Option("--type", help="Only those of this type.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many.")] = 20,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List workflows, newest first."""
    from pincex.tx.v1 import workflow_pb2

    from coordinator.commands.workflow_calls import ask_workflows
    from coordinator.commands.workflow_outputs import show_workflows

    request = workflow_pb2.ListWorkflowsRequest(workflow_type=workflow_type, stuck=state is StateWord.STUCK)
    if state is not None and state is not StateWord.STUCK:
        request.state = workflow_pb2.WorkflowState.Value(f"{_PREFIX}{state.name}")
    show_workflows(ask_workflows(address, lambda calls: calls.list(request, limit), as_json=as_json), as_json=as_json)


def cancel(
    workflow_id: WorkflowId,
    *,
    reason: Reason,
    yes: Yes = False,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Have a workflow undone: what its steps did is compensated, in reverse. Refused once it is past its pivot.

    Exit codes, of cancel, retry and skip: 0 done, 2 refused or not confirmed, 3 no answer came, 4 nobody to be reached.
    """
    from coordinator.commands.workflow_calls import ask_workflows
    from coordinator.commands.workflow_outputs import show_workflow

    confirm(f"Undo what workflow {workflow_id} has done?", yes=yes, as_json=as_json)
    told = ask_workflows(address, lambda calls: calls.cancel(workflow_id, reason), as_json=as_json)
    show_workflow(told, as_json=as_json)


def retry(
    workflow_id: WorkflowId, *, reason: Reason, address: Address = ADDRESS_DEFAULT, as_json: AsJson = False
) -> None:
    """Try again, now, what a workflow waits for; a step that was refused is asked again."""
    from coordinator.commands.workflow_calls import ask_workflows
    from coordinator.commands.workflow_outputs import show_workflow

    told = ask_workflows(address, lambda calls: calls.retry(workflow_id, reason), as_json=as_json)
    show_workflow(told, as_json=as_json)


def skip(
    workflow_id: WorkflowId,
    *,
    step: Annotated[str, typer.Option(help="The step that the workflow waits for.")],
    reason: Reason,
    yes: Yes = False,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Let a step count as done though it is not; where the workflow is being undone, let the step's effect stay."""
    from coordinator.commands.workflow_calls import ask_workflows
    from coordinator.commands.workflow_outputs import show_workflow

    confirm(
        f"Is step {step!r} dealt with by hand, and may workflow {workflow_id} go on without it?",
        yes=yes,
        as_json=as_json,
    )
    told = ask_workflows(address, lambda calls: calls.skip(workflow_id, step, reason), as_json=as_json)
    show_workflow(told, as_json=as_json)


def _exit_code(told: object) -> ExitCode:
    from pincex.tx.v1 import workflow_pb2

    match told:
        case workflow_pb2.Workflow(state=workflow_pb2.WORKFLOW_STATE_COMPLETED):
            return ExitCode.DONE
        case workflow_pb2.Workflow(state=workflow_pb2.WORKFLOW_STATE_COMPENSATED):
            return ExitCode.ROLLED_BACK
        case _:
            return ExitCode.OUTCOME_UNKNOWN


def _text_of(written: str) -> str:
    if written == "-":
        return sys.stdin.read()
    return Path(written[1:]).read_text(encoding="utf-8") if written.startswith("@") else written
