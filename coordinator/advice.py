"""What an operator is told to do next: plain sentences, with the command that does it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from coordinator.log.decision_log import Standing
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, DecisionState, Heuristic


def of_owed(xid: Xid, owed: Iterable[str]) -> str:
    """Of a decided transaction that some do not acknowledge, however often they are told."""
    return (
        f"The outcome is certain and nothing is lost, but {_names(owed)} does not acknowledge it: look into that "
        f"participant's log, and at `pincex recovery status`. Once it is well this finishes by itself; "
        f"`pincex tx retry {xid}` sends again at once."
    )


def of_in_doubt(xid: Xid, participant: str, state: DecisionState | None, standing: Standing | None = None) -> str:
    """Of a branch in doubt, by what the log says of its decision; None where it could not be read.

    ``standing``: how the log stood when this coordinator looked last; None if it has not looked.
    """
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
        case DecisionState.PENDING if standing is not None and standing.is_held:
            return (
                "The log is in HOLD, so nothing is presumed: end that first, with `pincex recovery release`. "
                f"Only where this branch cannot wait for it, {_force(xid, participant)}"
            )
        case DecisionState.PENDING:
            return f"{_of_pending(xid, standing)} Wait, and look again."
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


def _of_pending(xid: Xid, standing: Standing | None) -> str:
    """Who is to decide it, as far as that is known: one that died lives on in the log until it is fenced (R6)."""
    if standing is None:
        return "It is not decided, and who lives has not been looked up yet."
    owner = next((live for live in standing.live if live.number == xid.incarnation), None)
    who = f"incarnation {xid.incarnation}"
    if owner is None and xid.incarnation > max((live.number for live in standing.live), default=0):
        return f"No coordinator that is known here is {who}: it began a moment ago, or nobody gave out this xid."
    if owner is None:
        return (
            f"Its coordinator, {who}, has ended; what that left undecided is presumed rolled back once every "
            "participant has reported (`pincex recovery status`)."
        )
    if owner.lease_left_s < 0:
        return (
            f"Its coordinator, {who} at {owner.address}, is dead or cut off from the log: its lease expired "
            f"{-owner.lease_left_s:.0f} s ago. Another coordinator fences it within seconds, and then this is decided."
        )
    return (
        f"Its coordinator, {who} at {owner.address}, has not decided yet, and has a lease for another "
        f"{owner.lease_left_s:.0f} s."
    )


def _force(xid: Xid, participant: str) -> str:
    return (
        f'`pincex tx resolve {xid} --participant {participant} --outcome commit|rollback --reason "..." --preview` '
        "shows what forcing it would touch."
    )


def _names(participants: Iterable[str]) -> str:
    return ", ".join(participants) or "nobody"
