"""The operator's hand: what is in doubt, driving it again, forcing one branch, forgetting (R12)."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.protocol.phases import Phase
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch
from participant_sdk.xa import Ack, Decision, DecisionState


@dataclass(frozen=True, slots=True)
class InDoubt:
    """A branch in doubt, or ended by hand, with what is known of its decision; ``state`` is None if unread."""

    participant: str
    branch: Branch
    state: DecisionState | None
    advice: str


@dataclass(frozen=True, slots=True)
class InDoubtPage:
    """Branches, and the token of the next page, empty on the last. ``unreachable`` ones' branches are missing."""

    branches: tuple[InDoubt, ...]
    next_token: str
    unreachable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forced:
    """A branch that was forced, or, for a preview (``ack`` is None), would be."""

    branch: Branch | None
    ack: Ack | None
    advice: str


class Resolution:
    """What operators ask about single transactions and branches."""

    async def list_in_doubt(self, participant: str, token: str, limit: int) -> InDoubtPage:
        """Branches in doubt, of one participant or (empty) of all, oldest first within each.

        InvalidRequestError names ``participant``, ``page_token`` or ``page_size`` (1 to 1,000).
        """
        raise NotImplementedError

    async def retry(self, xid: Xid) -> Phase:
        """Send a decided transaction's messages again, now, and tell its phase afterwards.

        UnknownTransactionError; WrongPhaseError (NOT_DECIDED); UnavailableError names another owner.
        """
        raise NotImplementedError

    async def resolve(self, xid: Xid, participant: str, outcome: Decision, reason: str, *, preview: bool) -> Forced:
        """Force one branch in doubt, where the log cannot decide it (R12).

        InvalidRequestError (``reason``, ``participant``), RefusedError (TRANSACTION_LIVE, ALREADY_FINISHED,
        DECISION_KNOWN, NOT_IN_DOUBT), UnavailableError (the log cannot be read, the participant did not answer).
        """
        raise NotImplementedError

    async def forget(self, xid: Xid, reason: str) -> tuple[str, ...]:
        """Drop a transaction's heuristic ends that were dealt with; returns the participants concerned.

        InvalidRequestError (``reason``), RefusedError NOT_HEURISTIC, UnavailableError (nothing was marked).
        """
        raise NotImplementedError
