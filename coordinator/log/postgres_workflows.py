"""Workflows on PostgreSQL, over two connections of their own: neither waits for the decisions', nor they for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from psycopg.rows import TupleRow
from psycopg.types.numeric import Int2, Int8

from coordinator.log import workflow_rows as rows
from coordinator.log.columns import UuidArray
from coordinator.log.connection import LogConnection, Parameter, Timeouts
from coordinator.log.decision_log import Incarnation, LogUnavailableError, LogUncertainError
from coordinator.log.workflow_log import StoredWorkflow, WorkflowChange, WorkflowFilter
from coordinator.protocol.workflow_records import StepRecord, WorkflowRecord
from participant_sdk.ids import Xid


class PostgresWorkflows:
    """The statements ``workflow_*.sql``. ``sql`` has all statements by name."""

    def __init__(self, dsn: str, name: str, timeouts: Timeouts, sql: Mapping[str, bytes]) -> None:
        nothing: Callable[[], None] = lambda: None  # noqa: E731 - what is read here proves nothing of decisions
        self._writes: Final = LogConnection(dsn, f"{name}-workflows", timeouts, nothing)
        self._reads: Final = LogConnection(dsn, f"{name}-workflow-reads", timeouts, nothing)
        self._sql = sql

    @property
    def problem(self) -> str:
        """What the server refuses and no retry is likely to mend; empty where nothing is known of that kind."""
        return self._writes.problem or self._reads.problem

    async def begin(self, incarnation: Incarnation, record: WorkflowRecord) -> StoredWorkflow | None:
        """Keep a new workflow, and tell which one stands there."""
        names: dict[str, Parameter] = {
            "workflow_id": record.workflow_id,
            "tenant": None if record.request is None else record.request.tenant,
            "request_id": None if record.request is None else record.request.name,
        }
        parameters: dict[str, Parameter] = {
            **names,
            "incarnation": Int8(incarnation.number),
            "kind": record.kind,
            "version": record.version,
            "parameters": record.parameters,
            "digest": record.digest,
            "deadline_unix_ms": Int8(record.deadline_unix_ms),
            "lock_keys": list(record.lock_keys),
        }
        await self._writes.execute(self._sql["workflow_begin"], parameters)
        # The same connection: what stands there was durable, or waited for, before it is seen.
        found = await self._stored(self._writes, await self._writes.execute(self._sql["workflow_met"], names))
        return found[0] if found else None

    async def save(self, incarnation: Incarnation, changes: Sequence[WorkflowChange]) -> Sequence[Xid]:
        """Keep changes in one statement; which ones were kept."""
        parameters: dict[str, Parameter] = {
            "incarnation": Int8(incarnation.number),
            "workflows": rows.workflows_text(changes),
            "steps": rows.steps_text(changes),
            "actions": rows.actions_text(changes),
        }
        return [key for (key,) in await self._writes.execute(self._sql["workflow_save"], parameters)]

    async def claim(self, incarnation: Incarnation, limit: int) -> Sequence[StoredWorkflow]:
        """Take over unfinished workflows of fenced incarnations."""
        parameters: dict[str, Parameter] = {"incarnation": Int8(incarnation.number), "limit": Int8(limit)}
        claimed = await self._writes.execute(self._sql["workflow_claim"], parameters)
        return sorted(await self._stored(self._writes, claimed), key=lambda each: each.record.workflow_id)

    async def read(self, workflow_id: Xid) -> StoredWorkflow | None:
        """Read one workflow."""
        parameters: dict[str, Parameter] = {"workflow_id": workflow_id, "tenant": None, "request_id": None}
        found = await self._read("workflow_met", parameters)
        return found[0] if found else None

    async def list(self, wanted: WorkflowFilter, before: Xid | None, limit: int) -> Sequence[StoredWorkflow]:
        """Read workflows, newest first."""
        parameters: dict[str, Parameter] = {
            "before": before,
            "phase": None if wanted.phase is None else Int2(wanted.phase),
            "kind": wanted.kind or None,
            "is_stuck": wanted.is_stuck,
            "limit": Int8(limit),
        }
        return await self._read("workflow_list", parameters)

    async def close(self) -> None:
        """Close the connections."""
        await self._writes.close()
        await self._reads.close()

    async def _read(self, name: str, parameters: Mapping[str, Parameter]) -> Sequence[StoredWorkflow]:
        try:
            return await self._stored(self._reads, await self._reads.execute(self._sql[name], parameters))
        except LogUncertainError as error:
            # A read changes nothing: whatever happened to it, it is only no answer.
            raise LogUnavailableError(str(error)) from error

    async def _stored(self, connection: LogConnection, found: Sequence[TupleRow]) -> list[StoredWorkflow]:
        records = [rows.record_of(row) for row in found]
        steps: dict[Xid, list[StepRecord]] = {record.workflow_id: [] for record in records}
        if records:
            asked: dict[str, Parameter] = {"workflow_ids": UuidArray.of(list(steps))}
            for row in await connection.execute(self._sql["workflow_steps"], asked):
                steps[row[0]].append(rows.step_of(row[1:]))
        return [StoredWorkflow(record, tuple(steps[record.workflow_id])) for record in records]
