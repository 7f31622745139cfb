"""What an operator is told to do next: plain sentences, with the command that does it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, DecisionState, Heuristic


def of_owed(xid: Xid, owed: Iterable[str]) -> str:
    """Of a decided transaction that some do not acknowledge, however often they are told."""
    return (
        f"The outcome is certain and nothing is lost, but {_names(owed)} does not acknowledge it: look into that "
        f"participant's log, and at `pincex recovery status`. Once it is well this finishes by itself; "
        f"`pincex tx retry {xid}` sends again at once."
    )


def of_in_doubt(xid: Xid, participant: str, state: DecisionState | None, *, held: bool = False) -> str:
    """Of a branch in doubt, by what the log says of its decision; None where it could not be read."""
    match state:
        case None:
            return (
                "The decision log could not be read, so nothing is known of the decision: see to the log first. "
                "The participant goes on asking by itself."
            )
        case DecisionState.COMMIT | DecisionState.ROLLBACK:
            return (
                f"{state.name} is decided: nothing is to be forced. "
                f"`pincex recovery trigger --participant {participant}` tells it now."
            )
        case DecisionState.PENDING if held:
            return (
                "The log is in HOLD, so nothing is presumed: end that first, with `pincex recovery release`. "
                f"Only where this branch cannot wait for it, {_force(xid, participant)}"
            )
        case DecisionState.PENDING:
            return "Its coordinator lives and has not decided yet, or others must report first: wait, and look again."
        case DecisionState.FORGOTTEN:
            return (
                "The log remembers nothing of it: find out what the transaction's other participants did, "
                f"then {_force(xid, participant)}"
            )
        case _:
            assert_never(state)


def of_heuristic(xid: Xid, heuristic: Heuristic | None) -> str:
    """Of a branch that was ended by hand."""
    how = "ended by hand" if heuristic is None else f"ended by hand as {heuristic.name}"
    return (
        f"It was {how}: compare what the transaction's other participants did, put right by business means what "
        f'differs, then `pincex tx forget {xid} --reason "..."`.'
    )


def of_preview(xid: Xid, participant: str, outcome: Decision) -> str:
    """Of a branch that may be forced, and has not been."""
    return (
        f"Nothing was changed. Forced, this branch ends as {outcome.name} at {participant} for good, whatever its "
        f"transaction's other participants did: to do so, send the same without preview for {xid}."
    )


def at_participant(xid: Xid, participant: str, log_id: str, outcome: Decision) -> str:
    """How to force a branch where no coordinator can tell what was decided."""
    request = f'{{"xid":"{xid}","log_id":"{log_id}","outcome":"DECISION_{outcome.name}","reason":"..."}}'
    return (
        f"where it cannot wait for the log, force it at {participant} itself: grpcurl -plaintext -d '{request}' "
        f"ADDRESS_OF_{participant.upper()} pincex.tx.v1.ResourceService/ResolveBranch"
    )


def look_at(xid: Xid, participant: str, log_id: str) -> str:
    """How to see what a participant holds."""
    request = f'{{"xid":"{xid}","log_id":"{log_id}"}}'
    return (
        f"look with grpcurl -plaintext -d '{request}' "
        f"ADDRESS_OF_{participant.upper()} pincex.tx.v1.ResourceService/GetBranch"
    )


def _force(xid: Xid, participant: str) -> str:
    return (
        f'`pincex tx resolve {xid} --participant {participant} --outcome commit|rollback --reason "..." --preview` '
        "shows what forcing it would touch."
    )


def _names(participants: Iterable[str]) -> str:
    return ", ".join(participants) or "nobody"
