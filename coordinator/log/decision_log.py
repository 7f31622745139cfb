"""The decision log: the only truth about outcomes.

``DecisionLog`` is the seam between memory (simulation, tests) and PostgreSQL (everything
else); both pass ``tests/contract/test_decision_log.py``. A log does single statements and
tells exactly what it knows; sequences, retries and settling of unknown writes belong to
``group_commit``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, Protocol

from coordinator.protocol.effects import DecisionRecord, HeuristicRecord, StoredDecision
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision

# How long to wait before a statement that failed is tried again: doubling from the first to the cap.
BACKOFF_FIRST_S: Final = 0.01
BACKOFF_CAP_S: Final = 1.0


class LogUnavailableError(Exception):
    """The log cannot be reached, and the statement certainly did nothing."""


class LogUncertainError(Exception):
    """The statement may or may not have happened, now or a little later. Only writing again settles it (R5)."""


class BadRecordError(Exception):
    """The database refused a value of the batch, and the whole statement did nothing (R17)."""


class AppendStatus(Enum):
    """What became of an append (R4)."""

    WRITTEN = auto()
    # The incarnation is fenced: stop at once.
    FENCED = auto()
    # The server is on another timeline than the incarnation: stop at once.
    TIMELINE_CHANGED = auto()
    # The log is in HOLD, and the batch was not empty.
    HELD = auto()
    # The sequence stands higher than expected: an earlier write of ours arrived after all (R5).
    SEQUENCE_AHEAD = auto()
    # The sequence stands lower, or the row is missing: the log lost its tail (R15).
    SEQUENCE_BEHIND = auto()


@dataclass(frozen=True, slots=True)
class Appended:
    """The answer to an append.

    ``last_sequence`` is the incarnation's sequence afterwards. With WRITTEN, ``conflicts`` are the
    records that were not inserted because their request_id is bound already; their sequence
    numbers stay unused.
    """

    status: AppendStatus
    last_sequence: int
    conflicts: frozenset[Xid] = frozenset()


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One life of one coordinator process on one timeline of the log."""

    log_id: str
    number: int
    coordinator: str
    address: str
    epoch: int
    timeline: int
    lease_s: float


@dataclass(frozen=True, slots=True)
class IncarnationState:
    """What the log knows of an incarnation. ``fenced`` is the opposite of live (R6)."""

    number: int
    coordinator: str
    address: str
    fenced: bool
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Answers about xids, and all they must be judged by, read in one snapshot on the primary (R7).

    ``incarnations`` holds the state of each xid's incarnation that the log knows.
    ``pruned_below_unix_ms``: xids older than it may have been forgotten. ``held``: HOLD (R15).
    """

    decisions: Mapping[Xid, StoredDecision]
    incarnations: Mapping[int, IncarnationState]
    pruned_below_unix_ms: int
    held: bool


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far one incarnation's decisions are finished (R14).

    Every decision with a sequence up to ``finished_through`` is finished, but for ``stragglers``.
    Written lazily: a lost checkpoint only means that finished transactions are driven again.
    """

    incarnation: int
    finished_through: int
    stragglers: frozenset[Xid] = field(default_factory=frozenset[Xid])


class DecisionLog(Protocol):
    """One log's statements. Every call may raise LogUnavailableError; writes also LogUncertainError."""

    async def open(self, coordinator: str, address: str, lease_s: float) -> Incarnation:
        """Draw a new incarnation: greatest(last + 1, Unix seconds by the log's clock)."""
        ...

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord]
    ) -> Appended:
        """Renew the lease, advance the sequence and insert the records, in one autocommit statement (R4).

        Record ``i`` gets ``expected_sequence + 1 + i``. An empty batch only renews. BadRecordError
        when a value is refused.
        """
        ...

    async def read(self, xids: Sequence[Xid]) -> Snapshot:
        """Read decisions of xids, with fence, horizon and HOLD, in one snapshot (R7)."""
        ...

    async def read_requests(self, requests: Sequence[RequestId]) -> Mapping[RequestId, StoredDecision]:
        """Read what request_ids are bound to; unbound ones are absent."""
        ...

    async def list_decisions(
        self, before: Xid | None, limit: int, decision: Decision | None = None
    ) -> Sequence[StoredDecision]:
        """Decisions, newest xid first, below ``before``, of one kind or of both."""
        ...

    async def fence_expired(self, incarnation: Incarnation) -> Sequence[int]:
        """Fence every live incarnation, but this one, whose lease has expired by the log's clock (R6).

        Returns the numbers, rising, of those for whose unfinished transactions this incarnation now
        answers: the ones it fenced, now or before, and those that they had fenced in their turn. One
        without unfinished decisions is left out. Nothing is fenced by an incarnation that is fenced
        itself, on another timeline, or past its own lease.
        """
        ...

    async def unfinished(self, incarnation: int) -> Sequence[StoredDecision]:
        """The decisions written by a (fenced) incarnation that its checkpoint does not call finished, by sequence."""
        ...

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace an incarnation's checkpoint. Not forced to disk (``synchronous_commit = off``)."""
        ...

    async def hold(self, reason: str) -> None:
        """Put the log in HOLD, durably; one that is held keeps its first reason (R15)."""
        ...

    async def record_heuristics(self, records: Sequence[HeuristicRecord]) -> None:
        """Keep heuristic ends durably, each once."""
        ...

    async def read_heuristics(self, xid: Xid) -> Sequence[HeuristicRecord]:
        """The heuristic ends kept of a transaction."""
        ...

    async def close(self) -> None:
        """Let go of connections. Nothing is written."""
        ...
