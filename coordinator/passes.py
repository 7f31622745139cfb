"""What recovery tells of itself: passes, participants, and what needs an operator."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from coordinator.log.decision_log import Standing
from participant_sdk.breaker import BreakerState
from participant_sdk.ids import Xid


class Scope(Enum):
    """What a pass looks at."""

    GLOBAL = auto()
    TRANSACTION = auto()
    PARTICIPANT = auto()
    ORPHANS = auto()
    WORKFLOWS = auto()


@dataclass(frozen=True, slots=True)
class PassSettings:
    """How passes run. ``is_enabled``: by themselves too. ``within_s`` bounds one; ``retention_s`` is for pruning.

    What was told and is not acknowledged within ``acknowledged_within_s`` counts as failed; it goes on being told
    all the same.
    """

    is_enabled: bool = True
    interval_s: float = 30.0
    within_s: float = 120.0
    is_parallel: bool = True
    retention_s: float = 7 * 86_400.0
    acknowledged_within_s: float = 5.0


DEFAULT_PASSES: Final = PassSettings()


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass: transactions and branches that it looked at, and what became of them.

    ``ended_unix_ms`` is 0 while it runs. ``failed``: not reached, tried again later. ``in_doubt``: branches
    still in doubt afterwards. ``taken_over``: dead incarnations' decisions that were taken on; ``resumed``: their
    workflows that go on here.
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
    resumed: int = 0


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
    """Recovery at one look. ``next_unix_ms`` is 0 where none comes by itself; ``attention`` is oldest first.

    ``log_problem``: what the decision log refuses until somebody mends it; empty where nothing.
    """

    last: Pass | None
    current: Pass | None
    next_unix_ms: int
    standing: Standing | None
    participants: tuple[ParticipantStatus, ...]
    attention: tuple[Attention, ...]
    attention_count: int
    log_problem: str


@dataclass(frozen=True, slots=True)
class InDoubtAt:
    """How many branches are in doubt at a participant, and the age of the oldest now, 0 for none."""

    count: int
    oldest_ms: int
