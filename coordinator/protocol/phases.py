"""The phases of a transaction, as data.

    ACTIVE ──▶ PREPARING ──▶ DECIDING ──▶ COMMITTING ──▶ COMMITTED
       └───────────┴────────────┴──────▶ ROLLING_BACK ─▶ ROLLED_BACK

There is no edge between COMMITTING and ROLLING_BACK. Attempts, deadlines and heuristic
results are fields of a transaction, never phases. ``docs/phases.md`` is drawn from ``EDGES``.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final


class Phase(IntEnum):
    """Where a transaction stands. The numbers are the wire's."""

    ACTIVE = 1
    PREPARING = 2
    DECIDING = 3
    COMMITTING = 4
    COMMITTED = 5
    ROLLING_BACK = 6
    ROLLED_BACK = 7


class Cause(Enum):
    """Why a transaction moves from one phase to the next."""

    COMMIT_ASKED = "the client asks for commit"
    ALL_VOTED_YES = "every branch voted PREPARED or READ_ONLY"
    COMMIT_DURABLE = "the log holds COMMIT"
    COMMIT_REFUSED = "the log holds another outcome for the request"
    NO = "a vote of no, the deadline, or the client"
    ALL_ACKNOWLEDGED = "every branch told acknowledged durably"


EDGES: Final[dict[Phase, dict[Cause, Phase]]] = {
    Phase.ACTIVE: {Cause.COMMIT_ASKED: Phase.PREPARING, Cause.NO: Phase.ROLLING_BACK},
    Phase.PREPARING: {Cause.ALL_VOTED_YES: Phase.DECIDING, Cause.NO: Phase.ROLLING_BACK},
    Phase.DECIDING: {Cause.COMMIT_DURABLE: Phase.COMMITTING, Cause.COMMIT_REFUSED: Phase.ROLLING_BACK},
    Phase.COMMITTING: {Cause.ALL_ACKNOWLEDGED: Phase.COMMITTED},
    Phase.COMMITTED: {},
    Phase.ROLLING_BACK: {Cause.ALL_ACKNOWLEDGED: Phase.ROLLED_BACK},
    Phase.ROLLED_BACK: {},
}

FINISHED: Final = (Phase.COMMITTED, Phase.ROLLED_BACK)
