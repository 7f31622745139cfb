"""The two decision logs as worlds of one shape, and coordinators that append to either."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Protocol

import psycopg
from psycopg.rows import TupleRow

from coordinator.log.decision_log import (
    Appended,
    AppendStatus,
    DecisionLog,
    Incarnation,
    LogUnavailableError,
    OperatorAction,
)
from coordinator.log.memory import MemoryLog
from coordinator.log.memory_store import MemoryLogStore
from coordinator.log.postgres import PostgresLog
from coordinator.protocol.effects import DecisionRecord
from participant_sdk.clock import SystemClock
from participant_sdk.ids import RequestId, Xid, XidSource
from participant_sdk.xa import Decision

LEASE_S = 30.0
SHORT_LEASE_S = 0.05


class World(Protocol):
    """One log, seen from outside."""

    def handle(self) -> DecisionLog: ...

    async def prune_below(self, unix_ms: int) -> None: ...

    async def release(self) -> None: ...

    async def end_timeline(self, incarnation: Incarnation) -> Incarnation:
        """Make the incarnation one of a timeline that is over; return how it remembers itself."""
        ...

    async def come_from_another_server(self, number: int) -> None:
        """Make the incarnation one of a higher timeline: the log came from there in a dump."""
        ...

    async def grow_old(self) -> None:
        """Make every incarnation one that was drawn a thousand seconds earlier."""
        ...

    async def actions(self) -> list[OperatorAction]:
        """What operators did, in order."""
        ...


class MemoryWorld:
    def __init__(self) -> None:
        self.store = MemoryLogStore(SystemClock(), "0123456789abcdef")

    def handle(self) -> DecisionLog:
        return MemoryLog(self.store)

    async def prune_below(self, unix_ms: int) -> None:
        self.store.tables.pruned_below_unix_ms = unix_ms

    async def release(self) -> None:
        self.store.tables.held, self.store.tables.held_since_ms = "", 0

    async def end_timeline(self, incarnation: Incarnation) -> Incarnation:
        self.store.restore(self.store.copy(), new_timeline=True)
        return incarnation

    async def come_from_another_server(self, number: int) -> None:
        self.store.tables.incarnations[number].timeline += 4

    async def grow_old(self) -> None:
        rows = self.store.tables.incarnations
        for number in list(rows):
            row = rows.pop(number)
            row.number -= 1000
            rows[row.number] = row

    async def actions(self) -> list[OperatorAction]:
        return self.store.tables.actions


class PostgresWorld:
    def __init__(self, dsn: str, closing: AsyncExitStack) -> None:
        self.dsn = dsn
        self.closing = closing

    def handle(self) -> DecisionLog:
        log = PostgresLog(self.dsn)
        self.closing.push_async_callback(log.close)
        return log

    async def prune_below(self, unix_ms: int) -> None:
        await self._execute(b"UPDATE txlog.log SET pruned_below_unix_ms = %s", [unix_ms])

    async def release(self) -> None:
        await self._execute(b"UPDATE txlog.log SET held_since = NULL, held_reason = NULL", [])

    async def end_timeline(self, incarnation: Incarnation) -> Incarnation:
        query = b"UPDATE txlog.incarnations SET timeline = timeline - 1 WHERE incarnation = %s"
        await self._execute(query, [incarnation.number])
        return replace(incarnation, timeline=incarnation.timeline - 1)

    async def come_from_another_server(self, number: int) -> None:
        await self._execute(b"UPDATE txlog.incarnations SET timeline = timeline + 4 WHERE incarnation = %s", [number])

    async def grow_old(self) -> None:
        await self._execute(b"UPDATE txlog.incarnations SET incarnation = incarnation - 1000", [])

    async def actions(self) -> list[OperatorAction]:
        query = b"SELECT action, reason, xid, participant, detail FROM txlog.operator_actions ORDER BY id"
        rows = await self._execute(query, [])
        return [OperatorAction(a, r, None if x is None else Xid(x.bytes), p, d) for a, r, x, p, d in rows]

    async def _execute(self, query: bytes, parameters: Sequence[int]) -> list[TupleRow]:
        connection = await psycopg.AsyncConnection.connect(self.dsn, autocommit=True)
        async with connection:
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall() if cursor.description else []


class Coordinator:
    """One incarnation that makes records and appends them."""

    def __init__(self, log: DecisionLog, incarnation: Incarnation) -> None:
        self.log = log
        self.incarnation = incarnation
        self.number = incarnation.number
        self.sequence = 0
        self._xids = XidSource(incarnation.number)

    def record(
        self, request: str = "", *, decision: Decision = Decision.COMMIT, unix_ms: int | None = None
    ) -> DecisionRecord:
        """Make a record with the next xid; of this moment, or with this one in it."""
        bound = RequestId("default", request) if request else None
        xid = self._xids.next(time.time_ns() // 1_000_000)
        if unix_ms is not None:
            xid = Xid.make(unix_ms, self.number, xid.sequence)
        return DecisionRecord(xid, decision, ("bookkeeper",), bound)

    async def append(self, *records: DecisionRecord) -> Appended:
        generation = self.log.generation
        try:
            appended = await self.log.append(self.incarnation, self.sequence, records)
        except LogUnavailableError:
            if self.log.generation == generation:
                raise
            # It was connected to again, and nothing was sent.
            appended = await self.log.append(self.incarnation, self.sequence, records)
        if appended.status is AppendStatus.WRITTEN:
            self.sequence = appended.last_sequence
        return appended


async def started(log: DecisionLog, name: str = "one", lease_s: float = LEASE_S) -> Coordinator:
    return Coordinator(log, await log.open(name, f"{name}:50051", lease_s))


async def fenced_by(log: DecisionLog, fencer: Coordinator, wanted: list[int]) -> None:
    """Fence until exactly these are to be taken over: their leases expire meanwhile."""
    async with asyncio.timeout(10):
        while list(await log.fence_expired(fencer.incarnation)) != wanted:
            await fencer.append()
            await asyncio.sleep(SHORT_LEASE_S / 5)
