"""PostgreSQL's traps with prepared transactions, each against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from participant_sdk.branch import BranchPhase
from participant_sdk.participant import Commit, RecoverQuery, Rollback, Work
from participant_sdk.resources.postgres_branch import _prepared  # pyright: ignore[reportPrivateUsage] # The tag check.
from participant_sdk.resources.postgres_embedded import BranchEndedError
from participant_sdk.resources.postgres_finish import Gone, finish
from participant_sdk.resources.postgres_lane import Connection, Lane
from participant_sdk.xa import DONE, Ack, AckKind, Decision, VoteKind, XaCode
from tests.conftest import MakeDatabase
from tests.contract.branch_subjects import LOG, an_xid, fill_bank, prepare_of
from tests.integration.log_observer import observing
from tests.integration.xa_bank import (
    balance,
    bank,
    commit,
    credit,
    gid,
    prepared_gids,
    rollback,
    run_sql,
    vote,
)

OTHER_LOG = "fedcba9876543210"


@pytest.fixture
async def dsn(database: str) -> str:
    await fill_bank(database)
    return database


async def test_the_server_answers_rollback_without_an_error_and_that_is_no_yes(dsn: str) -> None:
    """The trap itself, and what the tag check makes of it."""
    lane = Lane(dsn, 1)
    async with lane.session() as session:
        await session.run("begin")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await session.run("select 1/0")
        tag = await session.run("prepare transaction 'failed'")
        assert tag == "ROLLBACK"
        assert not _prepared(tag).is_yes
    await lane.close()
    assert await prepared_gids(dsn) == []


async def test_a_rollback_does_not_wait_for_the_marker_that_a_prepared_branch_locks(dsn: str) -> None:
    async with bank(dsn) as resource:
        xid = an_xid()
        await vote(resource, prepare_of(xid, credit()))
        assert (await rollback(resource, xid)).kind is AckKind.DONE
        assert (await rollback(resource, xid)).kind is AckKind.ALREADY_DONE
        assert await prepared_gids(dsn) == []
        assert await balance(dsn) == 100


async def test_a_lock_that_a_prepared_branch_holds_makes_the_next_one_transient(dsn: str) -> None:
    async with bank(dsn) as resource:
        first, second = an_xid(), an_xid()
        assert (await vote(resource, prepare_of(first, credit()))).kind is VoteKind.PREPARED
        answer = await vote(resource, prepare_of(second, credit()))
        assert (answer.reason, answer.transient) == ("LOCK_TIMEOUT", True)
        assert (await commit(resource, first)).kind is AckKind.DONE


async def test_prepares_that_wait_do_not_keep_the_commits_from_running(dsn: str) -> None:
    """More waiters than work connections, on the row that a prepared branch holds: its commit gets through."""
    async with bank(dsn) as resource:
        first = an_xid()
        await vote(resource, prepare_of(first, credit()))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(resource.prepare([prepare_of(an_xid(), credit()) for _ in range(6)]))
            done = group.create_task(commit(resource, first))
        assert done.result().kind is AckKind.DONE
        kinds = [answer.kind for answer in waiting.result()]
        assert VoteKind.READ_ONLY not in kinds


async def test_what_somebody_else_ended_is_told_by_the_marker(dsn: str) -> None:
    """R11: the marker says COMMITTED, or it is a hazard."""
    committed, undone = an_xid(), an_xid()
    async with bank(dsn) as resource:
        await vote(resource, prepare_of(committed, credit()))
        await run_sql(dsn, f"commit prepared '{gid(committed)}'")
        assert (await commit(resource, committed)).kind is AckKind.ALREADY_DONE
        assert (await rollback(resource, committed)).kind is AckKind.HEURISTIC_COMMIT
        await vote(resource, prepare_of(undone, credit()))
        await run_sql(dsn, f"rollback prepared '{gid(undone)}'")
        assert (await commit(resource, undone)).kind is AckKind.HEURISTIC_HAZARD


async def test_commits_race_and_the_effect_happens_once(dsn: str) -> None:
    async with bank(dsn) as one, bank(dsn) as two:
        xids = [an_xid() for _ in range(8)]
        for at, xid in enumerate(xids):
            await run_sql(dsn, f"insert into accounts values ('a{at}', 0)")
            await vote(one, prepare_of(xid, credit(f"a{at}")))
        commits = [Commit(LOG, xid, 7, at + 1) for at, xid in enumerate(xids)]
        acks = [*(await asyncio.gather(one.commit(commits), two.commit(commits)))]
        allowed = {AckKind.DONE, AckKind.ALREADY_DONE, AckKind.RETRY}
        assert {ack.kind for answers in acks for ack in answers} <= allowed
        assert {ack.kind for ack in await one.commit(commits)} == {AckKind.ALREADY_DONE}
        assert [await balance(dsn, f"a{at}") for at in range(8)] == [1] * 8


async def test_another_user_may_not_end_a_branch_and_the_decision_is_kept_all_the_same(dsn: str) -> None:
    """42501: RETRY. The decision is stored before COMMIT PREPARED, so no hand can force the branch any more."""
    xid = an_xid()
    async with bank(dsn) as resource:
        await vote(resource, prepare_of(xid, credit()))
    role = "clerk_of_the_bank"
    await run_sql(
        dsn,
        f"drop role if exists {role}",
        f"create role {role}",
        f"grant all on schema pincex_xa to {role}",
        f"grant all on all tables in schema pincex_xa to {role}",
        f"do $$ begin execute format('grant create on database %I to {role}', current_database()); end $$",
    )
    try:
        async with bank(make_conninfo(dsn, options=f"-c role={role}")) as clerk:
            ack = await commit(clerk, xid, sequence=41)
            assert ack.kind is AckKind.RETRY
            assert "42501" in ack.message
            assert await clerk.watermarks(LOG) == {7: 41}
            assert (await clerk.resolve(LOG, xid, Decision.ROLLBACK, "impatience")).kind is AckKind.RETRY
    finally:
        await run_sql(dsn, f"drop owned by {role}", f"drop role {role}")
    async with bank(dsn) as resource:
        assert (await commit(resource, xid, sequence=41)).kind is AckKind.DONE


async def test_recovery_lists_its_own_branches_page_by_page_and_leaves_others_alone(
    dsn: str, databases: MakeDatabase
) -> None:
    """R18: foreign GIDs, another log's, another participant's and another database's."""
    other = await databases("other")
    await fill_bank(other)
    xids = [an_xid() for _ in range(3)]
    foreign = an_xid()
    strange = ("somebody elses", f"pincex:{LOG}:not-an-xid:bank", f"pincex:{LOG}:{foreign}:trading")
    async with bank(dsn) as resource, bank(other) as elsewhere:
        for at, xid in enumerate(xids):
            await run_sql(dsn, f"insert into accounts values ('a{at}', 0)")
            await vote(resource, prepare_of(xid, credit(f"a{at}")))
        await vote(resource, prepare_of(foreign, credit("bob"))._replace(log_id=OTHER_LOG))
        await vote(elsewhere, prepare_of(an_xid(), credit()))
        for name in strange:
            await run_sql(dsn, f"begin; create table t{len(name)} (); prepare transaction '{name}'")
        first = await resource.recover(RecoverQuery(LOG, limit=2))
        rest = await resource.recover(RecoverQuery(LOG, limit=2, after=first[-1].xid))
        assert [branch.xid for branch in [*first, *rest]] == xids
        assert first[0].participants == ("bank",)
        assert first[0].phase is BranchPhase.PREPARED
        for xid in xids:
            await rollback(resource, xid)
        assert await resource.recover(RecoverQuery(LOG)) == []
        assert len(await prepared_gids(dsn)) == len(strange) + 1


async def test_finished_branches_are_listed_above_the_sequences_asked(dsn: str) -> None:
    """R15."""
    async with bank(dsn) as resource:
        xids = [an_xid() for _ in range(3)]
        for sequence, xid in enumerate(xids, 5):
            await vote(resource, prepare_of(xid, credit(), request_id=f"r{sequence}"))
            await commit(resource, xid, sequence=sequence)
        listed = await resource.recover(RecoverQuery(LOG, finished=True, above={7: 5}))
        assert [(branch.sequence, branch.request_id) for branch in listed] == [(6, "r6"), (7, "r7")]
        assert await resource.watermarks(LOG) == {7: 7}
        assert await resource.adopt_epoch(LOG, 3) == 3
    async with bank(dsn) as restarted:
        assert await restarted.adopt_epoch(LOG, 2) == 3


async def test_an_embedded_service_works_under_the_xid(dsn: str) -> None:
    """R13: two operations on one connection, one outcome; an operation that fails does not count."""
    async with bank(dsn) as resource:
        xid, failed = an_xid(), an_xid()
        async with resource.enlisted(LOG, xid, 1, 20.0) as work:
            for name in ("alice", "bob"):
                async with work.operation() as connection:
                    await connection.execute("update accounts set balance = balance + 5 where name = %s", (name,))
        ends = prepare_of(xid)._replace(ends_work=True, branch_number=1, operation_count=2)
        assert (await vote(resource, ends)).kind is VoteKind.PREPARED
        assert await balance(dsn) == 100
        assert (await commit(resource, xid)).kind is AckKind.DONE
        assert (await balance(dsn), await balance(dsn, "bob")) == (105, 105)

        with pytest.raises(psycopg.errors.CheckViolation):
            async with resource.enlisted(LOG, failed, 1, 20.0) as work, work.operation() as connection:
                await connection.execute("update accounts set balance = -1")
        ends = ends._replace(xid=failed, operation_count=1)
        assert (await vote(resource, ends)).xa_code == XaCode.XAER_NOTA


async def test_embedded_work_that_changed_nothing_votes_read_only(dsn: str) -> None:
    async with bank(dsn) as resource:
        xid = an_xid()
        async with resource.enlisted(LOG, xid, 3, 20.0) as work, work.operation() as connection:
            await connection.execute("select balance from accounts")
        ends = prepare_of(xid)._replace(ends_work=True, branch_number=3, operation_count=1)
        assert (await vote(resource, ends)).kind is VoteKind.READ_ONLY


@pytest.mark.parametrize("leave", ["begin", "pipeline"])
async def test_a_connection_that_is_left_in_a_transaction_is_not_lent_again(dsn: str, leave: str) -> None:
    """Nor is one that is left in the middle of a pipeline."""
    lane = Lane(dsn, 1)
    seen: list[int] = []
    read_pid: Callable[[Connection], int] = lambda connection: connection.info.backend_pid  # noqa: E731
    for left in (False, True, False):
        async with lane.session() as session:
            seen.append(read_pid(session.connection))
            if left and leave == "begin":
                await session.connection.execute("begin")
            elif left:
                session.connection.pgconn.enter_pipeline_mode()
    assert seen[0] == seen[1] != seen[2]
    await lane.close()


async def test_what_keeps_a_session_from_being_there_tells_nothing_of_what_was_to_end_on_it(dsn: str) -> None:
    """R19: not even where it has the code of a prepared transaction that is gone."""

    async def fail(_connection: Connection) -> None:
        raise psycopg.errors.UndefinedObject("type is not there")

    lane = Lane(dsn, 1, opening=fail)
    ended = await finish(lane, [gid(an_xid()) for _ in range(2)], Decision.COMMIT)
    assert [each.kind for each in ended if isinstance(each, Ack)] == [AckKind.RETRY] * 2
    await lane.close()


async def test_prepared_transactions_end_each_by_itself_however_few_sessions_there_are(dsn: str) -> None:
    """R17: what travels together on a session, and is gone keeps none beside it from its end."""
    await run_sql(dsn, "insert into accounts select n::text, 0 from generate_series(1, 7) n")
    xids = [an_xid() for _ in range(7)]
    lane = Lane(dsn, 2)
    async with bank(dsn) as resource:
        for number, xid in enumerate(xids[:6], 1):
            assert (await vote(resource, prepare_of(xid, credit(str(number))))).kind is VoteKind.PREPARED
        ended = await finish(lane, [gid(xid) for xid in (*xids[:3], xids[6], *xids[3:6])], Decision.COMMIT)
        assert ended == [None, None, None, Gone.GONE, None, None, None]
        assert await finish(lane, [], Decision.COMMIT) == []
        assert await finish(lane, [gid(xid) for xid in xids], Decision.ROLLBACK) == [Gone.GONE] * 7
    assert await prepared_gids(dsn) == []
    assert [await balance(dsn, str(number)) for number in range(1, 7)] == [1] * 6
    await lane.close()


async def test_enlisting_again_is_the_same_work_and_an_ended_branch_takes_none(dsn: str) -> None:
    async with bank(dsn) as resource:
        xid = an_xid()
        work = await resource.enlist(LOG, xid, 1, 20.0)
        assert await resource.enlist(LOG, xid, 1, 20.0) is work
        with pytest.raises(BranchEndedError, match="number 1"):
            await resource.enlist(LOG, xid, 2, 20.0)
        branch = await resource.branch(LOG, xid)
        assert branch is not None
        assert branch.phase is BranchPhase.ACTIVE
        assert (await resource.resolve(LOG, xid, Decision.COMMIT, "too early")).kind is AckKind.RETRY
        assert (await rollback(resource, xid)).kind is AckKind.DONE
        with pytest.raises(BranchEndedError):
            async with work.operation():
                pass
        with pytest.raises(BranchEndedError):
            await resource.enlist(LOG, xid, 1, 20.0)


async def test_a_prepare_while_an_operation_runs_is_a_no_and_undoes_the_work(dsn: str) -> None:
    """R13: the service was not done, whatever the client says."""
    async with bank(dsn) as resource:
        xid = an_xid()
        work = await resource.enlist(LOG, xid, 1, 20.0)
        async with work.operation() as connection:
            await connection.execute("update accounts set balance = 0")
        with pytest.raises(psycopg.OperationalError):
            async with work.operation() as connection:
                with pytest.raises(BranchEndedError):
                    async with work.operation():
                        pass
                ends = prepare_of(xid)._replace(ends_work=True, branch_number=1, operation_count=1)
                assert (await vote(resource, ends)).kind is VoteKind.ROLLED_BACK
                await connection.execute("update accounts set balance = 0")
        assert await balance(dsn) == 100
        assert await prepared_gids(dsn) == []


async def test_two_processes_race_for_one_request_and_one_of_them_gets_it(dsn: str) -> None:
    """R3: rows of one request are one row, whoever opens it."""
    async with bank(dsn) as one, bank(dsn) as two:
        for at in range(5):
            prepares = [prepare_of(an_xid(), credit(name), request_id=f"r{at}") for name in ("alice", "bob")]
            votes = await asyncio.gather(vote(one, prepares[0]), vote(two, prepares[1]))
            assert sum(answer.kind is VoteKind.PREPARED for answer in votes) <= 1
            assert all(answer.transient for answer in votes if answer.kind is VoteKind.ROLLED_BACK)
            for prepare in prepares:
                await rollback(one, prepare.xid)


async def test_two_branches_of_one_request_may_come_together_and_one_of_them_gets_it(dsn: str) -> None:
    """R3, and R17: what travels with them is opened as well."""
    async with bank(dsn) as resource:
        names = ("alice", "bob", "carol")
        prepares = [prepare_of(an_xid(), credit(name), request_id=f"r{at // 2}") for at, name in enumerate(names)]
        first, second, other = await resource.prepare(prepares)
        assert sorted([first.kind, second.kind]) == [VoteKind.PREPARED, VoteKind.ROLLED_BACK]
        assert (first if second.is_yes else second).transient
        assert other.kind is VoteKind.PREPARED
        for prepare in prepares:
            await rollback(resource, prepare.xid)


async def test_work_is_not_begun_under_an_xid_that_another_process_begins_at_that_moment(dsn: str) -> None:
    xid = an_xid()
    async with bank(dsn) as resource, observing(dsn) as other:
        await other.ask(b"begin")
        await other.ask(
            b"insert into pincex_xa.branches (participant, log_id, xid, phase) values ('bank', %s, %s::uuid, 1)",
            LOG,
            str(xid),
        )
        enlisting = asyncio.create_task(resource.enlist(LOG, xid, 1, 20.0))
        await other.until(
            bool, b"select pid from pg_locks where not granted and locktype = 'transactionid' and %s", True
        )
        await other.ask(b"commit")
        with pytest.raises(BranchEndedError):
            await enlisting


async def test_branches_of_several_logs_may_travel_together(dsn: str) -> None:
    async with bank(dsn) as resource:
        mine, theirs = prepare_of(an_xid(), credit()), prepare_of(an_xid(), credit("bob"))._replace(log_id=OTHER_LOG)
        assert [answer.kind for answer in await resource.prepare([mine, theirs])] == [VoteKind.PREPARED] * 2
        answers = await resource.apply(
            Work(commits=[Commit(OTHER_LOG, theirs.xid, 7, 1)], rollbacks=[Rollback(LOG, mine.xid)])
        )
        assert [*answers.commits, *answers.rollbacks] == [DONE, DONE]
        assert (await balance(dsn), await balance(dsn, "bob")) == (100, 101)
