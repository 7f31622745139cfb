"""The statements in memory that keep the log: HOLD and its end, fencing, pruning, heuristics, audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.log.decision_log import (
    Checkpoint,
    Incarnation,
    OperatorAction,
    Release,
    ReleaseRefusedError,
    Standing,
)
from coordinator.log.memory_tables import NOBODY, RESTORED_TIMELINE, IncarnationRow, Tables
from coordinator.log.releasing import raised_sequences
from coordinator.log.workflow_log import CLOCKS_APART_MAX_MS
from coordinator.protocol.effects import HeuristicRecord, StoredDecision
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision


class MemoryKeeping:
    """The keeping half of ``MemoryLogStore``: each method does what the ``.sql`` file of its name does."""

    def __init__(self, clock: Clock) -> None:
        self.tables = Tables()
        self._clock = clock

    def standing(self) -> Standing:
        """Do ``standing.sql``."""
        tables, now_ms = self.tables, self._clock.unix_ms()
        live = [row.living(now_ms) for _, row in sorted(tables.incarnations.items()) if row.is_live]
        since_ms = max(1, tables.held_since_ms) if tables.held else 0
        return Standing(since_ms, tables.held, tables.pruned_below_unix_ms, tuple(live))

    def fence_expired(self, incarnation: Incarnation, *, resigned_only: bool) -> Sequence[int]:
        """Do ``fence_expired.sql``."""
        rows = self.tables.incarnations
        now_ms = self._clock.unix_ms()
        own = rows.get(incarnation.number)
        if own and own.is_live and own.lease_until_ms > now_ms and own.timeline == self.tables.timeline:
            for row in rows.values():
                expired = row.is_live and row is not own and row.lease_until_ms < now_ms and not resigned_only
                if expired or row.fenced_by == NOBODY:
                    row.fenced_by = own.number
        adopted = [incarnation.number]
        # The list grows while it is walked: each one's own victims follow.
        for number in adopted:
            adopted.extend(row.number for row in rows.values() if row.fenced_by == number)
        return sorted(number for number in adopted[1:] if self.tables.unfinished(number))

    def unfinished(self, incarnation: int) -> Sequence[StoredDecision]:
        """Do ``unfinished.sql``."""
        return self.tables.unfinished(incarnation)

    def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Do ``checkpoint.sql``."""
        before = self.tables.checkpoints.get(checkpoint.incarnation)
        applied = dict(before.applied) if before else {}
        for participant, sequence in checkpoint.applied.items():
            applied[participant] = max(applied.get(participant, 0), sequence)
        self.tables.checkpoints[checkpoint.incarnation] = Checkpoint(
            checkpoint.incarnation, checkpoint.finished_through, checkpoint.stragglers, applied
        )

    def read_applied(self, participant: str) -> Mapping[int, int]:
        """Do ``read_applied.sql``."""
        rows = sorted(self.tables.checkpoints.items())
        return {number: row.applied[participant] for number, row in rows if participant in row.applied}

    def hold(self, reason: str) -> None:
        """Do ``hold.sql``."""
        tables = self.tables
        if tables.held:
            return
        tables.held, tables.held_since_ms = reason or "no reason was given", self._clock.unix_ms()
        tables.epoch_after = max(tables.incarnations, default=0)
        self._fence_all()

    def hold_above(self, incarnation: Incarnation, epoch: int, reason: str) -> bool:
        """Do ``hold_above.sql``."""
        own = self.tables.incarnations.get(incarnation.number)
        if own is None or not own.is_live or own.timeline != self.tables.timeline:
            return False
        self.hold(reason)
        self.tables.epoch_after = max(self.tables.epoch_after, epoch)
        self._fence_all()
        return True

    def _fence_all(self) -> None:
        for row in self.tables.incarnations.values():
            if row.is_live:
                row.fenced_by = NOBODY

    def release(self, incarnation: Incarnation, release: Release) -> None:
        """Do ``postgres_release``: all of it, or nothing."""
        raised = raised_sequences(release, incarnation)
        tables = self.tables
        own = tables.incarnations.get(incarnation.number)
        if not tables.held:
            raise ReleaseRefusedError("the log is not in HOLD")
        if own is None or not own.is_live or own.timeline != tables.timeline:
            raise ReleaseRefusedError(f"incarnation {incarnation.number} is fenced")
        self._check_living(raised)
        self._check_restored(release)
        for number in raised:
            if number not in tables.incarnations:
                tables.incarnations[number] = IncarnationRow(
                    number, "", "", RESTORED_TIMELINE, self._clock.unix_ms(), fenced_by=own.number
                )
        for stored in release.restored:
            if stored.record.xid not in tables.decisions:
                tables.insert(stored)
                self._uncover(stored)
        for number, sequence in raised.items():
            row = tables.incarnations[number]
            row.last_sequence = max(row.last_sequence, sequence)
        detail = f"restored {len(release.restored)}, held: {tables.held}"
        tables.actions.append(OperatorAction("RELEASE", release.reason, detail=detail))
        tables.held, tables.held_since_ms, tables.released_ms = "", 0, self._clock.unix_ms()

    def _check_living(self, raised: Mapping[int, int]) -> None:
        for number, sequence in raised.items():
            row = self.tables.incarnations.get(number)
            if row is not None and row.is_live and sequence > row.last_sequence:
                raise ReleaseRefusedError(f"incarnation {number} lives, and never wrote sequence {sequence}")

    def _check_restored(self, release: Release) -> None:
        for stored in release.restored:
            record = stored.record
            present = self.tables.decisions.get(record.xid)
            if present is not None and present.record.decision is not Decision.COMMIT:
                raise ReleaseRefusedError(f"transaction {record.xid} was committed, and the log says ROLLBACK")
            bound = self.tables.requests.get(record.request, record.xid) if record.request else record.xid
            if present is None and bound != record.xid:
                raise ReleaseRefusedError(
                    f"transaction {record.xid} was committed, and its request is bound to transaction {bound}"
                )

    def _uncover(self, stored: StoredDecision) -> None:
        """Have the checkpoint call everything from this row on unfinished."""
        checkpoint = self.tables.checkpoints.get(stored.incarnation)
        if checkpoint is not None and checkpoint.finished_through >= stored.sequence:
            self.tables.checkpoints[stored.incarnation] = Checkpoint(
                stored.incarnation, stored.sequence - 1, checkpoint.stragglers, checkpoint.applied
            )

    def resign(self, incarnation: Incarnation) -> None:
        """Do ``resign.sql``."""
        own = self.tables.incarnations.get(incarnation.number)
        if own is not None and own.is_live:
            own.fenced_by = NOBODY

    def prune(self, retention_s: float, limit: int, now_unix_ms: int) -> int:
        """Do ``prune.sql``."""
        tables, now_ms = self.tables, min(self._clock.unix_ms(), now_unix_ms)
        is_lately_released = tables.released_ms is not None and tables.released_ms > now_ms - round(retention_s * 1000)
        if tables.held or is_lately_released:
            return 0
        leases_ms = [row.lease_until_ms for row in tables.incarnations.values() if row.is_live]
        bounds_ms = [
            min([now_ms, *leases_ms]) - round(retention_s * 1000),
            *(row.record.xid.unix_ms for number in tables.incarnations for row in tables.unfinished(number)),
            *(xid.unix_ms for xid, participant in tables.heuristics if (xid, participant) not in tables.forgotten),
            *(
                xid.unix_ms - CLOCKS_APART_MAX_MS
                for xid, stored in tables.workflows.items()
                if not stored.record.is_finished
            ),
        ]
        bound_ms = min(bounds_ms)
        tables.pruned_below_unix_ms = max(tables.pruned_below_unix_ms, bound_ms)
        below = sorted(xid for xid in tables.decisions if xid.unix_ms < bound_ms)[:limit]
        for xid in below:
            tables.delete(xid)
        self._prune_workflows(now_ms - round(retention_s * 1000), limit)
        return len(below)

    def _prune_workflows(self, ended_before_ms: int, limit: int) -> None:
        """Do ``workflow_prune.sql``."""
        tables = self.tables
        old = [
            xid
            for xid, stored in sorted(tables.workflows.items())
            if stored.record.is_finished
            and xid.unix_ms < tables.pruned_below_unix_ms
            and stored.record.ended_unix_ms < ended_before_ms
        ]
        for xid in old[:limit]:
            del tables.workflows[xid]

    def record_heuristics(self, records: Sequence[HeuristicRecord]) -> None:
        """Do ``record_heuristics.sql``."""
        for record in records:
            self.tables.heuristics.setdefault((record.xid, record.participant), record)

    def read_heuristics(self, xid: Xid) -> Sequence[HeuristicRecord]:
        """Do ``read_heuristics.sql``."""
        return [record for (_, _), record in sorted(self.tables.heuristics.items()) if record.xid == xid]

    def list_heuristics(self, after: Xid | None, limit: int) -> Sequence[HeuristicRecord]:
        """Do ``list_heuristics.sql``."""
        rows = sorted(self.tables.heuristics.items())
        open_ = [row for key, row in rows if key not in self.tables.forgotten and (after is None or row.xid > after)]
        return open_[:limit]

    def forget_heuristics(self, xid: Xid, reason: str) -> Sequence[HeuristicRecord]:
        """Do ``forget_heuristics.sql``."""
        open_ = [row for row in self.read_heuristics(xid) if (xid, row.participant) not in self.tables.forgotten]
        self.tables.forgotten.update({(xid, row.participant): reason for row in open_})
        self.tables.actions.extend(OperatorAction("FORGET", reason, xid, row.participant) for row in open_)
        return open_

    def record_action(self, action: OperatorAction) -> None:
        """Do ``record_action.sql``."""
        self.tables.actions.append(action)

    def draw_lock_epoch(self, reason: str) -> int:
        """Do ``draw_lock_epoch.sql``."""
        epoch = max(self.highest_lock_epoch() + 1, self._clock.unix_ms() // 1000)
        self.tables.lock_epochs[epoch] = reason
        return epoch

    def highest_lock_epoch(self) -> int:
        """Do ``highest_lock_epoch.sql``."""
        return max(self.tables.lock_epochs, default=0)
