"""The reservation resource when branches collide, are bad, or the database goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import pairwise

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from participant_sdk.participant import Prepare, Rollback, Work
from participant_sdk.resources import packed_arrays
from participant_sdk.xa import DONE, AckKind, XaCode
from tests.integration.participations import LOG_ID, Participation, participating

LANES = 8


@pytest.fixture
async def bookkeeper(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "bookkeeper", connections=LANES) as participation:
        yield participation
        assert await participation.violations() == []


async def fund(bookkeeper: Participation, *users: str, amount: str = "100") -> None:
    for user in users:
        account = f'"user_id":"{user}","currency":"USD"'
        await bookkeeper.do(
            ("open_account", f"{{{account}}}"), ("credit_account", f'{{{account},"amount":"{amount}"}}')
        )


def debit(user: str, amount: str) -> tuple[str, str]:
    return "debit_account", f'{{"user_id":"{user}","currency":"USD","amount":"{amount}"}}'


def transfer(source: str, target: str, amount: str, **more: str) -> tuple[str, str]:
    said = "".join(f',"{key}":"{value}"' for key, value in more.items())
    return (
        "transfer_funds",
        f'{{"from_user_id":"{source}","to_user_id":"{target}","currency":"USD","amount":"{amount}"{said}}}',
    )


async def test_batches_at_once_never_reserve_more_than_there_is(bookkeeper: Participation) -> None:
    """Lock, then check in a later statement: READ COMMITTED checks what was true before the wait, otherwise.

    The table's own constraint would hide it, by an error and another try; so it is dropped here.
    """
    await fund(bookkeeper, "u")
    await bookkeeper.rows("alter table bookkeeper.accounts drop constraint nothing_taken_twice")
    batches = [[bookkeeper.branch(debit("u", "10")) for _ in range(4)] for _ in range(LANES)]
    answers = await asyncio.gather(*[bookkeeper.resource.prepare(batch) for batch in batches])
    votes = [vote for part in answers for vote in part]
    assert await bookkeeper.rows("select reserved from bookkeeper.accounts where user_id <> 'house:fees'") == [(100,)]
    assert sum(vote.is_yes for vote in votes) == 10
    assert {vote.reason for vote in votes if not vote.is_yes} == {"INSUFFICIENT_FUNDS"}


async def test_commits_and_prepares_that_cross_do_not_deadlock(bookkeeper: Participation) -> None:
    """Keys of both halves are locked in one order."""
    users = [f"u{at}" for at in range(6)]
    await fund(bookkeeper, *users, amount="1000")

    async def lane(number: int) -> None:
        order = users if number % 2 else users[::-1]
        before: list[Prepare] = []
        for _ in range(12):
            batch = [bookkeeper.branch(transfer(source, target, "1")) for source, target in pairwise(order)]
            ended = [bookkeeper.decided(branch) for branch in before]
            answers = await bookkeeper.resource.apply(Work(commits=ended, prepares=batch))
            assert all(vote.is_yes for vote in answers.prepares), answers.prepares
            assert all(ack == DONE for ack in answers.commits), answers.commits
            before = batch
        await bookkeeper.rollback(*before)

    await asyncio.gather(*[lane(number) for number in range(LANES)])
    assert await bookkeeper.rows("select deadlocks from pg_stat_database where datname = current_database()") == [(0,)]


async def test_one_request_prepared_twice_at_once_gets_one_yes(bookkeeper: Participation) -> None:
    """R3, between workers: the second insert waits for the first one's flush, and then says no."""
    await fund(bookkeeper, "u", amount="1000")
    for at in range(5):
        rivals = [bookkeeper.branch(debit("u", "1"), request_id=f"r{at}") for _ in range(LANES)]
        votes = [part[0] for part in await asyncio.gather(*[bookkeeper.resource.prepare([one]) for one in rivals])]
        assert sum(vote.is_yes for vote in votes) == 1
        assert {vote.reason for vote in votes if not vote.is_yes} == {"REQUEST_IN_PROGRESS"}
    assert await bookkeeper.rows("select reserved from bookkeeper.accounts where user_id <> 'house:fees'") == [(5,)]


async def test_one_bad_branch_fails_nothing_that_travelled_with_it(bookkeeper: Participation) -> None:
    """R17: it gets its own "no", which is kept; the commits of the batch are done all the same."""
    await fund(bookkeeper, "a", "b")
    await bookkeeper.rows("alter table bookkeeper.entries add constraint sound check (description <> 'poison')")
    before = [bookkeeper.branch(transfer("a", "b", "1")) for _ in range(3)]
    await bookkeeper.prepare(*before)
    batch = [bookkeeper.branch(transfer("a", "b", "1", description="poison" if at == 4 else "")) for at in range(9)]
    commits, gone = [bookkeeper.decided(branch) for branch in before[:2]], Rollback(LOG_ID, before[2].xid)
    answers = await bookkeeper.resource.apply(Work(commits, [gone], batch))
    assert list(answers.commits) == [DONE, DONE]
    assert list(answers.rollbacks) == [DONE]
    assert [at for at, vote in enumerate(answers.prepares) if not vote.is_yes] == [4]
    assert answers.prepares[4].xa_code == XaCode.RBINTEGRITY
    assert (await bookkeeper.prepare(batch[4]))[0] == answers.prepares[4]


async def test_one_bad_commit_is_told_later_and_the_others_are_done(bookkeeper: Participation) -> None:
    """R17: nothing of it is applied, so it can be sent again."""
    await fund(bookkeeper, "a", "b", amount="100")
    batch = [bookkeeper.branch(transfer("a", "b", str(amount))) for amount in (1, 2, 50, 3)]
    await bookkeeper.prepare(*batch)
    await bookkeeper.rows("alter table bookkeeper.accounts add constraint poor check (balance < 110)")
    assert [ack.kind is AckKind.DONE for ack in await bookkeeper.commit(*batch)] == [True, True, False, True]
    await bookkeeper.rows("alter table bookkeeper.accounts drop constraint poor")
    acks = await bookkeeper.commit(*batch)
    assert [ack.kind is AckKind.DONE for ack in acks] == [False, False, True, False]
    assert {ack.kind for ack in acks} == {AckKind.DONE, AckKind.ALREADY_DONE}


async def test_broken_connections_are_replaced(bookkeeper: Participation) -> None:
    """R8, R10: and what was under way is asked again."""
    await fund(bookkeeper, "u")
    killed = (
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid()"
    )
    await bookkeeper.rows(killed)
    prepare = bookkeeper.branch(debit("u", "10"))
    assert (await bookkeeper.prepare(prepare))[0].is_yes
    await bookkeeper.rows(killed)
    assert list(await bookkeeper.commit(prepare)) == [DONE]


async def test_without_a_database_nothing_is_promised(bookkeeper: Participation, database: str) -> None:
    """R8, R9: every branch gets an answer that leaves it open, and all goes on once the database is back."""
    await fund(bookkeeper, "u")
    known, unknown, late = (bookkeeper.branch(debit("u", "10")) for _ in range(3))
    await bookkeeper.prepare(known, unknown)
    name = conninfo_to_dict(database)["dbname"]
    async with await psycopg.AsyncConnection.connect(
        make_conninfo(database, dbname="postgres"), autocommit=True
    ) as other:
        await other.execute(f'alter database "{name}" allow_connections false'.encode())
        await other.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        work = Work([bookkeeper.decided(known)], [Rollback(LOG_ID, unknown.xid)], [late])
        answers = await bookkeeper.resource.apply(work)
        await other.execute(f'alter database "{name}" allow_connections true'.encode())
    assert [ack.kind for ack in (*answers.commits, *answers.rollbacks)] == [AckKind.RETRY, AckKind.RETRY]
    assert answers.prepares[0].transient
    assert answers.prepares[0].xa_code == XaCode.XAER_RMFAIL
    again = await bookkeeper.resource.apply(work)
    assert [*again.commits, *again.rollbacks] == [DONE, DONE]
    assert again.prepares[0].is_yes


async def test_a_cancelled_batch_leaves_no_connection_behind(bookkeeper: Participation) -> None:
    """R8: it may have happened or not; asked again, it is answered."""
    await fund(bookkeeper, "u")
    prepares = [bookkeeper.branch(debit("u", "1")) for _ in range(LANES * 2)]
    async with await psycopg.AsyncConnection.connect(bookkeeper.dsn) as blocker:
        await blocker.execute("select from bookkeeper.accounts for update")
        tasks = [asyncio.create_task(bookkeeper.resource.prepare([prepare])) for prepare in prepares]
        waiting = "select count(*) from pg_locks where not granted"
        while (await bookkeeper.rows(waiting))[0][0] < 1:
            pass
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
    assert all(vote.is_yes for vote in await bookkeeper.prepare(*prepares))


def test_columns_are_packed_as_postgresql_reads_them() -> None:
    """``array_recv``: an empty array has no dimension."""
    assert packed_arrays.texts([]) == bytes.fromhex("00000000 00000000 00000019")
    assert packed_arrays.texts(["é", None]) == bytes.fromhex(
        "00000001 00000001 00000019 00000002 00000001 00000002 c3a9 ffffffff"
    )
    assert packed_arrays.bigints([-2])[-12:] == bytes.fromhex("00000008 fffffffffffffffe")
