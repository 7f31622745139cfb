"""A participant by reservation over a fresh database, and short ways to say what it is asked."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import Commit, Operation, Prepare, Rollback, Work
from participant_sdk.resources.invariants import violations
from participant_sdk.resources.reservation import ReservationResource, ReservationService
from participant_sdk.xa import Ack, Vote
from sidecars.main import SIDECARS

LOG_ID = "00000000000000aa"
OTHER_LOG_ID = "00000000000000bb"
INCARNATION = 1_700_000_000
EPOCH = 1


class Participation:
    """One participant, its xids, and its decision sequence. Mutable: it counts."""

    def __init__(self, resource: ReservationResource, dsn: str, xids: XidSource) -> None:
        self.resource = resource
        self.dsn = dsn
        self.sequence = 0
        self._xids = xids

    def xid(self) -> Xid:
        return self._xids.next(time.time_ns() // 1_000_000)

    def branch(self, *operations: tuple[str, str], xid: Xid | None = None, **fields: Any) -> Prepare:
        """A Prepare of (operation, parameters as JSON)."""
        name = self.resource.name
        written = tuple(Operation(name, operation, parameters) for operation, parameters in operations)
        deadline_s = time.monotonic() + 60
        return Prepare(LOG_ID, xid or self.xid(), written, deadline_s, (name,))._replace(**fields)

    def decided(self, prepare: Prepare) -> Commit:
        """A Commit with the next sequence."""
        self.sequence += 1
        return Commit(prepare.log_id, prepare.xid, INCARNATION, self.sequence, EPOCH)

    def rollback_of(self, prepare: Prepare) -> Rollback:
        return Rollback(prepare.log_id, prepare.xid)

    async def prepare(self, *prepares: Prepare) -> Sequence[Vote]:
        return await self.resource.prepare(prepares)

    async def commit(self, *prepares: Prepare) -> Sequence[Ack]:
        return await self.resource.commit([self.decided(prepare) for prepare in prepares])

    async def rollback(self, *prepares: Prepare) -> Sequence[Ack]:
        return await self.resource.rollback([self.rollback_of(prepare) for prepare in prepares])

    async def vote(self, *operations: tuple[str, str], **fields: Any) -> Vote:
        """Prepare one branch and leave it there."""
        return (await self.prepare(self.branch(*operations, **fields)))[0]

    async def do(self, *operations: tuple[str, str]) -> Vote:
        """Prepare one branch, which must say yes, and commit it."""
        prepare = self.branch(*operations)
        vote = (await self.prepare(prepare))[0]
        assert vote.is_yes, vote
        answers = await self.resource.apply(Work(commits=[self.decided(prepare)]))
        assert answers.commits[0].kind == 1, answers
        return vote

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the database itself."""
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            cursor = await connection.execute(query.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def violations(self) -> list[str]:
        """What the service's invariants find wrong."""
        return await violations(self.dsn, SIDECARS[self.resource.name].service.invariants)


@asynccontextmanager
async def participating(
    dsn: str, name: str, *, connections: int = 4, service: ReservationService | None = None
) -> AsyncGenerator[Participation]:
    """Open a shipped participant over a database."""
    opened = ReservationResource.open(
        name, service or SIDECARS[name].service, dsn, SystemClock(), connections=connections
    )
    async with opened as resource:
        yield Participation(resource, dsn, XidSource(INCARNATION))
