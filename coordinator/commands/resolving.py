"""The operator's hand on one transaction: tx retry, tx resolve, tx forget, tx rollback."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from coordinator.commands.exits import ExitCode, confirm, fail
from coordinator.commands.options import ADDRESS_DEFAULT, Address, AsJson, Preview, Reason, TransactionId, Yes

if TYPE_CHECKING:
    from coordinator.commands.operator_calls import OperatorCalls

# The client and what draws tables are imported where they are used: asking for help should not wait for them.
# ruff: noqa: PLC0415


class OutcomeWord(StrEnum):
    """What a branch can be forced to."""

    COMMIT = "commit"
    ROLLBACK = "rollback"


def retry(transaction_id: TransactionId, *, address: Address = ADDRESS_DEFAULT, as_json: AsJson = False) -> None:
    """Send a decided transaction's messages again, now, to the participants that have not acknowledged.

    Exit codes: 0 sent, 2 refused, 3 no answer came, 4 nobody to be reached.
    """
    from coordinator.commands import recovery_outputs
    from coordinator.commands.operator_calls import ask_operator

    phase = ask_operator(address, lambda calls: calls.retry(transaction_id), as_json=as_json)
    recovery_outputs.show_retried(transaction_id, phase, as_json=as_json)


def rollback(
    transaction_id: TransactionId,
    *,
    reason: Annotated[str, typer.Option(help="Why; told to whoever waits for it.")] = "an operator asked for rollback",
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Undo a transaction that is not being decided yet; one that is past that tells how it ended.

    Exit codes: 0 it is rolled back, 2 refused, or it is committed, 3 no answer came, 4 nobody to be reached.
    """
    from coordinator.commands.operator_calls import ask_operator
    from coordinator.commands.outputs import show_ending

    ending = ask_operator(address, lambda calls: calls.rollback(transaction_id, reason), as_json=as_json)
    shown = show_ending(ending, as_json=as_json)
    raise typer.Exit(ExitCode.DONE if shown is ExitCode.ROLLED_BACK else ExitCode.BAD_REQUEST)


def resolve(
    transaction_id: TransactionId,
    *,
    participant: Annotated[str, typer.Option(help="The participant whose branch is forced.")],
    outcome: Annotated[OutcomeWord, typer.Option(help="What to force.")],
    reason: Reason,
    preview: Preview = False,
    yes: Yes = False,
    at: Annotated[
        str, typer.Option(help="Force it at the participant itself, host:port, when no coordinator can be had.")
    ] = "",
    log_id: Annotated[str, typer.Option(help="With --at: the decision log's id, 16 hexadecimal digits.")] = "",
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Force one branch in doubt: a heuristic end, which stays shown until it is forgotten.

    Refused where a decision is known, or may still come: `pincex tx retry` sends a known one again.

    Exit codes: 0 forced, 2 refused or not confirmed, 3 no answer came and it may be forced, 4 nobody to be reached.
    """
    from coordinator.commands import recovery_outputs
    from coordinator.commands.operator_calls import ask_operator
    from participant_sdk.xa import Decision

    wanted = Decision[outcome.name]
    if at:
        from coordinator.commands.at_participant import Forcing, force

        if not log_id:
            fail(
                "--at needs --log-id: it stands in a coordinator's log (`Coordinator started`), in the table "
                "txlog.log, and in the name of every prepared transaction",
                ExitCode.BAD_REQUEST,
                as_json=as_json,
            )
        forcing = Forcing(at, log_id, transaction_id, participant, wanted, reason)
        force(forcing, address, preview=preview, yes=yes, as_json=as_json)
        return

    async def asked(calls: OperatorCalls) -> None:
        if preview or (not yes and not as_json):
            shown = await calls.resolve(transaction_id, participant, wanted, reason, preview=True)
            recovery_outputs.show_forced(shown, participant, as_json=as_json)
        if preview:
            return
        confirm(f"Force {wanted.name} on the branch of {participant}?", yes=yes, as_json=as_json)
        forced = await calls.resolve(transaction_id, participant, wanted, reason, preview=False)
        recovery_outputs.show_forced(forced, participant, as_json=as_json)

    ask_operator(address, asked, as_json=as_json)


def forget(
    transaction_id: TransactionId,
    *,
    reason: Reason,
    yes: Yes = False,
    address: Address = ADDRESS_DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Drop a heuristic end that was dealt with. What it was stays in the record, with the reason.

    Exit codes: 0 forgotten, 2 refused or not confirmed, 3 no answer came, 4 nobody to be reached.
    """
    from coordinator.commands import recovery_outputs
    from coordinator.commands.operator_calls import ask_operator

    async def asked(calls: OperatorCalls) -> None:
        if not yes and not as_json:
            recovery_outputs.show_in_doubt(await calls.in_doubt_of(transaction_id), as_json=False)
        confirm("Is this put right everywhere, and may its heuristic end be forgotten?", yes=yes, as_json=as_json)
        participants = await calls.forget(transaction_id, reason)
        recovery_outputs.show_forgotten(transaction_id, participants, as_json=as_json)

    ask_operator(address, asked, as_json=as_json)
