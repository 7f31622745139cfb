"""The sessions of a participant's database: what they wait for (R8, R9), whose they are, and what stays prepared."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from operator import itemgetter

import psycopg
import pytest

from participant_sdk.resources.packed_arrays import bigint, bigints
from participant_sdk.resources.postgres_lane import Connection, Lane
from tests.integration.log_observer import observing


@pytest.mark.parametrize(("said", "expected"), [("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")])
async def test_a_session_waits_for_the_disk_whatever_the_database_says(database: str, said: str, expected: str) -> None:
    """A stronger setting is the service's choice."""
    async with observing(database) as owner:
        name = database.rsplit("/", 1)[1].partition("?")[0]
        await owner.ask(f'ALTER DATABASE "{name}" SET synchronous_commit = {said}'.encode())
    lane = Lane(database, 1)
    async with lane.session() as session:
        row = await (await session.connection.execute("show synchronous_commit")).fetchone()
    await lane.close()
    assert row == (expected,)


async def test_a_transaction_that_was_left_open_is_ended_with_its_session(database: str) -> None:
    """What it had locked would stay so for as long as nobody needs another session."""
    lane = Lane(database, 1)
    async with observing(database) as observer:
        async with lane.session() as session:
            await session.connection.execute("begin")
            pid = session.connection.info.backend_pid
        await observer.until(lambda rows: not rows, b"SELECT pid FROM pg_stat_activity WHERE pid = %s", pid)
    await lane.close()


async def test_a_session_has_one_user_at_a_time(database: str) -> None:
    """Two branches on one would be one transaction."""
    lane = Lane(database, 2)
    async with lane.session() as first:
        pass
    async with lane.session() as one, lane.session() as other:
        assert one is first
        assert other is not one
    await lane.close()


@pytest.mark.parametrize("use", [1, 2])
async def test_who_gets_no_session_leaves_a_place_for_the_next(database: str, use: int) -> None:
    """Whether it cannot be opened, or is found dead as its second use has everything planned anew."""
    uses = 0

    async def fail_at_first(_connection: Connection) -> None:
        nonlocal uses
        uses += 1
        if uses == use == 1:
            raise psycopg.errors.UndefinedObject("type is not there")

    lane = Lane(database, 1, opening=fail_at_first)
    async with observing(database) as observer:
        if use == 2:
            async with lane.session() as session:
                pid = session.connection.info.backend_pid
            await observer.ask(b"SELECT pg_terminate_backend(%s, 10000)", pid)
        with pytest.raises(psycopg.Error):
            async with lane.session():
                pytest.fail("there was none")
        async with asyncio.timeout(60), lane.session() as session:
            assert await (await session.connection.execute("select 1")).fetchone() == (1,)
    await lane.close()


async def test_who_is_cancelled_while_it_waits_for_a_session_takes_none(database: str) -> None:
    lane = Lane(database, 1)
    async with lane.session():
        waiting = asyncio.create_task(lane.lend())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(60), lane.session():
        pass
    await lane.close()


@pytest.mark.parametrize(
    "value", ["it's", "back\\slash", "'; drop table x; --", "100%", "%s", "ünï € 😀", "", None, True, Decimal("-1.50")]
)
async def test_a_value_that_is_written_into_a_statement_comes_back_as_it_was(database: str, value: object) -> None:
    lane = Lane(database, 1)
    async with lane.session() as session:
        text = session.written("select %s as value, '%%' as percent", [value])
        row = await (await session.connection.execute(text.encode())).fetchone()
        with pytest.raises(psycopg.DataError):
            session.written("select %s", ["a NUL: \x00"])
    assert row == (value, "%")
    await lane.close()


async def test_a_session_that_comes_back_to_a_closed_lane_is_closed(database: str) -> None:
    """As that of a call which is cancelled as the participant stops, and ends a moment later."""
    lane = Lane(database, 2)
    async with lane.session() as session:
        await lane.close()
        assert not session.connection.closed
    assert session.connection.closed


async def test_a_statement_is_prepared_once_and_again_once_it_is_lost(database: str) -> None:
    """By DISCARD ALL, say, or a pooler that hands on another server's session."""
    lane = Lane(database, 1)
    async with lane.session() as session:
        for _ in range(2):
            assert await session.call(b"select unnest($1::bigint[])", (bigints([3, 4]),), tuple) == [(3,), (4,)]
        prepared = "select name from pg_prepared_statements"
        assert len(await (await session.connection.execute(prepared)).fetchall()) == 1
        await session.connection.execute("discard all")
        assert await session.call(b"select unnest($1::bigint[])", (bigints([5]),), itemgetter(0)) == [5]
    await lane.close()


async def test_a_statement_whose_columns_have_changed_is_prepared_again(database: str) -> None:
    """A migration may run under a participant that serves."""
    lane = Lane(database, 1)
    async with lane.session() as session:
        await session.connection.execute("create table kept as select 1 as a")
        assert await session.call(b"select * from kept", (), tuple) == [(1,)]
        await session.connection.execute("alter table kept add b text default 'x'")
        assert await session.call(b"select * from kept", (), tuple) == [(1, "x")]
    await lane.close()


async def test_a_statement_that_was_lost_within_a_transaction_fails_it_and_runs_in_the_next(database: str) -> None:
    """Nothing of a failed transaction can be run again by itself."""
    lane = Lane(database, 1)
    async with lane.session() as session:
        assert await session.call(b"select $1::bigint", (bigint(1),), tuple) == [(1,)]
        await session.connection.execute("deallocate all")
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            async with session.connection.transaction():
                await session.call(b"select $1::bigint", (bigint(2),), tuple)
        async with session.connection.transaction():
            assert await session.call(b"select $1::bigint", (bigint(3),), tuple) == [(3,)]
    await lane.close()


async def test_a_call_that_is_cancelled_leaves_no_answer_behind(database: str) -> None:
    """Whoever has the session next would take it for its own."""
    lane = Lane(database, 1)
    async with observing(database) as observer, lane.session() as session:
        pid = session.connection.info.backend_pid
        assert await session.call(b"select pg_sleep($1)::text", (bytes(8),), tuple) == [("",)]
        call = asyncio.create_task(session.call(b"select pg_sleep(60)::text", (), tuple))
        await observer.until(bool, b"SELECT pid FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'", pid)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await session.call(b"select $1::bigint", (bigint(7),), tuple) == [(7,)]
    await lane.close()
