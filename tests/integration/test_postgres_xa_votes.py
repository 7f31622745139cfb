"""How a PostgreSQL XA resource votes: what the server's errors mean, and what must never be prepared."""

from __future__ import annotations

import asyncio
import json

import psycopg
import pytest

from participant_sdk.participant import Operation
from participant_sdk.resources.postgres_lane import Connection
from participant_sdk.resources.postgres_operations import Parameters, RefusedError, Statement, XaOperation
from participant_sdk.xa import AckKind, Vote, VoteKind, XaCode, business_no
from tests.conftest import MakeDatabase
from tests.contract.branch_subjects import YES, an_xid, fill_bank, prepare_of
from tests.integration.xa_bank import (
    balance,
    bank,
    commit,
    credit,
    do,
    prepared_gids,
    rollback,
    run_sql,
    sql_of,
    vote,
)


@pytest.fixture
async def dsn(database: str) -> str:
    await fill_bank(database)
    return database


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


async def test_a_fault_in_an_operations_code_is_its_own_branchs_transient_no(dsn: str) -> None:
    """R17."""

    async def broken(_connection: Connection, parameters: Parameters) -> str:
        return str(parameters["missing"])

    async with bank(dsn, broken=broken) as resource:
        good = prepare_of(an_xid(), credit())
        answers = await resource.prepare([prepare_of(an_xid(), do("broken")), good])
        assert (answers[0].reason, answers[0].transient) == ("OPERATION_FAILED", True)
        assert answers[1].kind is VoteKind.PREPARED
        await rollback(resource, good.xid)


async def test_an_exception_raised_in_sql_is_the_business_speaking(dsn: str) -> None:
    refuse = sql_of("do $$ begin raise exception 'the vault is closed'; end $$")
    async with bank(dsn, refuse=refuse) as resource:
        answer = await vote(resource, prepare_of(an_xid(), do("refuse")))
        assert (answer.reason, answer.message) == ("REFUSED", "the vault is closed")
        assert answer.is_business_no


async def test_an_unknown_operation_is_named_with_those_that_are_served(dsn: str) -> None:
    async with bank(dsn) as resource:
        answer = await vote(resource, prepare_of(an_xid(), do("mint")))
        assert (answer.xa_code, answer.field) == (XaCode.XAER_INVAL, "operations[0].operation")
        assert "credit" in answer.message
