"""The decision log in memory, with a gate through which the simulator breaks it.

``MemoryLog`` is one process's handle on a ``MemoryLogStore``; several handles on one store are
several coordinators on one log. Every statement passes the gate twice, before and after it
takes effect. There the gate may wait (a slow log), raise LogUnavailableError before (the
statement did nothing), raise LogUncertainError after (done, but the answer is lost) or before
(lost with the connection). A statement that takes effect after its connection was lost is made
by calling ``Statement.apply`` later and raising LogUncertainError at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from coordinator.log.columns import pack, storable
from coordinator.log.decision_log import (
    Appended,
    Checkpoint,
    Incarnation,
    LogUnavailableError,
    Snapshot,
)
from coordinator.log.memory_store import MemoryLogStore
from coordinator.protocol.effects import DecisionRecord, HeuristicRecord, StoredDecision
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision

Rows = TypeVar("Rows")
Rows_co = TypeVar("Rows_co", covariant=True)


class Moment(Enum):
    """When a statement passes the gate."""

    BEFORE = auto()
    AFTER = auto()


class Statement(Generic[Rows_co]):
    """One statement on its way: ``name`` is the method's. It takes effect once, however often applied."""

    __slots__ = ("_answers", "_effect", "name")

    def __init__(self, name: str, effect: Callable[[], Rows_co]) -> None:
        self.name = name
        self._effect = effect
        self._answers: list[Rows_co] = []

    def apply(self) -> Rows_co:
        """Take effect on the store now, unless it did; return the answer."""
        if not self._answers:
            self._answers.append(self._effect())
        return self._answers[0]


class Gate(Protocol):
    """What a statement passes before and after it takes effect."""

    async def __call__(self, moment: Moment, statement: Statement[object], /) -> None:
        """Let it pass by returning; wait, or raise one of the log's errors."""
        ...


async def _open_gate(_moment: Moment, _statement: Statement[object]) -> None:
    """Let everything pass at once."""


class MemoryLog:
    """One process's decision log in memory. It passes the same contract suite as ``PostgresLog``."""

    def __init__(self, store: MemoryLogStore, gate: Gate = _open_gate) -> None:
        self._store = store
        self._gate = gate
        self._closed = False

    async def open(self, coordinator: str, address: str, lease_s: float) -> Incarnation:
        """Draw a new incarnation."""
        return await self._run("open", lambda: self._store.open(coordinator, address, lease_s))

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord]
    ) -> Appended:
        """Renew, advance and insert, atomically."""
        pack(records)
        batch = tuple(records)
        return await self._run("append", lambda: self._store.append(incarnation, expected_sequence, batch))

    async def read(self, xids: Sequence[Xid]) -> Snapshot:
        """Read decisions with all that they are judged by."""
        return await self._run("read", lambda: self._store.read(xids))

    async def read_requests(self, requests: Sequence[RequestId]) -> Mapping[RequestId, StoredDecision]:
        """Read what request_ids are bound to."""
        return await self._run("read_requests", lambda: self._store.read_requests(requests))

    async def list_decisions(
        self, before: Xid | None, limit: int, decision: Decision | None = None
    ) -> Sequence[StoredDecision]:
        """Decisions, newest xid first, below ``before``, of one kind or of both."""
        return await self._run("list_decisions", lambda: self._store.list_decisions(before, limit, decision))

    async def fence_expired(self, incarnation: Incarnation) -> Sequence[int]:
        """Fence the expired; return the numbers of those to take over."""
        return await self._run("fence_expired", lambda: self._store.fence_expired(incarnation))

    async def unfinished(self, incarnation: int) -> Sequence[StoredDecision]:
        """Read an incarnation's decisions that its checkpoint does not call finished."""
        return await self._run("unfinished", lambda: self._store.unfinished(incarnation))

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace an incarnation's checkpoint."""
        await self._run("checkpoint", lambda: self._store.checkpoint(checkpoint))

    async def hold(self, reason: str) -> None:
        """Put the log in HOLD."""
        await self._run("hold", lambda: self._store.hold(storable(reason)))

    async def record_heuristics(self, records: Sequence[HeuristicRecord]) -> None:
        """Keep heuristic ends, each once."""
        kept = [record._replace(message=storable(record.message)) for record in records]
        await self._run("record_heuristics", lambda: self._store.record_heuristics(kept))

    async def read_heuristics(self, xid: Xid) -> Sequence[HeuristicRecord]:
        """Read the heuristic ends kept of a transaction, by participant."""
        return await self._run("read_heuristics", lambda: self._store.read_heuristics(xid))

    async def close(self) -> None:
        """Let go of the store. Nothing is written."""
        self._closed = True

    async def _run(self, name: str, effect: Callable[[], Rows]) -> Rows:
        if self._closed:
            raise LogUnavailableError("the log was closed")
        statement = Statement(name, effect)
        await self._gate(Moment.BEFORE, statement)
        answer = statement.apply()
        await self._gate(Moment.AFTER, statement)
        return answer
