"""What a caller asks of the engine, and what it is shown: plain values between doors and engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final, NamedTuple

from coordinator.protocol.outcome import BranchOutcome, Outcome
from coordinator.protocol.phases import Phase
from participant_sdk.decisions import DecisionAnswer
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation

__all__ = [
    "TENANT_DEFAULT",
    "DecisionAnswer",
    "Ended",
    "Enlisted",
    "ExecuteCall",
    "StoryEvent",
    "TransactionView",
]

TENANT_DEFAULT = "default"

_SERVICE: Final = itemgetter(0)


class ExecuteCall(NamedTuple):
    """One transaction to run from begin to outcome.

    ``timeout_s`` is for reaching a decision. ``request_id`` is empty for none; with one, ``digest``
    is ``canonical.digest(operations)``. ``lock_keys`` are held alone before anything is sent to participants.
    """

    operations: tuple[Operation, ...]
    timeout_s: float
    tenant: str = TENANT_DEFAULT
    request_id: str = ""
    digest: bytes = b""
    wait_applied: bool = True
    lock_keys: tuple[str, ...] = ()

    @property
    def services(self) -> tuple[str, ...]:
        """Whom each operation is for."""
        return tuple(map(_SERVICE, self.operations))


class Ended(NamedTuple):
    """How a transaction ended, and how long that took from arrival to answer."""

    outcome: Outcome
    duration_s: float


@dataclass(frozen=True, slots=True)
class Enlisted:
    """A branch was added: its number within the transaction, from 1, and the time left."""

    branch_number: int
    remaining_s: float


class StoryEvent(NamedTuple):
    """One thing that happened to a transaction: a constant name and a sentence."""

    unix_ms: int
    event: str
    participant: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TransactionView:
    """Everything this coordinator knows of one transaction.

    ``outcome`` is None until one is certain. ``waiting_for`` is a sentence, empty when finished.
    """

    xid: Xid
    phase: Phase
    outcome: Outcome | None
    branches: tuple[BranchOutcome, ...]
    began_unix_ms: int
    deadline_unix_ms: int | None = None
    request_id: str = ""
    incarnation: int = 0
    sequence: int = 0
    waiting_for: str = ""
    events: tuple[StoryEvent, ...] = ()

    def without_events(self) -> TransactionView:
        """The same view, as lists and watchers get it."""
        return replace(self, events=())
