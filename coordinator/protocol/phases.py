"""The phases of a transaction, as data.

    ACTIVE ──▶ PREPARING ──▶ DECIDING ──▶ COMMITTING ──▶ COMMITTED
       └───────────┴────────────┴──────▶ ROLLING_BACK ─▶ ROLLED_BACK

There is no edge between COMMITTING and ROLLING_BACK. Attempts, deadlines and heuristic
results are fields of a transaction, never phases. ``docs/phases.md`` is drawn from ``EDGES``.

The phases have names in this module too: Python 3.11 takes as long to find a member in its enum's class
as to call a function, and every event of every transaction asks for several.
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


ACTIVE: Final = Phase.ACTIVE
PREPARING: Final = Phase.PREPARING
DECIDING: Final = Phase.DECIDING
COMMITTING: Final = Phase.COMMITTING
COMMITTED: Final = Phase.COMMITTED
ROLLING_BACK: Final = Phase.ROLLING_BACK
ROLLED_BACK: Final = Phase.ROLLED_BACK


class Cause(Enum):
    """Why a transaction moves from one phase to the next."""

    COMMIT_ASKED = "the client asks for commit"
    ALL_VOTED_YES = "every branch voted PREPARED or READ_ONLY"
    COMMIT_DURABLE = "the log holds COMMIT"
    COMMIT_REFUSED = "the log holds another outcome for the request"
    NO = "a vote of no, the deadline, or the client"
    ALL_ACKNOWLEDGED = "every branch told acknowledged durably"

    # A member is one object, so this is as good as the enum's own, which is written in Python.
    __hash__ = object.__hash__


EDGES: Final[dict[Phase, dict[Cause, Phase]]] = {
    ACTIVE: {Cause.COMMIT_ASKED: PREPARING, Cause.NO: ROLLING_BACK},
    PREPARING: {Cause.ALL_VOTED_YES: DECIDING, Cause.NO: ROLLING_BACK},
    DECIDING: {Cause.COMMIT_DURABLE: COMMITTING, Cause.COMMIT_REFUSED: ROLLING_BACK},
    COMMITTING: {Cause.ALL_ACKNOWLEDGED: COMMITTED},
    COMMITTED: {},
    ROLLING_BACK: {Cause.ALL_ACKNOWLEDGED: ROLLED_BACK},
    ROLLED_BACK: {},
}

FINISHED: Final = (COMMITTED, ROLLED_BACK)
