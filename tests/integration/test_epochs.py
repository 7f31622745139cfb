"""Adopting an epoch waits for the Commits that have begun, in whatever process, and shuts out the others (R15)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

from participant_sdk.branch import BranchPhase
from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid
from participant_sdk.participant import Commit, Operation, Participant, Prepare
from participant_sdk.resources.postgres_xa import PostgresXaResource, XaConnections
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.xa import STALE, AckKind
from sidecars.trading import operations as trading
from tests.conftest import MakeDatabase
from tests.contract.branch_subjects import (
    BANK,
    BANK_OPERATIONS,
    INCARNATION,
    LOG,
    TRADING,
    an_xid,
    fill_bank,
    prepare_of,
)
from tests.integration.xa_bank import run_sql

OLD = 5
NEW = 9
CONNECTIONS = XaConnections(work=2, finishing=4, embedded=1, lock_timeout_ms=2_000)
# Who waits for a lock, for whatever kind of it, in this database.
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two processes of one participant, what holds up any Commit in its midst, and one that does not end."""

    one: Participant
    other: Participant
    dsn: str
    yes: Operation
    obstacle: str
    unending: str

    async def prepared(self) -> Xid:
        xid = an_xid()
        (vote,) = await self.one.prepare([self._branch(xid)])
        assert vote.is_yes
        return xid

    def _branch(self, xid: Xid) -> Prepare:
        return prepare_of(xid, self.yes)

    async def phase(self, xid: Xid) -> BranchPhase:
        branch = await self.other.branch(LOG, xid)
        assert branch is not None
        return branch.phase

    @asynccontextmanager
    async def meanwhile(self, statement: str) -> AsyncGenerator[None]:
        """Hold what the statement locks, until the block ends."""
        async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
            await connection.execute(statement.encode())
            yield
            await connection.rollback()

    async def until_waiting(self, count: int, *tasks: asyncio.Task[object]) -> None:
        """Wait until so many sessions wait for locks; none of the tasks may end before."""
        while await run_sql(self.dsn, WAITING) != [(count,)]:
            assert [task.result() for task in tasks if task.done()] == []
        assert not any(task.done() for task in tasks)


@pytest.fixture(params=["reservation", "postgres_xa"])
async def pair(request: pytest.FixtureRequest, databases: MakeDatabase) -> AsyncGenerator[Pair]:
    dsn = await databases("pair")
    if request.param == "postgres_xa":
        await fill_bank(dsn)
    async with AsyncExitStack() as stack:

        async def process() -> Participant:
            if request.param == "reservation":
                return await stack.enter_async_context(
                    ReservationResource.open("trading", trading.SERVICE, dsn, SystemClock())
                )
            return await stack.enter_async_context(
                PostgresXaResource.open("bank", dsn, BANK_OPERATIONS, connections=CONNECTIONS)
            )

        one, other = await process(), await process()
        await one.adopt_epoch(LOG, OLD)
        if request.param == "reservation":
            obstacle = "select from trading.books for no key update"
            unending = "select pg_advisory_xact_lock_shared(hashtext('pincex.epoch'), log) from pincex.logs"
            yield Pair(one, other, dsn, TRADING.yes, obstacle, unending)
        else:
            obstacle = "lock table pincex_xa.decisions in exclusive mode"
            unending = f"select pg_advisory_xact_lock_shared(hashtext('pincex_xa.epoch'), hashtext('bank:{LOG}'))"
            yield Pair(one, other, dsn, BANK.yes, obstacle, unending)


async def test_an_epoch_is_adopted_once_the_commits_that_began_are_over_and_the_report_tells_of_them(
    pair: Pair,
) -> None:
    """The report would be too low, and the Commit would land after it: one service committed, the log without a row."""
    xid = await pair.prepared()
    async with asyncio.TaskGroup() as tasks, pair.meanwhile(pair.obstacle):
        begun = tasks.create_task(pair.one.commit([Commit(LOG, xid, INCARNATION, 7, OLD)]))
        await pair.until_waiting(1, begun)
        reporting = tasks.create_task(_report(pair.other))
        await pair.until_waiting(2, begun, reporting)
    assert [ack.kind for ack in begun.result()] == [AckKind.DONE]
    assert reporting.result() == (NEW, {INCARNATION: 7})
    assert await pair.phase(xid) is BranchPhase.COMMITTED


async def test_a_commit_that_comes_while_an_epoch_is_adopted_waits_and_is_stale(pair: Pair) -> None:
    """It does not slip in before the one that waits, however busy the participant is."""
    first, second = await pair.prepared(), an_xid()
    async with asyncio.TaskGroup() as tasks, pair.meanwhile(pair.obstacle):
        begun = tasks.create_task(pair.one.commit([Commit(LOG, first, INCARNATION, 7, OLD)]))
        await pair.until_waiting(1, begun)
        reporting = tasks.create_task(_report(pair.other))
        await pair.until_waiting(2, begun, reporting)
        late = tasks.create_task(pair.one.commit([Commit(LOG, second, INCARNATION, 8, OLD)]))
        await pair.until_waiting(3, begun, reporting, late)
    assert list(late.result()) == [STALE]
    assert reporting.result() == (NEW, {INCARNATION: 7})


async def test_what_another_process_adopted_counts_here_at_once(pair: Pair) -> None:
    """Nothing that this process remembers of the log lets the Commit pass."""
    xid = await pair.prepared()
    assert await _report(pair.other) == (NEW, {})
    assert list(await pair.one.commit([Commit(LOG, xid, INCARNATION, 7, OLD)])) == [STALE]
    assert await pair.phase(xid) is BranchPhase.PREPARED
    assert dict(await pair.other.watermarks(LOG)) == {}


async def test_an_epoch_whose_commits_do_not_end_is_not_adopted(pair: Pair) -> None:
    """The introduction goes unanswered, and comes again; nothing waits for ever."""
    xid = await pair.prepared()
    async with pair.meanwhile(pair.unending):
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await _report(pair.other)
        commit = Commit(LOG, xid, INCARNATION, 7, OLD)
        assert [ack.kind for ack in await pair.one.commit([commit])] == [AckKind.DONE]
    assert await pair.other.adopt_epoch(LOG, 0) == OLD


async def _report(participant: Participant) -> tuple[int, dict[int, int]]:
    """What a participant does to answer an introduction of the new epoch."""
    held = await participant.adopt_epoch(LOG, NEW)
    return held, dict(await participant.watermarks(LOG))
