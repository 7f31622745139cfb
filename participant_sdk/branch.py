"""The phases of a branch at its participant, as data: deterministic, no I/O.

    NONE ──▶ ACTIVE ──▶ PREPARED ──▶ COMMITTED
      │         │           ├──────▶ ROLLED_BACK
      │         │           └──────▶ HEURISTIC ──▶ COMMITTED | ROLLED_BACK
      └─────────┴──────────────────▶ PREPARED | ROLLED_BACK

ROLLED_BACK is also the tombstone that a Rollback before its Prepare leaves, and the end of a
branch that voted READ_ONLY: nothing is kept of it but the vote, so that a second Prepare gets
the same answer (R10). Every resource follows ``TABLE``: the memory resource by running it, the
SQL resources by statements that the tests compare with it.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final, NamedTuple

from participant_sdk.xa import (
    ALREADY_DONE,
    DONE,
    RETRY,
    UNKNOWN_XID,
    Ack,
    AckKind,
    Decision,
    Heuristic,
    XaCode,
)


class BranchPhase(IntEnum):
    """Where a branch stands. The numbers are the wire's and the branches table's."""

    NONE = 0
    ACTIVE = 1
    PREPARED = 2
    COMMITTED = 3
    ROLLED_BACK = 4
    HEURISTIC = 5


class BranchCall(Enum):
    """What can happen to a branch.

    PREPARE is split by the vote that the business check gives when the work runs;
    where the table has no entry for a vote, the stored vote is the answer.
    """

    ENLIST = "work begins under the xid"
    VOTE_PREPARED = "Prepare, and the check says yes"
    VOTE_READ_ONLY = "Prepare, and nothing was changed"
    VOTE_ROLLED_BACK = "Prepare, and the check says no"
    COMMIT = "Commit"
    ROLLBACK = "Rollback"
    EXPIRE = "the deadline of unprepared work"
    RESOLVE_COMMIT = "an operator forces commit"
    RESOLVE_ROLLBACK = "an operator forces rollback"
    FORGET = "Forget"


class Transition(NamedTuple):
    """Where a call leads, and its answer. ``ack`` is None where the answer is a vote."""

    phase: BranchPhase
    ack: Ack | None = None


HAZARD: Final = Ack(AckKind.HEURISTIC_HAZARD, XaCode.HEURHAZ, "Commit of a branch that has no marker here")
COMMITTED_BY_HAND: Final = Ack(AckKind.HEURISTIC_COMMIT, XaCode.HEURCOM, "the branch is committed")
ROLLED_BACK_BY_HAND: Final = Ack(AckKind.HEURISTIC_ROLLBACK, XaCode.HEURRB, "the branch is rolled back")

_P = BranchPhase
_C = BranchCall

TABLE: Final[dict[tuple[BranchPhase, BranchCall], Transition]] = {
    (_P.NONE, _C.ENLIST): Transition(_P.ACTIVE),
    (_P.NONE, _C.VOTE_PREPARED): Transition(_P.PREPARED),
    (_P.NONE, _C.VOTE_READ_ONLY): Transition(_P.ROLLED_BACK),
    (_P.NONE, _C.VOTE_ROLLED_BACK): Transition(_P.ROLLED_BACK),
    # R11: no marker is never success.
    (_P.NONE, _C.COMMIT): Transition(_P.NONE, HAZARD),
    # R10: the tombstone.
    (_P.NONE, _C.ROLLBACK): Transition(_P.ROLLED_BACK, DONE),
    (_P.NONE, _C.EXPIRE): Transition(_P.NONE),
    (_P.NONE, _C.RESOLVE_COMMIT): Transition(_P.NONE, UNKNOWN_XID),
    (_P.NONE, _C.RESOLVE_ROLLBACK): Transition(_P.NONE, UNKNOWN_XID),
    (_P.NONE, _C.FORGET): Transition(_P.NONE, UNKNOWN_XID),
    (_P.ACTIVE, _C.ENLIST): Transition(_P.ACTIVE),
    (_P.ACTIVE, _C.VOTE_PREPARED): Transition(_P.PREPARED),
    (_P.ACTIVE, _C.VOTE_READ_ONLY): Transition(_P.ROLLED_BACK),
    (_P.ACTIVE, _C.VOTE_ROLLED_BACK): Transition(_P.ROLLED_BACK),
    (_P.ACTIVE, _C.COMMIT): Transition(_P.ACTIVE, HAZARD),
    (_P.ACTIVE, _C.ROLLBACK): Transition(_P.ROLLED_BACK, DONE),
    (_P.ACTIVE, _C.EXPIRE): Transition(_P.ROLLED_BACK),
    (_P.ACTIVE, _C.RESOLVE_COMMIT): Transition(_P.ACTIVE, RETRY),
    (_P.ACTIVE, _C.RESOLVE_ROLLBACK): Transition(_P.ACTIVE, RETRY),
    (_P.ACTIVE, _C.FORGET): Transition(_P.ACTIVE, RETRY),
    (_P.PREPARED, _C.COMMIT): Transition(_P.COMMITTED, DONE),
    (_P.PREPARED, _C.ROLLBACK): Transition(_P.ROLLED_BACK, DONE),
    # R12: what voted yes never decides alone.
    (_P.PREPARED, _C.EXPIRE): Transition(_P.PREPARED),
    (_P.PREPARED, _C.RESOLVE_COMMIT): Transition(_P.HEURISTIC, COMMITTED_BY_HAND),
    (_P.PREPARED, _C.RESOLVE_ROLLBACK): Transition(_P.HEURISTIC, ROLLED_BACK_BY_HAND),
    (_P.PREPARED, _C.FORGET): Transition(_P.PREPARED, RETRY),
    (_P.COMMITTED, _C.COMMIT): Transition(_P.COMMITTED, ALREADY_DONE),
    (_P.COMMITTED, _C.ROLLBACK): Transition(_P.COMMITTED, COMMITTED_BY_HAND),
    (_P.COMMITTED, _C.EXPIRE): Transition(_P.COMMITTED),
    (_P.COMMITTED, _C.RESOLVE_COMMIT): Transition(_P.COMMITTED, ALREADY_DONE),
    (_P.COMMITTED, _C.RESOLVE_ROLLBACK): Transition(_P.COMMITTED, COMMITTED_BY_HAND),
    (_P.COMMITTED, _C.FORGET): Transition(_P.COMMITTED, ALREADY_DONE),
    (_P.ROLLED_BACK, _C.COMMIT): Transition(_P.ROLLED_BACK, ROLLED_BACK_BY_HAND),
    (_P.ROLLED_BACK, _C.ROLLBACK): Transition(_P.ROLLED_BACK, ALREADY_DONE),
    (_P.ROLLED_BACK, _C.EXPIRE): Transition(_P.ROLLED_BACK),
    (_P.ROLLED_BACK, _C.RESOLVE_COMMIT): Transition(_P.ROLLED_BACK, ROLLED_BACK_BY_HAND),
    (_P.ROLLED_BACK, _C.RESOLVE_ROLLBACK): Transition(_P.ROLLED_BACK, ALREADY_DONE),
    (_P.ROLLED_BACK, _C.FORGET): Transition(_P.ROLLED_BACK, ALREADY_DONE),
}


def step(phase: BranchPhase, call: BranchCall, heuristic: Heuristic | None = None) -> Transition:
    """Look up what a call does to a branch: total over every phase and call.

    ``heuristic`` is how a HEURISTIC branch ended. Where the table has no entry the branch stays,
    and the answer is its stored vote.
    """
    if phase is BranchPhase.HEURISTIC:
        return _step_heuristic(call, heuristic)
    return TABLE.get((phase, call), Transition(phase))


def call_of(outcome: Decision) -> BranchCall:
    """The call by which an operator forces this outcome."""
    return BranchCall.RESOLVE_COMMIT if outcome is Decision.COMMIT else BranchCall.RESOLVE_ROLLBACK


def _step_heuristic(call: BranchCall, heuristic: Heuristic | None) -> Transition:
    """An operator's end stands, and is told to whoever asks, until it is forgotten (R12)."""
    committed = heuristic is Heuristic.COMMIT
    if call is BranchCall.FORGET:
        return Transition(BranchPhase.COMMITTED if committed else BranchPhase.ROLLED_BACK, DONE)
    if call in (BranchCall.COMMIT, BranchCall.ROLLBACK, BranchCall.RESOLVE_COMMIT, BranchCall.RESOLVE_ROLLBACK):
        return Transition(BranchPhase.HEURISTIC, COMMITTED_BY_HAND if committed else ROLLED_BACK_BY_HAND)
    return Transition(BranchPhase.HEURISTIC)
