"""A session that looks at the decision log's server and interferes, and coordinators' group commits on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import psycopg

from coordinator.log.connection import Timeouts
from coordinator.log.decision_log import Appended, LogUncertainError
from coordinator.log.group_commit import GroupCommit
from coordinator.log.reported import Reported
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.events import Recorded
from participant_sdk.clock import SystemClock
from tests.contract.worlds import Coordinator

IMPATIENT = Timeouts(connect_s=3, statement_s=0.4, answer_s=0.8)
PATIENCE_S = 20


class Observer:
    """A session of its own, that looks and interferes."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    async def ask(self, query: bytes, *parameters: object) -> list[tuple[int, ...]]:
        cursor = await self._connection.execute(query, parameters)
        return await cursor.fetchall() if cursor.description else []

    async def backend(self, name: str, waiting: str = "") -> int:
        """The pid of the session of this name, once it waits for this kind of event."""
        query = b"""SELECT pid FROM pg_stat_activity
                    WHERE application_name = %s AND (%s = '' OR wait_event_type = %s OR wait_event = %s)"""
        return (await self.until(bool, query, name, waiting, waiting, waiting))[0][0]

    async def until(
        self, wanted: Callable[[list[tuple[int, ...]]], bool], query: bytes, *parameters: object
    ) -> list[tuple[int, ...]]:
        """Ask until the answer is as wanted: the server has no event for it."""
        async with asyncio.timeout(PATIENCE_S):
            while not wanted(rows := await self.ask(query, *parameters)):  # noqa: ASYNC110 - There is no event.
                await asyncio.sleep(0.005)
        return rows


@asynccontextmanager
async def observing(dsn: str, name: str = "observer") -> AsyncGenerator[Observer]:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, application_name=name)
    async with connection:
        yield Observer(connection)


class Commits:
    """A coordinator's group commit, and what it told."""

    def __init__(self, own: Coordinator) -> None:
        self.recorded: list[tuple[DecisionRecord, Recorded]] = []
        self._told = asyncio.Event()
        self.commit = GroupCommit(
            own.log,
            own.incarnation,
            clock=SystemClock(),
            random=Random(3),
            reported=Reported(own.log, ()),
            participants_of=lambda _: (),
            on_recorded=self._on_recorded,
            on_looked_up=lambda _: None,
            batch_size=64,
        )

    async def told(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.recorded) < count:
                self._told.clear()
                await self._told.wait()

    def _on_recorded(self, batch: list[tuple[DecisionRecord, Recorded]]) -> None:
        self.recorded.extend(batch)
        self._told.set()


@asynccontextmanager
async def committing(own: Coordinator) -> AsyncGenerator[Commits]:
    commits = Commits(own)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(commits.commit.run())
        yield commits
        running.cancel()


async def outcome(append: Awaitable[Appended]) -> Appended | LogUncertainError:
    """What an append was answered, or that this is unknown."""
    try:
        return await append
    except LogUncertainError as error:
        return error
