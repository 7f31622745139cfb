"""Commands of recovery: status, trigger, in-doubt, hold, release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.commands.exits import ExitCode, confirm, fail
from coordinator.commands.options import ADDRESS_DEFAULT, Address, AsJson, Preview, Reason, Yes

if TYPE_CHECKING:
    from pincex.tx.v1 import recovery_pb2

    from coordinator.commands.operator_calls import OperatorCalls

# The client and what draws tables are imported where they are used: asking for help should not wait for them.
# ruff: noqa: PLC0415


def status(*, address: Address = ADDRESS_DEFAULT, as_json: AsJson = False) -> None:
    """Tell of HOLD, recovery's passes, participants, coordinators, and what needs an operator.

    Exit codes, of every command of recovery: 0 done, 2 refused or not confirmed (nothing was changed),
    3 no answer came and it may have been done, 4 nobody to be reached.
    """
    from coordinator.commands import recovery_outputs
    from coordinator.commands.operator_calls import ask_operator

    told = ask_operator(address, lambda calls: calls.status(), as_json=as_json)
    recovery_outputs.show_status(told, as_json=as_json)


def trigger(
    *,
    transaction: Annotated[str, typer.Option(help="Only this transaction.")] = "",
    participant: Annotated[str, typer.Option(help="Only this participant's branches.")] = "",
    orphans: Annotated[bool, typer.Option("--orphans", help="Only branches without a transaction.")] = False,
    workflows: Annotated[bool, typer.Option("--workflows", help="Only workflows that were left unfinished.")] = False,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Run a pass of recovery now, over everything or over one thing, and tell what it did."""
    from coordinator.commands import recovery_outputs
    from coordinator.commands.operator_calls import ask_operator

    if (transaction != "") + (participant != "") + orphans + workflows > 1:
        options = "--transaction, --participant, --orphans, --workflows"
        fail(f"one of {options}, or none", ExitCode.BAD_REQUEST, as_json=as_json)
    request = _pass_over(transaction, participant, orphans=orphans, workflows=workflows)
    with recovery_outputs.working("a pass of recovery runs", as_json=as_json):
        ran = ask_operator(address, lambda calls: calls.trigger(request), as_json=as_json)
    recovery_outputs.show_pass(ran, as_json=as_json)


def in_doubt(
    *,
    participant: Annotated[str, typer.Option(help="Only this participant's.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most this many.")] = 100,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """List branches in doubt, or ended by hand, with what is known of their decision."""
    from coordinator.commands import recovery_outputs
    from coordinator.commands.operator_calls import ask_operator

    found = ask_operator(address, lambda calls: calls.in_doubt(participant, limit), as_json=as_json)
    recovery_outputs.show_in_doubt(found, as_json=as_json)


def hold(
    *,
    reason: Reason,
    yes: Yes = False,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Put the decision log in HOLD: nothing new begins, and nothing is presumed, until it is released.

    For a log that was, or may have been, restored from an older copy. Every coordinator that lives ends
    (exit code 5) and has to be started again; `pincex recovery release` is the way out.
    """
    from coordinator.commands import recovery_outputs
    from coordinator.commands.operator_calls import ask_operator

    async def asked(calls: OperatorCalls) -> None:
        if not yes and not as_json:
            recovery_outputs.show_what_hold_stops(await calls.status())
        confirm("Put the log in HOLD?", yes=yes, as_json=as_json)
        recovery_outputs.show_held(await calls.hold(reason), as_json=as_json)

    ask_operator(address, asked, as_json=as_json)


def release(
    *,
    reason: Reason,
    preview: Preview = False,
    yes: Yes = False,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """End HOLD: poll every participant, put back into the log what they had committed, and go on.

    Refused unless every participant answers.
    """
    from coordinator.commands import recovery_outputs
    from coordinator.commands.operator_calls import ask_operator

    question = "Put these back into the log, presume the others rolled back, and end HOLD?"

    async def asked(calls: OperatorCalls) -> None:
        if preview or (not yes and not as_json):
            with recovery_outputs.working("every participant is asked", as_json=as_json):
                plan = await calls.release(reason, preview=True)
            recovery_outputs.show_plan(plan, preview=True, as_json=as_json)
        if preview:
            return
        confirm(question, yes=yes, as_json=as_json)
        with recovery_outputs.working("every participant is asked", as_json=as_json):
            done = await calls.release(reason, preview=False)
        recovery_outputs.show_plan(done, preview=False, as_json=as_json)

    ask_operator(address, asked, as_json=as_json)


def _pass_over(
    transaction: str, participant: str, *, orphans: bool, workflows: bool
) -> recovery_pb2.TriggerRecoveryRequest:
    from pincex.tx.v1 import recovery_pb2

    if transaction:
        scope = recovery_pb2.RECOVERY_SCOPE_TRANSACTION
    elif participant:
        scope = recovery_pb2.RECOVERY_SCOPE_PARTICIPANT
    elif workflows:
        scope = recovery_pb2.RECOVERY_SCOPE_WORKFLOWS
    else:
        scope = recovery_pb2.RECOVERY_SCOPE_ORPHANS if orphans else recovery_pb2.RECOVERY_SCOPE_GLOBAL
    return recovery_pb2.TriggerRecoveryRequest(scope=scope, xid=transaction, participant=participant)
