"""The sidecar's participant in this process, over a scripted service and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg

from participant_sdk.branch import BranchPhase
from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import Branch, Commit, Operation, Prepare, Rollback
from participant_sdk.resources.invariants import violations
from participant_sdk.xa import Ack, Vote
from sidecars.http.participant import HttpParticipant
from sidecars.http.planning import INVARIANTS
from sidecars.sidecar import Surroundings
from tests.http_sidecar.inventory import target_at
from tests.http_sidecar.scripted import Answer, Scripted, scripted

LOG: Final = "0123456789abcdef"
INCARNATION: Final = 7
NAME: Final = "inventory"
TIMEOUT_S: Final = 2.0
OPERATION: Final = Operation(NAME, "reserve", '{"sku":"bolt","price":1.10}')
CLOCK: Final = SystemClock()
_XIDS: Final = XidSource(INCARNATION)


def an_xid() -> Xid:
    return _XIDS.next(CLOCK.unix_ms())


def a_prepare(xid: Xid | None = None, *, request_id: str = "", remaining_s: float = 60.0, count: int = 1) -> Prepare:
    deadline_s = CLOCK.monotonic_s() + remaining_s
    return Prepare(LOG, xid or an_xid(), (OPERATION,) * count, deadline_s, (NAME,), "default", request_id)


@dataclass(frozen=True, slots=True)
class AtWork:
    """The participant, its service and its database."""

    participant: HttpParticipant
    service: Scripted
    dsn: str

    async def vote(self, prepare: Prepare) -> Vote:
        (vote,) = await self.participant.prepare([prepare])
        return vote

    async def prepared(self) -> Xid:
        prepare = a_prepare()
        assert (await self.vote(prepare)).is_yes
        return prepare.xid

    async def commit(self, xid: Xid, sequence: int = 1) -> Ack:
        (ack,) = await self.participant.commit([Commit(LOG, xid, INCARNATION, sequence)])
        return ack

    def a_rollback(self, xid: Xid) -> Rollback:
        return Rollback(LOG, xid)

    async def rollback(self, xid: Xid) -> Ack:
        (ack,) = await self.participant.rollback([self.a_rollback(xid)])
        return ack

    async def branch(self, xid: Xid) -> Branch:
        branch = await self.participant.branch(LOG, xid)
        assert branch is not None
        return branch

    async def phase(self, xid: Xid) -> BranchPhase:
        return (await self.branch(xid)).phase

    async def number(self, query: LiteralString) -> int:
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            row = await (await connection.execute(query)).fetchone()
        assert row is not None
        return int(row[0])

    async def until_nothing_is_held(self) -> None:
        await self.until_only_held(0)

    async def until_only_held(self, count: int) -> None:
        """Return once the journal has so many rows."""
        async with asyncio.timeout(30):
            while await self.number("select count(*) from http.held") != count:  # noqa: ASYNC110 - of a database
                await asyncio.sleep(0.02)


@asynccontextmanager
async def opened(dsn: str, service: Scripted, **settings: Any) -> AsyncGenerator[AtWork]:
    """Open the participant over this service for the time of the block."""
    target = target_at(service.address, **{"timeout_s": TIMEOUT_S, **settings})
    surroundings = Surroundings(NAME, dsn, CLOCK, {})
    async with (
        HttpParticipant.open(NAME, target, dsn, CLOCK, connections=3) as participant,
        asyncio.TaskGroup() as group,
    ):
        attending = group.create_task(participant.attend(surroundings))
        yield AtWork(participant, service, dsn)
        attending.cancel()
    assert await violations(dsn, INVARIANTS) == []


@asynccontextmanager
async def at_work(dsn: str, **answers: Answer) -> AsyncGenerator[AtWork]:
    """Serve and open both."""
    async with scripted(**answers) as service, opened(dsn, service) as working:
        yield working


@asynccontextmanager
async def journal_locked(dsn: str) -> AsyncGenerator[None]:
    """Keep everybody else from writing to the journal for the time of the block."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection, connection.transaction():
        await connection.execute("lock table http.held in exclusive mode")
        yield


async def until_blocked(dsn: str, word: str) -> None:
    """Return once a statement with this word in it waits for a lock."""
    async with (
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection,
        asyncio.timeout(30),
    ):
        waiting = (
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock' and query like %s"
        )
        while True:
            row = await (await connection.execute(waiting, [f"%{word}%"])).fetchone()
            if row is not None and row[0]:
                return
            await asyncio.sleep(0.02)
