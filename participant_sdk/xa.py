"""The words of X/Open XA that both sides speak: decisions, votes, acknowledgements, codes.

Pure values without I/O. The coordinator's protocol core and the branch's phase table
import this module and ``ids``, and nothing else of the SDK.

Source: X/Open CAE Specification, Distributed Transaction Processing: The XA Specification
(C193, 1991), chapter 3.3 for the codes.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from typing import Final, NamedTuple


class Decision(IntEnum):
    """What was decided of a transaction, once. The numbers are the wire's and the log's."""

    COMMIT = 1
    ROLLBACK = 2


class VoteKind(IntEnum):
    """A participant's answer to Prepare. The numbers are the wire's and the branches table's."""

    PREPARED = 1
    READ_ONLY = 2
    ROLLED_BACK = 3


class AckKind(IntEnum):
    """A participant's answer to Commit, Rollback or Forget. The numbers are the wire's."""

    DONE = 1
    ALREADY_DONE = 2
    UNKNOWN_XID = 3
    RETRY = 4
    HEURISTIC_COMMIT = 5
    HEURISTIC_ROLLBACK = 6
    HEURISTIC_MIXED = 7
    HEURISTIC_HAZARD = 8


class Heuristic(IntEnum):
    """How a branch or a transaction ended against, or without, the decision. The numbers are the wire's."""

    COMMIT = 1
    ROLLBACK = 2
    MIXED = 3
    HAZARD = 4


class XaCode(IntEnum):
    """Return codes of XA, with XA's numbers."""

    OK = 0
    RDONLY = 3
    RETRY = 4
    HEURMIX = 5
    HEURRB = 6
    HEURCOM = 7
    HEURHAZ = 8
    RBROLLBACK = 100
    RBCOMMFAIL = 101
    RBDEADLOCK = 102
    RBINTEGRITY = 103
    RBOTHER = 104
    RBPROTO = 105
    RBTIMEOUT = 106
    RBTRANSIENT = 107
    XAER_RMERR = -3
    XAER_NOTA = -4
    XAER_INVAL = -5
    XAER_PROTO = -6
    XAER_RMFAIL = -7
    XAER_DUPID = -8
    XAER_OUTSIDE = -9


class DecisionState(Enum):
    """What is known of a decision. Only COMMIT and ROLLBACK end a doubt."""

    COMMIT = auto()
    ROLLBACK = auto()
    PENDING = auto()
    FORGOTTEN = auto()


class Vote(NamedTuple):
    """A vote with its reasons.

    A named tuple, because one is made for every branch of every transaction.
    ``field`` is a path from the branch down, such as ``operations[0].parameters.amount``;
    ``results`` holds one JSON text for each operation, or nothing.
    ``unsent`` is said by a coordinator's own link alone, of a Prepare that never left it.
    """

    kind: VoteKind
    xa_code: int = XaCode.OK
    reason: str = ""
    message: str = ""
    transient: bool = False
    field: str = ""
    results: tuple[str, ...] = ()
    unsent: bool = False

    @property
    def is_yes(self) -> bool:
        """PREPARED or READ_ONLY."""
        return self.kind is not VoteKind.ROLLED_BACK

    @property
    def is_business_no(self) -> bool:
        """A "no" that says something of the business, and so binds the request."""
        return self.kind is VoteKind.ROLLED_BACK and not self.transient


class Ack(NamedTuple):
    """An acknowledgement."""

    kind: AckKind
    xa_code: int = XaCode.OK
    message: str = ""


PREPARED: Final = Vote(VoteKind.PREPARED)
READ_ONLY: Final = Vote(VoteKind.READ_ONLY, XaCode.RDONLY)
DONE: Final = Ack(AckKind.DONE)
ALREADY_DONE: Final = Ack(AckKind.ALREADY_DONE)
UNKNOWN_XID: Final = Ack(AckKind.UNKNOWN_XID, XaCode.XAER_NOTA, "no such branch, and no marker of it")
RETRY: Final = Ack(AckKind.RETRY, XaCode.RETRY, "not now")
STALE: Final = Ack(AckKind.RETRY, XaCode.RETRY, "the coordinator speaks for an older epoch of the log")


def business_no(reason: str, message: str, *, field: str = "", xa_code: int = XaCode.RBROLLBACK) -> Vote:
    """Make the "no" that the business says, such as INSUFFICIENT_FUNDS. It binds the request."""
    return Vote(VoteKind.ROLLED_BACK, xa_code, reason, message, False, field)


def invalid(reason: str, message: str, field: str) -> Vote:
    """Make the "no" to parameters that are wrong in themselves; it names the field."""
    return Vote(VoteKind.ROLLED_BACK, XaCode.XAER_INVAL, reason, message, False, field)


def transient_no(reason: str, message: str, *, xa_code: int = XaCode.RBTRANSIENT) -> Vote:
    """Make the "no" that says nothing of the business: the same request may be sent again."""
    return Vote(VoteKind.ROLLED_BACK, xa_code, reason, message, True)
