"""Workflows in memory: each statement does what the ``workflow_*.sql`` file of its name does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from coordinator.log.columns import storable
from coordinator.log.decision_log import Incarnation
from coordinator.log.memory_tables import Tables
from coordinator.log.workflow_log import StoredWorkflow, WorkflowChange, WorkflowFilter
from coordinator.protocol.workflow_records import StepRecord, WorkflowRecord
from participant_sdk.ids import Xid

Rows = TypeVar("Rows")


class Run(Protocol):
    """Passes a statement through the gate; its name and its effect on the tables."""

    def __call__(self, name: str, effect: Callable[[], Rows], /) -> Awaitable[Rows]:
        """Run it, as the log's other statements are."""
        ...


class MemoryWorkflows:
    """One process's way to the workflows of a store in memory."""

    def __init__(self, tables: Callable[[], Tables], run: Run, read: Run) -> None:
        self._tables = tables
        self._run = run
        self._read_through = read

    async def begin(self, incarnation: Incarnation, record: WorkflowRecord) -> StoredWorkflow | None:
        """Keep a new workflow, and tell which one stands there."""

        def effect() -> StoredWorkflow | None:
            tables = self._tables()
            met = _met(tables, record)
            if met is None and tables.is_live(incarnation) and not tables.held:
                met = tables.workflows[record.workflow_id] = StoredWorkflow(
                    replace(record, incarnation=incarnation.number), ()
                )
            return met

        return await self._run("workflow_begin", effect)

    async def save(self, incarnation: Incarnation, changes: Sequence[WorkflowChange]) -> Sequence[Xid]:
        """Keep changes; which ones were kept."""
        return await self._run("workflow_save", lambda: _save(self._tables(), incarnation, changes))

    async def claim(self, incarnation: Incarnation, limit: int) -> Sequence[StoredWorkflow]:
        """Take over unfinished workflows of fenced incarnations."""

        def effect() -> Sequence[StoredWorkflow]:
            tables = self._tables()
            if not tables.is_live(incarnation):
                return []
            left_behind = [
                stored
                for _, stored in sorted(tables.workflows.items())
                if not stored.record.is_finished and not tables.incarnations[stored.record.incarnation].is_live
            ][:limit]
            claimed = [
                stored._replace(record=replace(stored.record, incarnation=incarnation.number)) for stored in left_behind
            ]
            tables.workflows.update({stored.record.workflow_id: stored for stored in claimed})
            return claimed

        return await self._run("workflow_claim", effect)

    async def read(self, workflow_id: Xid) -> StoredWorkflow | None:
        """Read one workflow."""
        return await self._read_through("workflow_read", lambda: self._tables().workflows.get(workflow_id))

    async def list(self, wanted: WorkflowFilter, before: Xid | None, limit: int) -> Sequence[StoredWorkflow]:
        """Read workflows, newest first."""

        def effect() -> Sequence[StoredWorkflow]:
            newest_first = sorted(self._tables().workflows.items(), reverse=True)
            return [
                stored
                for key, stored in newest_first
                if (before is None or key < before)
                and wanted.phase in (None, stored.record.phase)
                and wanted.kind in ("", stored.record.kind)
                and (not wanted.is_stuck or stored.record.stuck is not None)
            ][:limit]

        return await self._read_through("workflow_list", effect)

    async def close(self) -> None:
        """Nothing to let go of."""


def _met(tables: Tables, record: WorkflowRecord) -> StoredWorkflow | None:
    for stored in tables.workflows.values():
        is_same_request = record.request is not None and stored.record.request == record.request
        if stored.record.workflow_id == record.workflow_id or is_same_request:
            return stored
    return None


def _save(tables: Tables, incarnation: Incarnation, changes: Sequence[WorkflowChange]) -> Sequence[Xid]:
    saved: list[Xid] = []
    for change in changes:
        key = change.record.workflow_id
        stored = tables.workflows.get(key)
        if stored is None or stored.record.incarnation != incarnation.number or not tables.is_live(incarnation):
            continue
        steps: dict[int, StepRecord] = {step.position: step for step in stored.steps}
        steps.update({step.position: step for step in change.steps})
        record = replace(
            change.record,
            incarnation=incarnation.number,
            cancelled=storable(change.record.cancelled),
            result=storable(change.record.result),
        )
        tables.workflows[key] = StoredWorkflow(record, tuple(steps[at] for at in sorted(steps)))
        if change.action is not None:
            tables.actions.append(change.action)
        saved.append(key)
    return saved
