"""PostgreSQL's traps with prepared transactions, each against the real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from participant_sdk.branch import BranchPhase
from participant_sdk.ids import BranchId, Xid
from participant_sdk.participant import Commit, Operation, Prepare, RecoverQuery, Rollback
from participant_sdk.resources.postgres_lane import Connection, Lane
from participant_sdk.resources.postgres_operations import Parameters, RefusedError, Statement, XaOperation
from participant_sdk.resources.postgres_xa import PostgresXaResource, XaConnections
from participant_sdk.xa import Ack, AckKind, Decision, Vote, VoteKind, XaCode, business_no
from tests.conftest import MakeDatabase
from tests.contract.branch_subjects import BANK_OPERATIONS, LOG, YES, an_xid, fill_bank, prepare_of

OTHER_LOG = "fedcba9876543210"
OPERATIONS: Mapping[str, XaOperation] = BANK_OPERATIONS


def sql_of(text: str) -> XaOperation:
    """An operation that runs this text, whatever it is."""

    async def run(connection: Connection, _parameters: Parameters) -> str:
        await connection.execute(text.encode())
        return ""

    return run


def do(name: str, **parameters: str) -> Operation:
    return Operation("bank", name, json.dumps(parameters))


def credit(account: str = "alice", amount: str = "1") -> Operation:
    return do("credit", account=account, amount=amount)


@asynccontextmanager
async def bank(dsn: str, **more: XaOperation) -> AsyncGenerator[PostgresXaResource]:
    connections = XaConnections(work=4, finishing=2, embedded=2, lock_timeout_ms=300)
    async with PostgresXaResource.open("bank", dsn, {**OPERATIONS, **more}, connections=connections) as resource:
        yield resource


async def vote(resource: PostgresXaResource, prepare: Prepare) -> Vote:
    (answer,) = await resource.prepare([prepare])
    return answer


async def commit(resource: PostgresXaResource, xid: Xid, sequence: int = 1) -> Ack:
    (answer,) = await resource.commit([Commit(LOG, xid, 7, sequence)])
    return answer


async def rollback(resource: PostgresXaResource, xid: Xid) -> Ack:
    (answer,) = await resource.rollback([Rollback(LOG, xid)])
    return answer


async def run_sql(dsn: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements each by itself, and return the last one's rows."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = None
        for statement in statements:
            cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor is not None and cursor.description else []


async def balance(dsn: str, account: str = "alice") -> int:
    rows = await run_sql(dsn, f"select balance::integer from accounts where name = '{account}'")
    return int(str(rows[0][0]))


async def prepared_gids(dsn: str) -> list[object]:
    rows = await run_sql(dsn, "select gid from pg_prepared_xacts where database = current_database()")
    return [row[0] for row in rows]


def gid(xid: Xid) -> str:
    return BranchId(LOG, xid, "bank").gid


@pytest.fixture
async def dsn(database: str) -> str:
    await fill_bank(database)
    return database


async def test_the_server_answers_rollback_without_an_error_and_that_is_no_yes(dsn: str) -> None:
    """The trap itself, and what the tag check makes of it."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("begin")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("select 1/0")
        cursor = await connection.execute("prepare transaction 'failed'")
        assert cursor.statusmessage == "ROLLBACK"
        assert await prepared_gids(dsn) == []


async def test_an_operation_that_swallows_an_error_votes_no(dsn: str) -> None:
    """The transaction has failed, whatever the operation believes."""

    async def swallow(connection: Connection, _parameters: Parameters) -> str:
        await connection.execute("update accounts set balance = 0")
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("select 1/0")
        return ""

    async with bank(dsn, swallow=swallow) as resource:
        assert (await vote(resource, prepare_of(an_xid(), do("swallow")))).kind is VoteKind.ROLLED_BACK
        assert await prepared_gids(dsn) == []
        assert await balance(dsn) == 100


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("update accounts set balance = balance; commit; begin; update accounts set balance = balance", "ENDED_BY"),
        ("set local synchronous_commit = off; update accounts set balance = 0", "SYNCHRONOUS_COMMIT_OFF"),
        ("create temporary table t (x integer)", "NOT_PREPARABLE"),
        ("update accounts set balance = 0; listen news", "NOT_PREPARABLE"),
        (
            "update accounts set balance = 0; declare c cursor with hold for select * from accounts",
            "NOT_PREPARABLE",
        ),
        ("update no_such_table set x = 1", "OPERATION_FAILED"),
    ],
)
async def test_what_must_not_be_prepared_votes_a_no_that_binds_nothing(dsn: str, text: str, reason: str) -> None:
    async with bank(dsn, wrong=sql_of(text)) as resource:
        answer = await vote(resource, prepare_of(an_xid(), do("wrong")))
        assert answer.kind is VoteKind.ROLLED_BACK
        assert answer.transient
        assert reason in answer.reason
        assert await prepared_gids(dsn) == []
        assert await balance(dsn) == 100


@pytest.mark.parametrize(
    ("operation", "reason", "xa_code"),
    [
        (do("debit", account="alice", amount="1000"), "INTEGRITY", XaCode.RBINTEGRITY),
        (do("owe"), "INTEGRITY", XaCode.RBINTEGRITY),
        (do("expect"), "NO_SUCH_ACCOUNT", XaCode.RBROLLBACK),
        (do("refuse"), "CLOSED", XaCode.RBROLLBACK),
    ],
)
async def test_the_business_says_no_and_a_duplicate_gets_the_same_no(
    dsn: str, operation: Operation, reason: str, xa_code: XaCode
) -> None:
    """R3, R8: a check, a deferred constraint that fails at PREPARE, ``expect``, and an operation's own no."""

    async def refuse(_connection: Connection, _parameters: Parameters) -> str:
        raise RefusedError(business_no("CLOSED", "the bank is closed"))

    await run_sql(
        dsn,
        "create table debts (name text references accounts deferrable initially deferred)",
    )
    more: dict[str, XaOperation] = {
        "owe": Statement("insert into debts values ('nobody')"),
        "expect": Statement(
            "with changed as (update accounts set balance = 0 where name = 'nobody' returning 1)"
            " select pincex_xa.expect(exists (select from changed), 'NO_SUCH_ACCOUNT', 'there is no such account')"
        ),
        "refuse": refuse,
    }
    async with bank(dsn, **more) as resource:
        prepare = prepare_of(an_xid(), operation)
        answer = await vote(resource, prepare)
        assert (answer.kind, answer.reason, answer.xa_code) == (VoteKind.ROLLED_BACK, reason, xa_code)
        assert answer.is_business_no
        assert await vote(resource, prepare) == answer
    async with bank(dsn) as restarted:
        assert await vote(restarted, prepare) == answer


async def test_a_branch_that_changes_nothing_is_never_prepared(dsn: str) -> None:
    """It commits and votes READ_ONLY with its results; a second Prepare does not run again."""
    async with bank(dsn) as resource:
        prepare = prepare_of(an_xid(), do("read", account="alice"))
        answer = await vote(resource, prepare)
        assert (answer.kind, answer.xa_code) == (VoteKind.READ_ONLY, XaCode.RDONLY)
        assert json.loads(answer.results[0]) == {"balance": "100"}
        await run_sql(dsn, "update accounts set balance = 7")
        assert await vote(resource, prepare) == answer


async def test_a_statement_that_finds_nothing_to_change_votes_read_only(dsn: str) -> None:
    """The one string cannot know; the branch runs again step by step."""
    async with bank(dsn) as resource:
        prepare = prepare_of(an_xid(), credit("nobody"))
        assert (await vote(resource, prepare)).kind is VoteKind.READ_ONLY
        assert (await vote(resource, prepare)).kind is VoteKind.READ_ONLY


async def test_results_of_a_prepared_branch_are_the_same_after_a_restart(dsn: str) -> None:
    """R8: a prepared row cannot be read, so the results stand beside it."""
    prepare = prepare_of(an_xid(), credit(), do("read", account="alice"))
    async with bank(dsn) as resource:
        answer = await vote(resource, prepare)
        assert answer.kind is VoteKind.PREPARED
        assert json.loads(answer.results[1]) == {"balance": "101"}
    async with bank(dsn) as restarted:
        assert await vote(restarted, prepare) == answer
        assert (await commit(restarted, prepare.xid)).kind is AckKind.DONE
    assert await balance(dsn) == 101


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


async def test_deadlocked_branches_get_a_transient_no_for_one_of_them(dsn: str) -> None:
    meet = asyncio.Barrier(2)

    def crossing(one: str, other: str) -> XaOperation:
        async def run(connection: Connection, _parameters: Parameters) -> str:
            await connection.execute("update accounts set balance = balance + 1 where name = %s", (one,))
            await meet.wait()
            await connection.execute("set local lock_timeout = '10s'")
            await connection.execute("update accounts set balance = balance + 1 where name = %s", (other,))
            return ""

        return run

    async with bank(dsn, there=crossing("alice", "bob"), back=crossing("bob", "alice")) as resource:
        # Each commits before the other could wait for a prepared branch.
        async def one(name: str) -> Vote:
            xid = an_xid()
            answer = await vote(resource, prepare_of(xid, do(name)))
            await commit(resource, xid)
            return answer

        votes = await asyncio.gather(one("there"), one("back"))
    codes = sorted(answer.xa_code for answer in votes)
    assert codes == [XaCode.OK, XaCode.RBDEADLOCK]


async def test_a_serialization_failure_at_prepare_is_transient(dsn: str) -> None:
    """Write skew between two serializable branches: the second cannot be prepared."""
    meet = asyncio.Barrier(2)

    def skewed(own: str) -> XaOperation:
        async def run(connection: Connection, _parameters: Parameters) -> str:
            await connection.execute("select sum(balance) from accounts")
            await meet.wait()
            await connection.execute("update accounts set balance = balance - 1 where name = %s", (own,))
            return ""

        return run

    await run_sql(
        dsn,
        "do $$ begin execute format('alter database %I set default_transaction_isolation = serializable',"
        " current_database()); end $$",
    )
    async with bank(dsn, mine=skewed("alice"), yours=skewed("bob")) as resource:
        votes = await resource.prepare([prepare_of(an_xid(), do("mine")), prepare_of(an_xid(), do("yours"))])
    assert sorted(answer.reason for answer in votes) == ["", "SERIALIZATION_FAILURE"]


async def test_a_gid_in_use_in_another_database_is_a_duplicate_id(dsn: str, databases: MakeDatabase) -> None:
    """GIDs are the cluster's: two databases under one participant's name are a mistake, and say so."""
    other = await databases("other")
    await fill_bank(other)
    xid = an_xid()
    async with bank(dsn) as here, bank(other) as there:
        assert (await vote(here, prepare_of(xid, credit()))).kind is VoteKind.PREPARED
        answer = await vote(there, prepare_of(xid, credit()))
        assert (answer.kind, answer.xa_code) == (VoteKind.ROLLED_BACK, XaCode.XAER_DUPID)
        assert (await rollback(here, xid)).kind is AckKind.DONE


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


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ('{"account":"alice"}', "operations[0].parameters.amount"),
        ('{"account":"alice","amount":"1","memo":"x"}', "operations[0].parameters.memo"),
        ('{"account":"alice","amount":[1]}', "operations[0].parameters.amount"),
        ('{"account":"alice","amount":1e400}', "operations[0].parameters"),
        ('{"account":"alice","account":"bob","amount":"1"}', "operations[0].parameters"),
        ('{"account":"alice","amount":"a lot"}', "operations[0].parameters"),
    ],
)
async def test_wrong_parameters_get_a_no_that_names_the_field(dsn: str, parameters: str, field: str) -> None:
    async with bank(dsn) as resource:
        answer = await vote(resource, prepare_of(an_xid(), YES._replace(parameters=parameters)))
        assert (answer.xa_code, answer.field) == (XaCode.XAER_INVAL, field)


async def test_parameters_are_values_and_never_sql(dsn: str) -> None:
    async with bank(dsn) as resource:
        hostile = "x'; update accounts set balance = 0; --"
        assert (await vote(resource, prepare_of(an_xid(), credit(hostile)))).kind is VoteKind.READ_ONLY
        assert await balance(dsn) == 100


async def test_a_warning_of_the_services_own_is_no_doubt(dsn: str) -> None:
    async with bank(dsn, warn=sql_of("do $$ begin update accounts set balance = 1; raise warning 'hm'; end $$")) as it:
        xid = an_xid()
        assert (await vote(it, prepare_of(xid, do("warn")))).kind is VoteKind.PREPARED
        await rollback(it, xid)


async def test_a_connection_that_is_left_in_a_transaction_is_not_lent_again(dsn: str) -> None:
    lane = Lane(dsn, 1)
    seen: list[int] = []
    read_pid: Callable[[Connection], int] = lambda connection: connection.info.backend_pid  # noqa: E731
    for left in (False, True, False):
        async with lane.session() as session:
            seen.append(read_pid(session.connection))
            if left:
                await session.connection.execute("begin")
    assert seen[0] == seen[1] != seen[2]
    await lane.close()
