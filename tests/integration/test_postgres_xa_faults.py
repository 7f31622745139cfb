"""Faults under a PostgreSQL XA resource: lost sessions, cancelled calls, warnings, full slots, killed servers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from coordinator.embedded.postgres import EmbeddedPostgres, Shutdown
from participant_sdk.branch import BranchPhase
from participant_sdk.participant import Commit, RecoverQuery, Work
from participant_sdk.resources.postgres_lane import Connection
from participant_sdk.resources.postgres_operations import Parameters
from participant_sdk.resources.postgres_xa import PostgresXaResource, PreparedTransactionsDisabledError
from participant_sdk.xa import AckKind, Decision, Heuristic, VoteKind, XaCode
from tests.contract.branch_subjects import BANK_OPERATIONS, LOG, an_xid, fill_bank, prepare_of
from tests.integration.xa_bank import (
    balance,
    bank,
    commit,
    credit,
    do,
    gid,
    prepared_gids,
    rollback,
    run_sql,
    vote,
)


@pytest.fixture
async def dsn(database: str) -> str:
    await fill_bank(database)
    return database


class Paused:
    """An operation that changes something, tells its backend's pid, and waits to be let on."""

    def __init__(self) -> None:
        self.pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.go_on = asyncio.Event()

    async def __call__(self, connection: Connection, _parameters: Parameters) -> str:
        await connection.execute("update accounts set balance = balance + 1 where name = 'alice'")
        self.pid.set_result(connection.info.backend_pid)
        await self.go_on.wait()
        return ""


async def test_a_session_that_is_killed_at_work_is_settled_as_a_transient_no(dsn: str) -> None:
    """It had not voted, so it may be rolled back; a second Prepare gets the same answer."""
    paused = Paused()
    async with bank(dsn, pause=paused) as resource:
        prepare = prepare_of(an_xid(), do("pause"))
        asking = asyncio.ensure_future(vote(resource, prepare))
        await run_sql(dsn, f"select pg_terminate_backend({await paused.pid}, 5000)")
        paused.go_on.set()
        answer = await asking
        assert (answer.reason, answer.xa_code, answer.transient) == ("CONNECTION_LOST", XaCode.XAER_RMFAIL, True)
        assert await vote(resource, prepare) == answer
        assert await prepared_gids(dsn) == []


async def test_a_session_that_is_lost_undoes_nothing_that_another_has_prepared(dsn: str) -> None:
    """R12: the other one's vote has left, so only Commit, Rollback or the answer to an inquiry ends the branch."""
    paused = Paused()
    async with bank(dsn, pause=paused) as one, bank(dsn) as two:
        xid = an_xid()
        asking = asyncio.ensure_future(vote(one, prepare_of(xid, do("pause"))))
        pid = await paused.pid
        assert (await vote(two, prepare_of(xid, credit("bob")))).kind is VoteKind.PREPARED
        await run_sql(dsn, f"select pg_terminate_backend({pid}, 5000)")
        paused.go_on.set()
        assert (await asking).transient
        assert await prepared_gids(dsn) == [gid(xid)]
        assert (await commit(two, xid)).kind is AckKind.DONE
        assert (await balance(dsn), await balance(dsn, "bob")) == (100, 101)


async def test_a_cancelled_prepare_leaves_no_session_in_a_transaction(dsn: str) -> None:
    """What is left behind is an unprepared row: a second Prepare runs it, a Rollback ends it."""
    paused = Paused()
    async with bank(dsn, pause=paused) as resource:
        prepare = prepare_of(an_xid(), do("pause"))
        asking = asyncio.ensure_future(vote(resource, prepare))
        await paused.pid
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await prepared_gids(dsn) == []
        again = prepare._replace(operations=(credit(),))
        assert (await vote(resource, again)).kind is VoteKind.PREPARED
        assert (await rollback(resource, prepare.xid)).kind is AckKind.DONE


async def test_a_session_left_behind_cannot_prepare_what_was_rolled_back(dsn: str) -> None:
    """The tombstone comes while an old session is still at work: its marker finds the branch ended."""
    paused = Paused()
    async with bank(dsn, pause=paused) as resource, bank(dsn) as other:
        xid = an_xid()
        asking = asyncio.ensure_future(vote(resource, prepare_of(xid, do("pause"))))
        await paused.pid
        assert (await rollback(other, xid)).kind is AckKind.DONE
        paused.go_on.set()
        answer = await asking
        assert (answer.reason, answer.transient) == ("BRANCH_ENDED", True)
        assert await prepared_gids(dsn) == []
        assert await balance(dsn) == 100


async def test_a_deadline_ends_a_branch_that_is_at_work(dsn: str) -> None:
    """R16."""
    paused = Paused()
    async with bank(dsn, pause=paused) as resource:
        prepare = prepare_of(an_xid(), do("pause"))
        answer = await vote(resource, prepare._replace(deadline_s=prepare.deadline_s - 19.5))
        assert (answer.xa_code, answer.transient) == (XaCode.RBTIMEOUT, True)
        branch = await resource.branch(LOG, prepare.xid)
        assert branch is not None
        assert branch.phase is BranchPhase.ROLLED_BACK


@pytest.fixture(scope="module")
def small_server(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server with two slots for prepared transactions, to be filled, killed and restarted."""
    server = EmbeddedPostgres(
        server_folder / "small",
        settings={"max_prepared_transactions": "2", "max_connections": "40"},
        orphaned=Shutdown.IMMEDIATE,
    )
    server.start()
    yield server
    server.stop(Shutdown.IMMEDIATE)


@pytest.fixture
async def small_dsn(small_server: EmbeddedPostgres) -> str:
    name = f"bank_{an_xid().hex()}"
    dsn = small_server.create_database(name)
    await fill_bank(dsn)
    return dsn


async def test_full_slots_are_a_transient_no_for_those_that_found_none(small_dsn: str) -> None:
    """R17: the others are prepared."""
    await run_sql(small_dsn, *[f"insert into accounts values ('a{at}', 0)" for at in range(4)])
    async with bank(small_dsn) as resource:
        prepares = [prepare_of(an_xid(), credit(f"a{at}")) for at in range(4)]
        votes = await resource.prepare(prepares)
        assert sorted(answer.kind for answer in votes) == [VoteKind.PREPARED] * 2 + [VoteKind.ROLLED_BACK] * 2
        refused = [answer for answer in votes if answer.kind is VoteKind.ROLLED_BACK]
        assert {(answer.reason, answer.transient) for answer in refused} == {("OUT_OF_MEMORY_OR_PREPARED_SLOTS", True)}
        for prepare in prepares:
            await rollback(resource, prepare.xid)


async def test_a_prepared_branch_survives_kill_9_of_the_server(small_server: EmbeddedPostgres, small_dsn: str) -> None:
    """R8: it is in doubt afterwards, and can go either way."""
    committed, undone = an_xid(), an_xid()
    async with bank(small_dsn) as resource:
        await vote(resource, prepare_of(committed, credit("alice")))
        await vote(resource, prepare_of(undone, credit("bob")))
    small_server.stop(Shutdown.KILL)
    small_server.start()
    async with bank(small_dsn) as resource:
        assert [branch.xid for branch in await resource.recover(RecoverQuery(LOG))] == [committed, undone]
        assert (await commit(resource, committed)).kind is AckKind.DONE
        assert (await rollback(resource, undone)).kind is AckKind.DONE
    assert (await balance(small_dsn), await balance(small_dsn, "bob")) == (101, 100)


async def test_an_unreachable_server_raises_and_a_branch_can_be_told_again(
    small_server: EmbeddedPostgres, small_dsn: str
) -> None:
    """Nothing is answered while nothing is known; the workers make RETRY of it."""
    xid = an_xid()
    async with bank(small_dsn) as resource:
        await vote(resource, prepare_of(xid, credit()))
        small_server.stop(Shutdown.IMMEDIATE)
        with pytest.raises(psycopg.OperationalError):
            await commit(resource, xid)
        small_server.start()
        assert (await commit(resource, xid)).kind is AckKind.DONE


async def test_a_server_without_prepared_transactions_is_refused_at_the_start(server_folder: Path) -> None:
    """The default is 0, and the sentence says what to set."""
    server = EmbeddedPostgres(
        server_folder / "none", settings={"max_prepared_transactions": "0"}, orphaned=Shutdown.IMMEDIATE
    )
    server.start()
    try:
        with pytest.raises(PreparedTransactionsDisabledError, match="max_prepared_transactions"):
            async with PostgresXaResource.open("bank", server.dsn(), BANK_OPERATIONS):
                pass
    finally:
        server.stop(Shutdown.IMMEDIATE)


async def test_rows_that_a_crash_left_begun_expire_and_prepared_ones_never(dsn: str) -> None:
    """R12, R13: an hour later the sweep ends the first kind, and leaves the second alone."""
    begun, prepared = an_xid(), an_xid()
    async with bank(dsn) as resource:
        await resource.enlist(LOG, begun, 1, 20.0)
        await vote(resource, prepare_of(prepared, credit(), request_id="r1"))
    await run_sql(dsn, f"update pincex_xa.branches set expires_at = now() - interval '1 hour' where xid = '{begun}'")
    async with bank(dsn) as restarted:
        # Its own sweep may be at the same rows.
        while (branch := await restarted.branch(LOG, begun)) and branch.phase is BranchPhase.ACTIVE:
            await restarted.expire()
        found = [await restarted.branch(LOG, xid) for xid in (begun, prepared)]
        assert [branch.phase for branch in found if branch] == [BranchPhase.ROLLED_BACK, BranchPhase.PREPARED]
        assert gid(prepared) in await prepared_gids(dsn)


@pytest.mark.parametrize("outcome", list(Decision))
async def test_what_was_forced_is_a_heuristic_though_the_session_was_lost_before_it_was_written(
    dsn: str, outcome: Decision
) -> None:
    """R12: the effect and the operator's reason come from two transactions; the first one says what the second will."""
    async with bank(dsn) as resource:
        xid, other = an_xid(), an_xid()
        for each in (xid, other):
            await vote(resource, prepare_of(each, credit("alice" if each == xid else "bob"), request_id=str(each)))
        await run_sql(
            dsn,
            "create or replace function pincex_xa.force(a_participant text, a_log_id text, a_xid uuid,"
            " a_heuristic smallint, a_reason text) returns void language sql as"
            " $$ select pg_terminate_backend(pg_backend_pid()) $$",
        )
        with pytest.raises(psycopg.OperationalError):
            await resource.resolve(LOG, xid, outcome, "the bank was called")
        assert await prepared_gids(dsn) == [gid(other)]
        found = await resource.recover(RecoverQuery(LOG))
        assert [each.phase for each in found] == [BranchPhase.HEURISTIC, BranchPhase.PREPARED]
        assert (found[0].heuristic, found[0].reason) == (Heuristic(outcome), "the bank was called")
        assert await balance(dsn) == (101 if outcome is Decision.COMMIT else 100)
        told = AckKind.HEURISTIC_COMMIT if outcome is Decision.COMMIT else AckKind.HEURISTIC_ROLLBACK
        assert (await commit(resource, xid)).kind is told
        assert (await rollback(resource, xid)).kind is told
        assert await run_sql(dsn, "select * from pincex_xa.forcing") == []


@pytest.mark.parametrize("intended", list(Decision))
async def test_what_was_about_to_be_forced_and_was_decided_is_no_heuristic(dsn: str, intended: Decision) -> None:
    """The session was lost before the branch was ended: the decision carries it out."""
    async with bank(dsn) as resource:
        committed, rolled_back = an_xid(), an_xid()
        for xid, account in ((committed, "alice"), (rolled_back, "bob")):
            await vote(resource, prepare_of(xid, credit(account), request_id=str(xid)))
            row = f"'bank', '{LOG}', '{xid}', {int(intended)}, 'the bank was called'"
            await run_sql(dsn, f"insert into pincex_xa.forcing values ({row})")
        assert (await commit(resource, committed)).kind is AckKind.DONE
        assert (await rollback(resource, rolled_back)).kind is AckKind.DONE
        await resource.expire()
        assert await resource.recover(RecoverQuery(LOG)) == []
        phases = [branch.phase for xid in (committed, rolled_back) if (branch := await resource.branch(LOG, xid))]
        assert phases == [BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK]
        assert await run_sql(dsn, "select * from pincex_xa.forcing") == []


async def test_work_that_is_cancelled_while_a_part_of_it_fails_is_cancelled(dsn: str) -> None:
    """Else a worker, which lives on after any error, would wait for ever when it is told to stop."""
    began, ending, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def linger(_connection: Connection, _parameters: Parameters) -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await go_on.wait()
        return ""

    async with bank(dsn, linger=linger) as resource:
        await run_sql(dsn, "alter function pincex_xa.decide_expected rename to decide_none")
        work = Work(commits=[Commit(LOG, an_xid(), 7, 1)])
        applying = asyncio.ensure_future(
            resource.apply(Work(work.commits, prepares=[prepare_of(an_xid(), do("linger"))]))
        )
        await began.wait()
        # Until here a failure had the others cancelled at once; it must not be what ends them.
        looking = asyncio.ensure_future(ending.wait())
        await asyncio.wait([looking], timeout=1)
        applying.cancel()
        await looking
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await applying
        with pytest.raises(psycopg.errors.UndefinedFunction):
            await resource.apply(work)
