"""The decision log's state in memory, and its statements: each is one atomic, synchronous call.

A store outlives the processes that use it, as a database does. What is here must do exactly
what ``sql/*.sql`` do; the contract suite holds both to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

from coordinator.log.decision_log import Appended, AppendStatus, Checkpoint, Incarnation, IncarnationState, Snapshot
from coordinator.protocol.effects import DecisionRecord, HeuristicRecord, StoredDecision
from participant_sdk.clock import Clock
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision


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

    def state(self) -> IncarnationState:
        """As a snapshot shows it."""
        fenced = self.fenced_by is not None
        return IncarnationState(self.number, self.coordinator, self.address, fenced, self.last_sequence)


@dataclass(slots=True)
class Tables:
    """All that a store keeps."""

    timeline: int = 1
    held: str = ""
    pruned_below_unix_ms: int = 0
    incarnations: dict[int, IncarnationRow] = field(default_factory=dict[int, IncarnationRow])
    decisions: dict[Xid, StoredDecision] = field(default_factory=dict[Xid, StoredDecision])
    requests: dict[RequestId, Xid] = field(default_factory=dict[RequestId, Xid])
    checkpoints: dict[int, Checkpoint] = field(default_factory=dict[int, Checkpoint])
    heuristics: dict[tuple[Xid, str], HeuristicRecord] = field(default_factory=dict[tuple[Xid, str], HeuristicRecord])


class MemoryLogStore:
    """One log. ``clock.unix_ms`` is the log's own clock, by which leases are measured.

    ``tables`` is open to tests and the simulator: to put the log in HOLD or release it, to move
    the pruning horizon, to look at every row.
    """

    def __init__(self, clock: Clock, log_id: str) -> None:
        self.log_id = log_id
        self.tables = Tables()
        self._clock = clock

    def copy(self) -> Tables:
        """Take a backup."""
        return deepcopy(self.tables)

    def restore(self, backup: Tables, *, new_timeline: bool) -> None:
        """Go back to a backup: a promotion or point-in-time recovery (a new timeline), or a snapshot."""
        timeline = self.tables.timeline + 1 if new_timeline else backup.timeline
        self.tables = deepcopy(backup)
        self.tables.timeline = timeline

    def open(self, coordinator: str, address: str, lease_s: float) -> Incarnation:
        """Do ``open.sql``."""
        rows = self.tables.incarnations
        timeline = self.tables.timeline
        number = max(max(rows, default=0) + 1, self._clock.unix_ms() // 1000)
        epoch = min((row.number for row in rows.values() if row.timeline == timeline), default=number)
        for row in rows.values():
            if row.fenced_by is None and row.timeline != timeline:
                row.fenced_by = number
        rows[number] = IncarnationRow(number, coordinator, address, timeline, self._lease_until_ms(lease_s))
        return Incarnation(self.log_id, number, coordinator, address, epoch, timeline, lease_s)

    def append(self, incarnation: Incarnation, expected: int, records: Sequence[DecisionRecord]) -> Appended:
        """Do ``append.sql``, and ``standing.sql`` where it did nothing."""
        row = self.tables.incarnations.get(incarnation.number)
        if self.tables.timeline != incarnation.timeline:
            return Appended(AppendStatus.TIMELINE_CHANGED, 0 if row is None else row.last_sequence)
        if row is None:
            return Appended(AppendStatus.SEQUENCE_BEHIND, 0)
        status = self._standing(row, expected, len(records))
        if status is not AppendStatus.WRITTEN:
            return Appended(status, row.last_sequence)
        row.lease_until_ms = self._lease_until_ms(incarnation.lease_s)
        row.last_sequence += len(records)
        return Appended(status, row.last_sequence, self._insert(row, expected, records))

    def _standing(self, row: IncarnationRow, expected: int, count: int) -> AppendStatus:
        if row.fenced_by is not None:
            return AppendStatus.FENCED
        if row.last_sequence != expected:
            return AppendStatus.SEQUENCE_AHEAD if row.last_sequence > expected else AppendStatus.SEQUENCE_BEHIND
        return AppendStatus.HELD if self.tables.held and count else AppendStatus.WRITTEN

    def _insert(self, row: IncarnationRow, expected: int, records: Sequence[DecisionRecord]) -> frozenset[Xid]:
        conflicts: list[Xid] = []
        now_ms = self._clock.unix_ms()
        # In order of arrival: the statement sorts by request_id first, and then so.
        for sequence, record in enumerate(records, expected + 1):
            bound = record.request is not None and record.request in self.tables.requests
            if bound or record.xid in self.tables.decisions:
                conflicts.append(record.xid)
                continue
            self.tables.decisions[record.xid] = StoredDecision(record, row.number, sequence, now_ms)
            row.decisions[sequence] = record.xid
            if record.request is not None:
                self.tables.requests[record.request] = record.xid
        return frozenset(conflicts)

    def read(self, xids: Sequence[Xid]) -> Snapshot:
        """Do ``read.sql``."""
        tables = self.tables
        numbers = dict.fromkeys(xid.incarnation for xid in xids)
        return Snapshot(
            {xid: tables.decisions[xid] for xid in xids if xid in tables.decisions},
            {number: tables.incarnations[number].state() for number in numbers if number in tables.incarnations},
            tables.pruned_below_unix_ms,
            bool(tables.held),
        )

    def read_requests(self, requests: Sequence[RequestId]) -> Mapping[RequestId, StoredDecision]:
        """Do ``read_requests.sql``."""
        bound = self.tables.requests
        return {request: self.tables.decisions[bound[request]] for request in requests if request in bound}

    def list_decisions(self, before: Xid | None, limit: int, decision: Decision | None) -> Sequence[StoredDecision]:
        """Do ``list_decisions.sql``."""
        rows = (
            row
            for xid, row in self.tables.decisions.items()
            if (before is None or xid < before) and decision in (None, row.record.decision)
        )
        return sorted(rows, key=lambda row: row.record.xid, reverse=True)[:limit]

    def fence_expired(self, incarnation: Incarnation) -> Sequence[int]:
        """Do ``fence_expired.sql``."""
        rows = self.tables.incarnations
        now_ms = self._clock.unix_ms()
        own = rows.get(incarnation.number)
        if own and own.fenced_by is None and own.lease_until_ms > now_ms and own.timeline == self.tables.timeline:
            for row in rows.values():
                if row is not own and row.fenced_by is None and row.lease_until_ms < now_ms:
                    row.fenced_by = own.number
        adopted = [incarnation.number]
        # The list grows while it is walked: each one's own victims follow.
        for number in adopted:
            adopted.extend(row.number for row in rows.values() if row.fenced_by == number)
        return sorted(number for number in adopted[1:] if self.unfinished(number))

    def unfinished(self, incarnation: int) -> Sequence[StoredDecision]:
        """Do ``unfinished.sql``."""
        row = self.tables.incarnations.get(incarnation)
        checkpoint = self.tables.checkpoints.get(incarnation, Checkpoint(incarnation, 0))
        return [
            self.tables.decisions[xid]
            for sequence, xid in (row.decisions.items() if row else ())
            if sequence > checkpoint.finished_through or xid in checkpoint.stragglers
        ]

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Do ``checkpoint.sql``."""
        self.tables.checkpoints[checkpoint.incarnation] = checkpoint

    def hold(self, reason: str) -> None:
        """Do ``hold.sql``."""
        self.tables.held = self.tables.held or reason

    def record_heuristics(self, records: Sequence[HeuristicRecord]) -> None:
        """Do ``record_heuristics.sql``."""
        for record in records:
            self.tables.heuristics.setdefault((record.xid, record.participant), record)

    def read_heuristics(self, xid: Xid) -> Sequence[HeuristicRecord]:
        """Do ``read_heuristics.sql``."""
        return [record for (_, _), record in sorted(self.tables.heuristics.items()) if record.xid == xid]

    def _lease_until_ms(self, lease_s: float) -> int:
        return self._clock.unix_ms() + round(lease_s * 1000)
