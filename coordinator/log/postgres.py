"""The decision log on PostgreSQL: ``sql/*.sql`` over three dedicated connections."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from importlib.resources import files
from struct import Struct
from typing import Final, cast

from psycopg.types.numeric import Int2, Int8

from coordinator.log.columns import UuidArray, is_storable, pack
from coordinator.log.decision_log import (
    Appended,
    AppendStatus,
    Incarnation,
    IncarnationState,
    LogUnavailableError,
    Snapshot,
)
from coordinator.log.postgres_keeping import PostgresKeeping
from coordinator.log.postgres_statements import read_only, stored_decision
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from participant_sdk.ids import RequestId, Xid
from participant_sdk.migrations import migrate
from participant_sdk.xa import Decision

SCHEMA: Final = "txlog"

# Numbers in PostgreSQL's binary form.
_pack_double: Final = Struct("!d").pack
_pack_bigint: Final = Struct("!q").pack


async def migrate_log(dsn: str) -> list[str]:
    """Bring the log's schema up to date; return the names of the migrations applied now.

    Errors are those of ``participant_sdk.migrations.migrate``.
    """
    return await migrate(dsn, files("coordinator.log") / "migrations", SCHEMA)


class PostgresLog(PostgresKeeping):
    """The decision log in one PostgreSQL database, whose schema ``migrate_log`` made."""

    async def open(self, coordinator: str, address: str, lease_s: float) -> Incarnation:
        """Draw a new incarnation, and connect all that its life will use; an epoch's first one names it (R15).

        After LogUncertainError a number may have been drawn that nobody uses: draw again.
        """
        await self._appends.connect()
        await self._reads.connect()
        async with self._upkeep.transaction() as run:
            await run(self._sql["create_log"], {"log_id": secrets.token_hex(8)})
            await run(self._sql["lock_log"], {})
            opening = {"coordinator": coordinator, "address": address, "lease_s": float(lease_s)}
            ((log_id, number, epoch, timeline),) = await run(self._sql["open"], opening)
        return Incarnation(log_id, number, coordinator, address, epoch, timeline, lease_s)

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord], *, burned: int = 0
    ) -> Appended:
        """Renew, advance and insert, in one autocommit statement (R4)."""
        columns = pack(records)
        advance = columns.size + burned
        numbers = (incarnation.number, expected_sequence, advance, columns.size)
        parameters = (_pack_double(incarnation.lease_s), *map(_pack_bigint, numbers), *columns.parameters)
        rows = await self._append(parameters, may_be_first=not advance)
        if not rows:
            return await self._refused(incarnation, expected_sequence, advance)
        ((last_sequence, inserted),) = rows
        if inserted is None:
            return Appended(AppendStatus.WRITTEN, last_sequence)
        present = frozenset(cast("list[int]", inserted))
        conflicts = frozenset(r.xid for s, r in enumerate(records, expected_sequence + 1) if s not in present)
        return Appended(AppendStatus.WRITTEN, last_sequence, conflicts)

    async def _refused(self, incarnation: Incarnation, expected: int, advance: int) -> Appended:
        rows = await read_only(self._appends, self._sql["refusal"], {"incarnation": Int8(incarnation.number)})
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
        if held and advance:
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
        decisions = (stored_decision(row[7:]) for row in rows if row[7] is not None)
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
        return {RequestId(row[3], row[4]): stored_decision(row) for row in rows}

    async def list_decisions(
        self, before: Xid | None, limit: int, decision: Decision | None = None
    ) -> Sequence[StoredDecision]:
        """Decisions, newest xid first, below ``before``, of one kind or of both."""
        kind = None if decision is None else Int2(decision)
        rows = await self._read("list_decisions", {"before": before, "limit": Int8(limit), "decision": kind})
        return [stored_decision(row) for row in rows]
