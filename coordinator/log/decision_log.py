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
from typing import TYPE_CHECKING, Final, Protocol

from coordinator.protocol.effects import DecisionRecord, HeuristicRecord, StoredDecision
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision

if TYPE_CHECKING:
    # It speaks of incarnations, which are defined here.
    from coordinator.log.workflow_log import WorkflowLog

# How long to wait before a statement that failed is tried again: doubling from the first to the cap.
BACKOFF_FIRST_S: Final = 0.01
BACKOFF_CAP_S: Final = 1.0


class LogUnavailableError(Exception):
    """The log cannot be reached, and the statement certainly did nothing."""


class LogUncertainError(Exception):
    """The statement may or may not have happened, now or a little later. Only writing again settles it (R5)."""


class ReleaseRefusedError(Exception):
    """HOLD was not released, and nothing was changed: the message says why (R15)."""


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
    ``applied`` is the highest sequence that each participant acknowledged as committed; in the log it
    only rises. Written lazily: a lost checkpoint only means that finished transactions are driven again.
    """

    incarnation: int
    finished_through: int
    stragglers: frozenset[Xid] = field(default_factory=frozenset[Xid])
    applied: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class LiveIncarnation:
    """A coordinator that is not fenced. ``lease_left_s`` is by the log's clock, negative once expired."""

    number: int
    coordinator: str
    address: str
    lease_left_s: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How the log stands: HOLD, its horizon, and who lives, by number. ``held_since_unix_ms`` is 0 without HOLD."""

    held_since_unix_ms: int
    held_reason: str
    pruned_below_unix_ms: int
    live: tuple[LiveIncarnation, ...]

    @property
    def is_held(self) -> bool:
        """The log is in HOLD (R15)."""
        return self.held_since_unix_ms > 0


@dataclass(frozen=True, slots=True)
class Release:
    """The end of HOLD: what participants had applied, put back into the log (R15).

    ``restored`` are COMMIT rows under the incarnation and sequence that participants name;
    ``sequences`` what each incarnation's sequence rises to. ``reason`` is the operator's.
    """

    restored: tuple[StoredDecision, ...]
    sequences: Mapping[int, int]
    reason: str


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """What an operator did by hand, kept for good. ``action`` is HOLD, RELEASE, RESOLVE, FORGET or BREAK_LOCK.

    The log keeps UNBIND as well, which is done in its database alone (``txlog.unbind``).
    """

    action: str
    reason: str
    xid: Xid | None = None
    participant: str = ""
    detail: str = ""


class DecisionLog(Protocol):
    """One log's statements. Every call may raise LogUnavailableError; writes also LogUncertainError."""

    @property
    def generation(self) -> int:
        """How often it was connected to: while it stays the same, what was read and written was one log's (R15).

        It rises before anything is read or written over a new connection. An append with records is
        never the first statement of one: it raises LogUnavailableError instead, having connected.
        """
        ...

    @property
    def workflows(self) -> WorkflowLog:
        """The statements about workflows, which have connections of their own."""
        ...

    @property
    def problem(self) -> str:
        """What it refuses and no retry is likely to mend, in a sentence for a person; empty when all is well."""
        ...

    async def open(self, coordinator: str, address: str, lease_s: float) -> Incarnation:
        """Draw a new incarnation: greatest(last + 1, Unix seconds by the log's clock)."""
        ...

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord], *, burned: int = 0
    ) -> Appended:
        """Renew the lease, advance the sequence and insert the records, in one autocommit statement (R4).

        Record ``i`` gets ``expected_sequence + 1 + i``. ``burned`` sequences after them stay unused: a write
        that was open with the same expected sequence can then never happen any more (R5). A batch without
        records and burned ones only renews; HOLD lets only that pass. BadRecordError when a value is refused.
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

    async def fence_expired(self, incarnation: Incarnation, *, resigned_only: bool = False) -> Sequence[int]:
        """Fence every live incarnation, but this one, whose lease has expired by the log's clock (R6).

        Those that resigned, or that HOLD ended, are adopted too; with ``resigned_only`` nobody is fenced.
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

    async def standing(self) -> Standing:
        """How the log stands now, read on the primary."""
        ...

    async def read_sequences(self, numbers: Sequence[int]) -> Mapping[int, int]:
        """The last sequence of incarnations; those that the log does not know are absent."""
        ...

    async def read_applied(self, participant: str) -> Mapping[int, int]:
        """By incarnation, the highest sequence that the checkpoints say this participant acknowledged."""
        ...

    async def commits_above(self, participant: str, above: Mapping[int, int], limit: int) -> Sequence[StoredDecision]:
        """Retained COMMITs that this participant prepared, of these incarnations, above these sequences; in order."""
        ...

    async def hold(self, reason: str) -> None:
        """Put the log in HOLD and fence every live incarnation, durably and in one go (R15).

        Whoever draws an incarnation next adopts them, and begins a new epoch: its number. A log that is
        held already keeps its first reason, and nothing is changed.
        """
        ...

    async def hold_above(self, incarnation: Incarnation, epoch: int, reason: str) -> bool:
        """Put the log in HOLD as one that has forgotten an epoch that participants hold; whether it did (R15).

        ``epoch`` is above this incarnation's, which must live here: else nothing is changed. What is drawn
        next is higher than ``epoch``. A log that is held already keeps its reason; everybody is fenced anew.
        """
        ...

    async def release(self, incarnation: Incarnation, release: Release) -> None:
        """End HOLD in one transaction: insert what is restored, raise the sequences, keep the reason (R15).

        Incarnations that the log does not know are inserted, fenced by this one. ReleaseRefusedError when
        the log is not held, this incarnation is fenced, or a restored row contradicts one that is there.
        """
        ...

    async def resign(self, incarnation: Incarnation) -> None:
        """End this incarnation by its own will: fenced at once, adopted by whoever fences or opens next."""
        ...

    async def prune(self, retention_s: float, limit: int, now_unix_ms: int) -> int:
        """Raise the horizon, and delete decisions below it; return how many, at most ``limit`` (R14).

        ``now_unix_ms`` is the caller's clock. Now is what it or the log's own clock says, whichever is behind: too
        low a horizon keeps for longer than need be, and too high a one forgets for good, since it never falls.
        The horizon is the older of now less the retention and the oldest decision that is unfinished or
        has a heuristic end that is not forgotten: everything below it has ended everywhere. It stays where it
        is in HOLD, and for one retention after its end: what could not be decided meanwhile is not forgotten.
        """
        ...

    async def list_heuristics(self, after: Xid | None, limit: int) -> Sequence[HeuristicRecord]:
        """Heuristic ends that are not forgotten, by xid and participant, above ``after``."""
        ...

    async def forget_heuristics(self, xid: Xid, reason: str) -> Sequence[HeuristicRecord]:
        """Mark a transaction's heuristic ends as dealt with, and return those that were not; they are kept for good.

        With the mark, and as durably, an OperatorAction FORGET is kept of each that is returned.
        """
        ...

    async def draw_lock_epoch(self, reason: str) -> int:
        """Draw an epoch of fencing tokens, durably: above all drawn before, and not below the log's Unix seconds.

        ``reason`` says which lock store may have lost what it knew, and how. After LogUncertainError one may have
        been drawn that nobody uses: draw again.
        """
        ...

    async def highest_lock_epoch(self) -> int:
        """The highest epoch of fencing tokens ever drawn, read on the primary; 0 for none."""
        ...

    async def record_action(self, action: OperatorAction) -> None:
        """Keep durably what an operator did, or is about to do."""
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
