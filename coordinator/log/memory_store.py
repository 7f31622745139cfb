"""The decision log's state in memory, and its statements: each is one atomic, synchronous call.

A store outlives the processes that use it, as a database does. What is here must do exactly
what ``sql/*.sql`` do; the contract suite holds both to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TypeVar

from coordinator.log.decision_log import Appended, AppendStatus, Incarnation, LogUncertainError, Snapshot
from coordinator.log.memory_keeping import MemoryKeeping
from coordinator.log.memory_tables import NOBODY, RESTORED_TIMELINE, IncarnationRow, Tables
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from participant_sdk.clock import Clock
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision

Rows = TypeVar("Rows")


class MemoryLogStore(MemoryKeeping):
    """One log. ``clock.unix_ms`` is the log's own clock, by which leases are measured.

    ``tables`` is open to tests and the simulator: to put the log in HOLD or release it, to move
    the pruning horizon, to look at every row. ``connections`` counts how often all connections
    to it were lost.
    """

    def __init__(self, clock: Clock, log_id: str) -> None:
        super().__init__(clock)
        self.log_id = log_id
        self.connections = 0
        self._restored = 0

    def bound(self, effect: Callable[[], Rows]) -> Callable[[], Rows]:
        """Bind a statement's effect to the server as it is now: one that was restored meanwhile never hears of it."""
        server = self._restored

        def apply() -> Rows:
            if self._restored != server:
                raise LogUncertainError("the server was replaced")
            return effect()

        return apply

    def drop_connections(self) -> None:
        """Lose every connection: who speaks next connects again, and what was under way is lost or done late."""
        self.connections += 1

    def copy(self) -> Tables:
        """Take a backup."""
        return deepcopy(self.tables)

    def restore(self, backup: Tables, *, new_timeline: bool) -> None:
        """Go back to a backup: a promotion or point-in-time recovery (a new timeline), or a snapshot."""
        timeline = self.tables.timeline + 1 if new_timeline else backup.timeline
        self.tables = deepcopy(backup)
        self.tables.timeline = timeline
        self._restored += 1
        self.drop_connections()

    def open(self, coordinator: str, address: str, lease_s: float) -> Incarnation:
        """Do ``open.sql``."""
        rows = self.tables.incarnations
        timeline = self.tables.timeline
        number = max(max(self.tables.epoch_after, *rows, 0) + 1, self._clock.unix_ms() // 1000)
        others = (row.number for row in rows.values() if row.timeline not in (timeline, RESTORED_TIMELINE))
        ended = max(self.tables.epoch_after, *others, 0)
        own = (row.number for row in rows.values() if row.timeline == timeline and row.number > ended)
        epoch = min(own, default=number)
        for row in rows.values():
            if row.fenced_by == NOBODY or (row.is_live and row.timeline != timeline):
                row.fenced_by = number
        rows[number] = IncarnationRow(number, coordinator, address, timeline, self._lease_until_ms(lease_s))
        return Incarnation(self.log_id, number, coordinator, address, epoch, timeline, lease_s)

    def append(
        self, incarnation: Incarnation, expected: int, records: Sequence[DecisionRecord], burned: int
    ) -> Appended:
        """Do ``append.sql``, and ``refusal.sql`` where it did nothing."""
        row = self.tables.incarnations.get(incarnation.number)
        if self.tables.timeline != incarnation.timeline:
            return Appended(AppendStatus.TIMELINE_CHANGED, 0 if row is None else row.last_sequence)
        if row is None:
            return Appended(AppendStatus.SEQUENCE_BEHIND, 0)
        advance = len(records) + burned
        status = self._status(row, expected, advance)
        if status is not AppendStatus.WRITTEN:
            return Appended(status, row.last_sequence)
        row.lease_until_ms = self._lease_until_ms(incarnation.lease_s)
        row.last_sequence += advance
        return Appended(status, row.last_sequence, self._insert(row, expected, records))

    def _status(self, row: IncarnationRow, expected: int, advance: int) -> AppendStatus:
        if not row.is_live:
            return AppendStatus.FENCED
        if row.last_sequence != expected:
            return AppendStatus.SEQUENCE_AHEAD if row.last_sequence > expected else AppendStatus.SEQUENCE_BEHIND
        return AppendStatus.HELD if self.tables.held and advance else AppendStatus.WRITTEN

    def _insert(self, row: IncarnationRow, expected: int, records: Sequence[DecisionRecord]) -> frozenset[Xid]:
        conflicts: list[Xid] = []
        now_ms = self._clock.unix_ms()
        # In order of arrival: the statement sorts by request_id first, and then so.
        for sequence, record in enumerate(records, expected + 1):
            bound = record.request is not None and record.request in self.tables.requests
            if bound or record.xid in self.tables.decisions:
                conflicts.append(record.xid)
                continue
            self.tables.insert(StoredDecision(record, row.number, sequence, now_ms))
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

    def read_sequences(self, numbers: Sequence[int]) -> Mapping[int, int]:
        """Do ``read_sequences.sql``."""
        rows = self.tables.incarnations
        return {number: rows[number].last_sequence for number in numbers if number in rows}

    def commits_above(self, participant: str, above: Mapping[int, int], limit: int) -> Sequence[StoredDecision]:
        """Do ``commits_above.sql``."""
        rows = [
            row
            for row in self.tables.decisions.values()
            if row.record.decision is Decision.COMMIT
            and participant in row.record.prepared
            and row.incarnation in above
            and row.sequence > above[row.incarnation]
        ]
        return sorted(rows, key=lambda row: (row.incarnation, row.sequence))[:limit]

    def _lease_until_ms(self, lease_s: float) -> int:
        return self._clock.unix_ms() + round(lease_s * 1000)
