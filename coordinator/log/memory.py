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
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Generic, Protocol, TypeVar

from coordinator.log.columns import kept, pack, storable
from coordinator.log.decision_log import (
    Appended,
    Checkpoint,
    Incarnation,
    LogUnavailableError,
    LogUncertainError,
    OperatorAction,
    Release,
    Snapshot,
    Standing,
)
from coordinator.log.memory_store import MemoryLogStore
from coordinator.log.memory_workflows import MemoryWorkflows
from coordinator.log.releasing import check_columns
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
    """One statement on its way: ``name`` is the method's. It takes effect once, however often applied.

    LogUncertainError from ``apply`` when the store was restored meanwhile: the server that it was sent to is gone.
    """

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
    """One process's decision log in memory. It passes the same contract suite as ``PostgresLog``.

    It connects, in one connection, when it has something to say and is not connected: at first, after
    ``disconnect``, after an unknown result, and after the store lost its connections.
    """

    def __init__(self, store: MemoryLogStore, gate: Gate = _open_gate) -> None:
        self._store = store
        self._gate = gate
        self._closed = False
        self._generation = 0
        self._connection: int | None = None
        self._workflows = MemoryWorkflows(lambda: store.tables, self._run, self._read)

    @property
    def workflows(self) -> MemoryWorkflows:
        """The statements about workflows."""
        return self._workflows

    @property
    def generation(self) -> int:
        """How often it was connected to (R15)."""
        return self._generation

    @property
    def problem(self) -> str:
        """Nothing: there is no server to refuse anything for good."""
        return ""

    def disconnect(self) -> None:
        """Lose the connection; the next statement opens another one."""
        self._connection = None

    async def open(self, coordinator: str, address: str, lease_s: float) -> Incarnation:
        """Draw a new incarnation."""
        return await self._run("open", lambda: self._store.open(coordinator, address, lease_s))

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord], *, burned: int = 0
    ) -> Appended:
        """Renew, advance and insert, atomically."""
        pack(records)
        if not self._is_connected and (records or burned):
            self._connect()
            raise LogUnavailableError("the log was connected to again; write it again")
        batch = tuple(kept(record) for record in records)
        return await self._run("append", lambda: self._store.append(incarnation, expected_sequence, batch, burned))

    async def read(self, xids: Sequence[Xid]) -> Snapshot:
        """Read decisions with all that they are judged by."""
        return await self._read("read", lambda: self._store.read(xids))

    async def read_requests(self, requests: Sequence[RequestId]) -> Mapping[RequestId, StoredDecision]:
        """Read what request_ids are bound to."""
        return await self._read("read_requests", lambda: self._store.read_requests(requests))

    async def list_decisions(
        self, before: Xid | None, limit: int, decision: Decision | None = None
    ) -> Sequence[StoredDecision]:
        """Decisions, newest xid first, below ``before``, of one kind or of both."""
        return await self._read("list_decisions", lambda: self._store.list_decisions(before, limit, decision))

    async def fence_expired(self, incarnation: Incarnation, *, resigned_only: bool = False) -> Sequence[int]:
        """Fence the expired; return the numbers of those to take over."""
        effect = partial(self._store.fence_expired, incarnation, resigned_only=resigned_only)
        return await self._run("fence_expired", effect)

    async def unfinished(self, incarnation: int) -> Sequence[StoredDecision]:
        """Read an incarnation's decisions that its checkpoint does not call finished."""
        return await self._read("unfinished", lambda: self._store.unfinished(incarnation))

    async def checkpoint(self, checkpoint: Checkpoint) -> None:
        """Replace an incarnation's checkpoint."""
        await self._run("checkpoint", lambda: self._store.checkpoint(checkpoint))

    async def standing(self) -> Standing:
        """How the log stands now."""
        return await self._read("standing", self._store.standing)

    async def read_sequences(self, numbers: Sequence[int]) -> Mapping[int, int]:
        """The last sequence of incarnations that the log knows."""
        return await self._read("read_sequences", lambda: self._store.read_sequences(numbers))

    async def read_applied(self, participant: str) -> Mapping[int, int]:
        """By incarnation, the highest sequence that a participant acknowledged."""
        return await self._read("read_applied", lambda: self._store.read_applied(participant))

    async def commits_above(self, participant: str, above: Mapping[int, int], limit: int) -> Sequence[StoredDecision]:
        """Retained COMMITs that a participant prepared, above sequences; in order."""
        asked = dict(above)
        return await self._read("commits_above", lambda: self._store.commits_above(participant, asked, limit))

    async def hold(self, reason: str) -> None:
        """Put the log in HOLD, and fence every live incarnation."""
        await self._run("hold", lambda: self._store.hold(storable(reason)))

    async def hold_above(self, incarnation: Incarnation, epoch: int, reason: str) -> bool:
        """Put the log in HOLD, and have the next epoch be above one."""
        return await self._run("hold_above", lambda: self._store.hold_above(incarnation, epoch, storable(reason)))

    async def release(self, incarnation: Incarnation, release: Release) -> None:
        """End HOLD, and put back what is restored."""
        check_columns(release)
        await self._run("release", lambda: self._store.release(incarnation, release))

    async def resign(self, incarnation: Incarnation) -> None:
        """End this incarnation by its own will."""
        await self._run("resign", lambda: self._store.resign(incarnation))

    async def prune(self, retention_s: float, limit: int, now_unix_ms: int) -> int:
        """Raise the horizon, and delete decisions below it."""
        return await self._run("prune", lambda: self._store.prune(retention_s, limit, now_unix_ms))

    async def record_heuristics(self, records: Sequence[HeuristicRecord]) -> None:
        """Keep heuristic ends, each once."""
        storable_ = [record._replace(message=storable(record.message)) for record in records]
        await self._run("record_heuristics", lambda: self._store.record_heuristics(storable_))

    async def read_heuristics(self, xid: Xid) -> Sequence[HeuristicRecord]:
        """Read the heuristic ends kept of a transaction, by participant."""
        return await self._read("read_heuristics", lambda: self._store.read_heuristics(xid))

    async def list_heuristics(self, after: Xid | None, limit: int) -> Sequence[HeuristicRecord]:
        """Heuristic ends that are not forgotten, by xid and participant."""
        return await self._read("list_heuristics", lambda: self._store.list_heuristics(after, limit))

    async def forget_heuristics(self, xid: Xid, reason: str) -> Sequence[HeuristicRecord]:
        """Mark a transaction's heuristic ends as dealt with."""
        return await self._run("forget_heuristics", lambda: self._store.forget_heuristics(xid, storable(reason)))

    async def draw_lock_epoch(self, reason: str) -> int:
        """Draw an epoch of fencing tokens."""
        return await self._run("draw_lock_epoch", lambda: self._store.draw_lock_epoch(storable(reason)))

    async def highest_lock_epoch(self) -> int:
        """Read the highest epoch of fencing tokens ever drawn."""
        return await self._read("highest_lock_epoch", self._store.highest_lock_epoch)

    async def record_action(self, action: OperatorAction) -> None:
        """Keep what an operator did."""
        kept_action = replace(action, reason=storable(action.reason), detail=storable(action.detail))
        await self._run("record_action", lambda: self._store.record_action(kept_action))

    async def close(self) -> None:
        """Let go of the store. Nothing is written."""
        self._closed = True

    @property
    def _is_connected(self) -> bool:
        return self._connection == self._store.connections

    def _connect(self) -> None:
        self._connection = self._store.connections
        self._generation += 1

    async def _read(self, name: str, effect: Callable[[], Rows]) -> Rows:
        try:
            return await self._run(name, effect)
        except LogUncertainError as error:
            # A read changes nothing: whatever happened to it, it is only no answer.
            raise LogUnavailableError(str(error)) from error

    async def _run(self, name: str, effect: Callable[[], Rows]) -> Rows:
        if self._closed:
            raise LogUnavailableError("the log was closed")
        if not self._is_connected:
            self._connect()
        try:
            return await self._pass_gate(Statement(name, self._store.bound(effect)), self._store.connections)
        except LogUncertainError:
            self.disconnect()
            raise

    async def _pass_gate(self, statement: Statement[Rows], connections: int) -> Rows:
        await self._gate(Moment.BEFORE, statement)
        answer = statement.apply()
        await self._gate(Moment.AFTER, statement)
        if connections != self._store.connections:
            raise LogUncertainError("the store lost its connections")
        return answer
