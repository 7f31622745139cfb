"""The decision log's tables in memory, as plain rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from coordinator.log.decision_log import Checkpoint, Incarnation, IncarnationState, LiveIncarnation, OperatorAction
from coordinator.log.workflow_log import StoredWorkflow
from coordinator.protocol.effects import HeuristicRecord, StoredDecision
from participant_sdk.ids import RequestId, Xid

# Who fenced an incarnation that ended by itself or by HOLD: nobody yet.
NOBODY: Final = 0
# The timeline of an incarnation that only participants remember: it is part of no epoch.
RESTORED_TIMELINE: Final = 0


@dataclass(slots=True)
class IncarnationRow:
    """A row of ``incarnations``. ``decisions`` indexes its decisions by sequence."""

    number: int
    coordinator: str
    address: str
    timeline: int
    lease_until_ms: int
    last_sequence: int = 0
    fenced_by: int | None = None
    decisions: dict[int, Xid] = field(default_factory=dict[int, Xid])

    @property
    def is_live(self) -> bool:
        """It is not fenced (R6)."""
        return self.fenced_by is None

    def state(self) -> IncarnationState:
        """As a snapshot shows it."""
        return IncarnationState(self.number, self.coordinator, self.address, not self.is_live, self.last_sequence)

    def living(self, now_ms: int) -> LiveIncarnation:
        """As the log's standing shows it."""
        return LiveIncarnation(self.number, self.coordinator, self.address, (self.lease_until_ms - now_ms) / 1000)


@dataclass(slots=True)
class Tables:
    """All that a store keeps. ``held`` is HOLD's reason, empty without; tests may set it alone.

    ``released_ms`` is when HOLD ended last; None where it never did.
    """

    timeline: int = 1
    held: str = ""
    held_since_ms: int = 0
    released_ms: int | None = None
    epoch_after: int = 0
    pruned_below_unix_ms: int = 0
    incarnations: dict[int, IncarnationRow] = field(default_factory=dict[int, IncarnationRow])
    decisions: dict[Xid, StoredDecision] = field(default_factory=dict[Xid, StoredDecision])
    requests: dict[RequestId, Xid] = field(default_factory=dict[RequestId, Xid])
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict[int, Checkpoint])
    heuristics: dict[tuple[Xid, str], HeuristicRecord] = field(default_factory=dict[tuple[Xid, str], HeuristicRecord])
    forgotten: dict[tuple[Xid, str], str] = field(default_factory=dict[tuple[Xid, str], str])
    actions: list[OperatorAction] = field(default_factory=list[OperatorAction])
    lock_epochs: dict[int, str] = field(default_factory=dict[int, str])
    workflows: dict[Xid, StoredWorkflow] = field(default_factory=dict[Xid, StoredWorkflow])

    def is_live(self, incarnation: Incarnation) -> bool:
        """An incarnation may write."""
        row = self.incarnations.get(incarnation.number)
        return row is not None and row.is_live and incarnation.timeline == self.timeline

    def insert(self, stored: StoredDecision) -> None:
        """Put a row in. Neither its xid nor its request may be there."""
        record = stored.record
        self.decisions[record.xid] = stored
        self.incarnations[stored.incarnation].decisions[stored.sequence] = record.xid
        if record.request is not None:
            self.requests[record.request] = record.xid

    def delete(self, xid: Xid) -> None:
        """Take a row out, with its binding."""
        stored = self.decisions.pop(xid)
        del self.incarnations[stored.incarnation].decisions[stored.sequence]
        if stored.record.request is not None:
            del self.requests[stored.record.request]

    def unfinished(self, incarnation: int) -> list[StoredDecision]:
        """An incarnation's decisions that its checkpoint does not call finished, by sequence."""
        row = self.incarnations.get(incarnation)
        checkpoint = self.checkpoints.get(incarnation, Checkpoint(incarnation, 0))
        return [
            self.decisions[xid]
            for sequence, xid in sorted(row.decisions.items() if row else ())
            if sequence > checkpoint.finished_through or xid in checkpoint.stragglers
        ]
