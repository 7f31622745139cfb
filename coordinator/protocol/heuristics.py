"""How heuristic ends of branches add up to a transaction's (X/Open XA, section 3.3 and 7.3).

A transaction's heuristic is a function of the *set* of its branches' ends, ordinary ones
included: all committed is COMMIT, all rolled back ROLLBACK, both MIXED, and any unknown
HAZARD unless it is MIXED already.
"""

from __future__ import annotations

from collections.abc import Iterable

from participant_sdk.xa import AckKind, Decision, Heuristic, XaCode

_OF_ACK = {
    AckKind.HEURISTIC_COMMIT: Heuristic.COMMIT,
    AckKind.HEURISTIC_ROLLBACK: Heuristic.ROLLBACK,
    AckKind.HEURISTIC_MIXED: Heuristic.MIXED,
    AckKind.HEURISTIC_HAZARD: Heuristic.HAZARD,
}

XA_CODE_OF = {
    Heuristic.COMMIT: XaCode.HEURCOM,
    Heuristic.ROLLBACK: XaCode.HEURRB,
    Heuristic.MIXED: XaCode.HEURMIX,
    Heuristic.HAZARD: XaCode.HEURHAZ,
}


def of_ack(kind: AckKind, decision: Decision) -> Heuristic | None:
    """The heuristic end that an acknowledgement tells of; None for an ordinary one.

    Commit of a branch that the participant does not know is a hazard (R11); Rollback of one
    is what was wanted.
    """
    if kind is AckKind.UNKNOWN_XID and decision is Decision.COMMIT:
        return Heuristic.HAZARD
    return _OF_ACK.get(kind)


def merge(decision: Decision, ends: Iterable[Heuristic | None]) -> Heuristic | None:
    """Add up the branches' ends; None stands for an ordinary end, as decided. None when all are ordinary."""
    ends = list(ends)
    if ends.count(None) == len(ends):
        return None
    ordinary = Heuristic.COMMIT if decision is Decision.COMMIT else Heuristic.ROLLBACK
    seen = {ordinary if end is None else end for end in ends}
    if Heuristic.MIXED in seen or {Heuristic.COMMIT, Heuristic.ROLLBACK} <= seen:
        return Heuristic.MIXED
    if Heuristic.HAZARD in seen:
        return Heuristic.HAZARD
    return seen.pop()
