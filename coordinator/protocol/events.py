"""What can happen to a transaction. Each is a value; ``Transaction.step`` takes one at a time.

Named tuples, because several are made for every transaction.
"""

from __future__ import annotations

from typing import NamedTuple

from coordinator.protocol.effects import StoredDecision
from participant_sdk.xa import Ack, Vote


class Enlist(NamedTuple):
    """A branch is added, or gets more work.

    ``carried`` operations travel in Prepare; ``embedded`` ones are about to be done under the
    xid by the participant itself. A branch has one kind or the other.
    """

    participant: str
    carried: int = 0
    embedded: int = 0


class SetRollbackOnly(NamedTuple):
    """The client leaves the transaction no end but rollback."""

    reason: str


class CommitAsked(NamedTuple):
    """The client asks for commit. ``wait_applied``: it hears when all is applied, else when decided."""

    wait_applied: bool = True


class RollbackAsked(NamedTuple):
    """Rollback is asked for: by the client, or, with another ``code``, because of what became of its locks."""

    reason: str
    code: str = "ROLLBACK_ASKED"


class Close(NamedTuple):
    """ROLLBACK is to be recorded of a transaction without branches.

    Of a request that its client gives up, whatever its operations were (R3); or of an xid that a
    participant asks about and that left no trace (R7).
    """

    reason: str
    message: str


class Voted(NamedTuple):
    """A participant's vote came, or was found never to come (a transient "no")."""

    participant: str
    vote: Vote


class Recorded(NamedTuple):
    """The log holds this transaction's decision durably.

    ``stored`` is set where the row says ROLLBACK instead of what was asked for: the request_id was already
    bound by another transaction, whose row ``stored`` is the answer; or the log refused the record's values
    (R17), and ``stored`` is this transaction's own row.
    """

    incarnation: int
    sequence: int
    stored: StoredDecision | None = None


class LookedUp(NamedTuple):
    """The log was asked what the request_id is bound to; None for nothing."""

    stored: StoredDecision | None


class Acknowledged(NamedTuple):
    """A participant acknowledged the outcome."""

    participant: str
    ack: Ack


class HeuristicRecorded(NamedTuple):
    """The log holds this participant's heuristic end durably. It may come again, and of one that nobody waits for."""

    participant: str


class Reachable(NamedTuple):
    """A link to this participant has come up: what it is owed is sent again."""

    participant: str


class Woken(NamedTuple):
    """The time asked for by ``Step.wake_at_s`` has come.

    ``blocked``: nobody whom the transaction owes its outcome can be sent anything.
    """

    blocked: bool = False


Event = (
    Enlist
    | SetRollbackOnly
    | CommitAsked
    | RollbackAsked
    | Close
    | Voted
    | Recorded
    | LookedUp
    | Acknowledged
    | HeuristicRecorded
    | Reachable
    | Woken
)
