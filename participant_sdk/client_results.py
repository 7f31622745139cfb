"""What a client is told: the two certain endings of a transaction, and views of one.

The third ending, not knowing, is an exception (``client_errors.OutcomeUnknown``), so that
nobody takes it for one of these two.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from participant_sdk.ids import Xid
from participant_sdk.xa import DecisionState, Heuristic, Vote


class Wait(Enum):
    """When a client hears of the outcome. The numbers are the wire's."""

    # Every branch has acknowledged, or the coordinator's commit_timeout passed.
    APPLIED = 1
    # The decision is durable.
    DECIDED = 2


@dataclass(frozen=True, slots=True)
class BranchResult:
    """One participant's share of an outcome.

    ``vote`` is None where none came. ``done``: the branch is where the outcome wants it.
    """

    participant: str
    vote: Vote | None
    done: bool
    heuristic: Heuristic | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """COMMIT was decided: every effect is in place, or will be (``applied`` says which).

    ``replayed``: the answer was stored by an earlier attempt under the same request_id, whose
    xid it carries.
    """

    xid: Xid
    request_id: str = ""
    applied: bool = True
    branches: tuple[BranchResult, ...] = ()
    duration_s: float = 0.0
    replayed: bool = False
    heuristic: Heuristic | None = None

    @property
    def owed(self) -> tuple[str, ...]:
        """The participants that have not acknowledged yet."""
        return tuple(branch.participant for branch in self.branches if not branch.done)

    def results(self, participant: str) -> tuple[str, ...]:
        """What the participant's operations returned, one JSON text each; empty where it has none."""
        votes = (branch.vote for branch in self.branches if branch.participant == participant)
        return next((vote.results for vote in votes if vote is not None), ())


@dataclass(frozen=True, slots=True)
class RolledBack:
    """ROLLBACK was decided: nothing happened, for this ``reason``.

    ``retry``: the rollback binds nothing and says nothing of the business; the same work may be
    sent again. ``TransactionClient.execute`` sends it again itself and never returns one.
    """

    xid: Xid
    reason: str
    message: str = ""
    request_id: str = ""
    applied: bool = True
    branches: tuple[BranchResult, ...] = ()
    duration_s: float = 0.0
    replayed: bool = False
    retry: bool = False
    heuristic: Heuristic | None = None


Ending = Committed | RolledBack


@dataclass(frozen=True, slots=True)
class Enlisted:
    """A branch was added: what names it at its participant, and the seconds left to the deadline."""

    xid: Xid
    log_id: str
    participant: str
    branch_number: int
    remaining_s: float


@dataclass(frozen=True, slots=True)
class StoryEvent:
    """One thing that happened to a transaction: a constant name and a sentence."""

    time: datetime
    event: str
    participant: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TransactionState:
    """What a coordinator knows of one transaction. ``phase`` is the plain word, such as COMMITTED.

    ``ending`` is None until one is certain; ``waiting_for`` is a sentence, empty when finished.
    """

    xid: Xid
    phase: str
    ending: Ending | None
    branches: tuple[BranchResult, ...]
    began: datetime
    deadline: datetime | None = None
    request_id: str = ""
    incarnation: int = 0
    sequence: int = 0
    waiting_for: str = ""
    events: tuple[StoryEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class TransactionPage:
    """A page of transactions, newest first. ``next_token`` is empty on the last."""

    transactions: tuple[TransactionState, ...]
    next_token: str = ""


@dataclass(frozen=True, slots=True)
class KnownDecision:
    """What is known of a decision. Only COMMIT and ROLLBACK end a doubt."""

    state: DecisionState
    incarnation: int = 0
    sequence: int = 0
    owner_address: str = ""
    epoch: int = 0
