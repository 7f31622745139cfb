"""The decision log on PostgreSQL: ``sql/*.sql`` over three dedicated connections.

One connection does nothing but appends, one nothing but reads, and one the rest (opening,
fencing, checkpoints, HOLD, heuristics), so that none of them waits for another kind. All of
them have ``synchronous_commit = on``; the checkpoint's statement alone turns it off for itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final, cast

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int2, Int8

from coordinator.log.columns import UuidArray, is_storable, pack, storable
from coordinator.log.connection import LogConnection, Parameter, Timeouts
from coordinator.log.decision_log import (
    Appended,
    AppendStatus,
    Checkpoint,
    Incarnation,
    IncarnationState,
    LogUnavailableError,
    LogUncertainError,
    Snapshot,
)
from coordinator.protocol.effects import DecisionRecord, HeuristicRecord, StoredDecision
from participant_sdk.ids import RequestId, Xid
from participant_sdk.migrations import migrate
from participant_sdk.xa import Decision, Heuristic

SCHEMA: Final = "txlog"
DEFAULT_TIMEOUTS: Final = Timeouts()


async def migrate_log(dsn: str) -> list[str]:
    """Bring the log's schema up to date; return the names of the migrations applied now.

    Errors are those of ``participant_sdk.migrations.migrate``.
    """
    return await migrate(dsn, files("coordinator.log") / "migrations", SCHEMA)


class PostgresLog:
    """The decision log in one PostgreSQL database, whose schema ``migrate_log`` made."""

    def __init__(self, dsn: str, *, name: str = "pincex-coordinator", timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        self._appends = LogConnection(dsn, f"{name}-appends", timeouts)
        self._reads = LogConnection(dsn, f"{name}-reads", timeouts)
        self._upkeep = LogConnection(dsn, f"{name}-upkeep", timeouts)
        folder = files("coordinator.log") / "sql"
        self._sql: Final = {
            entry.name.removesuffix(".sql"): entry.read_bytes()
            for entry in folder.iterdir()
            if entry.name.endswith(".sql")
        }

    async def open(self, coordinator: str, address: str, lease_s: float) -> Incarnation:
        """Draw a new incarnation; the first one on a timeline is the timeline's epoch.

        After LogUncertainError a number may have been drawn that nobody uses: draw again.
        """
        ((log_id, number, epoch, timeline),) = await self._upkeep.execute_together(
            [
                (self._sql["create_log"], {"log_id": secrets.token_hex(8)}),
                (self._sql["lock_log"], {}),
                (self._sql["open"], {"coordinator": coordinator, "address": address, "lease_s": float(lease_s)}),
            ]
        )
        return Incarnation(log_id, number, coordinator, address, epoch, timeline, lease_s)

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord]
    ) -> Appended:
        """Renew, advance and insert, in one autocommit statement (R4)."""
        columns = pack(records)
        parameters = {
            **columns._asdict(),
            "count": Int8(columns.size),
            "lease_s": float(incarnation.lease_s),
            "incarnation": Int8(incarnation.number),
            "expected": Int8(expected_sequence),
        }
        rows = await self._appends.execute(self._sql["append"], parameters)
        if not rows:
            return await self._standing(incarnation, expected_sequence, len(records))
        ((last_sequence, inserted),) = rows
        if inserted is None:
            return Appended(AppendStatus.WRITTEN, last_sequence)
        present = frozenset(cast("list[int]", inserted))
        conflicts = frozenset(r.xid for s, r in enumerate(records, expected_sequence + 1) if s not in present)
        return Appended(AppendStatus.WRITTEN, last_sequence, conflicts)

    async def _standing(self, incarnation: Incarnation, expected: int, count: int) -> Appended:
        rows = await _read_only(self._appends, self._sql["standing"], {"incarnation": Int8(incarnation.number)})
        if not rows:
            return Appended(AppendStatus.SEQUENCE_BEHIND, 0)
        timeline, held, last_sequence, fenced = rows[0]
        if timeline != incarnation.timeline:
            return Appended(AppendStatus.TIMELINE_CHANGED, last_sequence or 0)
        if last_sequence is None:
            return Appended(AppendStatus.SEQUENCE_BEHIND, 0)
        if fenced:
            return Appended(AppendStatus.FENCED, last_sequence)
        if last_sequence != expected:
            ahead = last_sequence > expected
            return Appended(AppendStatus.SEQUENCE_AHEAD if ahead else AppendStatus.SEQUENCE_BEHIND, last_sequence)
        if held and count:
            return Appended(AppendStatus.HELD, last_sequence)
        raise LogUnavailableError("the decision log refused a batch, and then had no reason to; write it again")

    async def read(self, xids: Sequence[Xid]) -> Snapshot:
        """Read decisions with all that they are judged by, in one snapshot on the primary (R7)."""
        incarnations = [xid.incarnation for xid in xids]
        rows = await self._read("read", {"xids": UuidArray.of(xids), "incarnations": incarnations})
        if not rows:
            raise LogUnavailableError("the decision log was never opened")
        held, pruned_below_unix_ms = rows[0][:2]
        owners = (IncarnationState(*row[2:7]) for row in rows if row[2] is not None)
        decisions = (_stored(row[7:]) for row in rows if row[7] is not None)
        return Snapshot(
            {stored.record.xid: stored for stored in decisions},
            {owner.number: owner for owner in owners},
            pruned_below_unix_ms,
            held,
        )

    async def read_requests(self, requests: Sequence[RequestId]) -> Mapping[RequestId, StoredDecision]:
        """Read what request_ids are bound to; unbound ones are absent."""
        # One that PostgreSQL cannot keep is bound to nothing, and must not fail the others (R17).
        asked = [request for request in requests if is_storable(request.tenant) and is_storable(request.name)]
        tenants, names = [request.tenant for request in asked], [request.name for request in asked]
        rows = await self._read("read_requests", {"tenants": tenants, "request_ids": names})
        return {RequestId(row[3], row[4]): _stored(row) for row in rows}

    async def list_decisions(
        self, before: Xid | None, limit: int, decision: Decision | None = None
    ) -> Sequence[StoredDecision]:
        """Decisions, newest xid first, below ``before``, of one kind or of both."""
        kind = None if decision is None else Int2(decision)
        rows = await self._read("list_decisions", {"before": before, "limit": Int8(limit), "decision": kind})
        return [_stored(row) for row in rows]

    async def fence_expired(self, incarnation: Incarnation) -> Sequence[int]:
        """Fence the expired; return the numbers of those to take over (R6)."""
        rows = await self._upkeep.execute(self._sql["fence_expired"], {"incarnation": Int8(incarnation.number)})
        return [number for (number,) in rows]

    async def unfinished(self, incarnation: int) -> Sequence[StoredDecision]:
        """Read an incarnation's decisions that its checkpoint does not call finished, by sequence."""
        rows = await self._read("unfinished", {"incarnation": Int8(incarnation)})
        return [_stored(row) for row in rows]

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace an incarnation's checkpoint. Not forced to disk."""
        parameters = {
            "incarnation": Int8(checkpoint.incarnation),
            "finished_through": Int8(checkpoint.finished_through),
            "stragglers": UuidArray.of(sorted(checkpoint.stragglers)),
        }
        await self._upkeep.execute(self._sql["checkpoint"], parameters)

    async def hold(self, reason: str) -> None:
        """Put the log in HOLD, durably; one that is held keeps its first reason (R15)."""
        await self._upkeep.execute(self._sql["hold"], {"reason": storable(reason)})

    async def record_heuristics(self, records: Sequence[HeuristicRecord]) -> None:
        """Keep heuristic ends durably, each once. What PostgreSQL cannot keep of a message is replaced."""
        parameters = {
            "xids": UuidArray.of([record.xid for record in records]),
            "participants": [record.participant for record in records],
            "heuristics": [int(record.heuristic) for record in records],
            "messages": [storable(record.message) for record in records],
        }
        await self._upkeep.execute(self._sql["record_heuristics"], parameters)

    async def read_heuristics(self, xid: Xid) -> Sequence[HeuristicRecord]:
        """Read the heuristic ends kept of a transaction, by participant."""
        rows = await self._read("read_heuristics", {"xid": xid})
        return [HeuristicRecord(row[0], row[1], Heuristic(row[2]), row[3]) for row in rows]

    async def close(self) -> None:
        """Close the connections. Nothing is written."""
        for connection in (self._appends, self._reads, self._upkeep):
            await connection.close()

    async def _read(self, name: str, parameters: Mapping[str, Parameter]) -> list[TupleRow]:
        return await _read_only(self._reads, self._sql[name], parameters)


async def _read_only(connection: LogConnection, query: bytes, parameters: Mapping[str, Parameter]) -> list[TupleRow]:
    try:
        return await connection.execute(query, parameters)
    except LogUncertainError as error:
        # A read changes nothing: whatever happened to it, it is only no answer.
        raise LogUnavailableError(str(error)) from error


def _stored(row: TupleRow) -> StoredDecision:
    xid, decision, prepared, tenant, request_id, digest, reason, results, incarnation, sequence, decided_unix_ms = row
    request = None if request_id is None else RequestId(tenant, request_id)
    record = DecisionRecord(
        xid, Decision(decision), tuple(prepared or ()), request, digest or b"", reason or "", results or ""
    )
    return StoredDecision(record, incarnation, sequence, decided_unix_ms)
