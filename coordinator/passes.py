"""Recovery passes: what runs at start, every ``recovery_interval``, and on request.

A pass looks for what nobody drives by itself and brings it on. It decides nothing: it sends again
what was decided, and asks the log about the rest (R7). So a second pass changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from coordinator.log.decision_log import Standing
from participant_sdk.ids import Xid

if TYPE_CHECKING:
    from participant_sdk.breaker import BreakerState

ATTENTION_SHOWN_MAX = 100


class Scope(Enum):
    """What a pass looks at."""

    GLOBAL = auto()
    TRANSACTION = auto()
    PARTICIPANT = auto()
    ORPHANS = auto()


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass: transactions and branches that it looked at, and what became of them.

    ``ended_unix_ms`` is 0 while it runs. ``failed``: not reached, tried again later. ``in_doubt``: branches
    still in doubt afterwards. ``taken_over``: dead incarnations' decisions that were taken on.
    """

    scope: Scope
    began_unix_ms: int
    ended_unix_ms: int = 0
    scanned: int = 0
    resolved: int = 0
    failed: int = 0
    in_doubt: int = 0
    taken_over: int = 0
    unreachable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParticipantStatus:
    """What recovery knows of one participant. ``owed``: decided transactions that it has not acknowledged.

    ``in_doubt`` and ``oldest_in_doubt_ms`` are what the last sweep found there.
    """

    participant: str
    is_up: bool
    reason: str
    owed: int
    in_doubt: int
    oldest_in_doubt_ms: int
    breaker: BreakerState
    reported: bool


@dataclass(frozen=True, slots=True)
class Attention:
    """A decided transaction that is not finished after many attempts: who owes, and what to do next."""

    xid: Xid
    participants: tuple[str, ...]
    attempts: int
    decided_unix_ms: int
    advice: str


@dataclass(frozen=True, slots=True)
class RecoveryStatus:
    """Recovery at one look. ``next_unix_ms`` is 0 where none comes by itself; ``attention`` is oldest first."""

    last: Pass | None
    current: Pass | None
    next_unix_ms: int
    standing: Standing | None
    participants: tuple[ParticipantStatus, ...]
    attention: tuple[Attention, ...]
    attention_count: int


class RecoveryPasses:
    """Runs passes, one at a time. ``run`` must run for those that come by themselves."""

    async def trigger(self, scope: Scope, *, xid: Xid | None = None, participant: str = "") -> Pass:
        """Run a pass now, after one that runs already, and tell what it did.

        InvalidRequestError (``xid`` or ``participant`` missing or unknown to the configuration),
        UnknownTransactionError, UnavailableError (the log cannot be read, or another coordinator owns the
        transaction: it is named), RefusedError PASS_RUNNING (too many wait already).
        """
        raise NotImplementedError

    def status(self) -> RecoveryStatus:
        """One look at everything."""
        raise NotImplementedError

    async def run(self) -> None:
        """Run passes at start and every interval, until cancelled."""
        raise NotImplementedError
