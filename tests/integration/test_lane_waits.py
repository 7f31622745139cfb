"""How a session waits for its server: beside psycopg's own waits, when it is cancelled, and when the server is gone."""

from __future__ import annotations

import asyncio
import errno

import psycopg
import pytest

from participant_sdk.resources import postgres_connection
from participant_sdk.resources.postgres_connection import WatchedConnection
from participant_sdk.resources.postgres_errors import UNDEFINED_OBJECT
from participant_sdk.resources.postgres_lane import Lane, Session
from tests.integration.log_observer import observing

_RUNNING = b"SELECT pid FROM pg_stat_activity WHERE pid = %s AND state = 'active'"


def _watched(session: Session) -> int:
    """The descriptor under which the loop watches it."""
    connection = session.connection
    assert isinstance(connection, WatchedConnection)
    assert connection._watched is not None  # pyright: ignore[reportPrivateUsage]
    return connection._watched  # pyright: ignore[reportPrivateUsage]


async def test_a_session_talks_and_lets_psycopg_talk_by_turns(database: str) -> None:
    lane = Lane(database, 1)
    async with lane.session() as session:
        for number in range(3):
            assert await session.run(f"select {number}; select 1; select 2") == "SELECT 1"
            row = await (await session.connection.execute(f"select {number}".encode())).fetchone()
            assert row == (number,)
            await session.run("begin; create table held (number integer); prepare transaction 'held'")
            assert await session.end_each(["rollback prepared 'held'"]) == ["ROLLBACK PREPARED"]
    await lane.close()


async def test_prepared_transactions_end_each_by_itself_whatever_becomes_of_those_before(database: str) -> None:
    lane = Lane(database, 1)
    async with lane.session() as session:
        await session.run("create table ended (number integer)")
        for number in range(5):
            await session.run(f"begin; insert into ended values ({number}); prepare transaction 'n{number}'")
        ended = await session.end_each(
            [
                "commit prepared 'n0'",
                "commit prepared 'gone'",
                "commit prepared 'n1'",
                "rollback prepared 'n2'",
                "rollback prepared 'gone'",
                "commit prepared 'n3'",
            ]
        )
        assert [getattr(each, "sqlstate", each) for each in ended] == [
            *("COMMIT PREPARED", UNDEFINED_OBJECT, "COMMIT PREPARED", "ROLLBACK PREPARED", UNDEFINED_OBJECT),
            "COMMIT PREPARED",
        ]
        assert session.is_idle
        rows = await (await session.connection.execute("select number from ended order by 1")).fetchall()
        assert rows == [(0,), (1,), (3,)]
        held = "select gid from pg_prepared_xacts where database = current_database()"
        (left,) = await (await session.connection.execute(held)).fetchall()
        assert left == ("n4",)
        await session.run("rollback prepared 'n4'")
    await lane.close()


async def test_a_string_that_is_cancelled_ends_at_the_server_and_its_session_is_lent_again(database: str) -> None:
    """A branch whose time ran out holds no lock on, and no connection."""
    lane = Lane(database, 1)
    async with observing(database) as observer:
        async with lane.session() as session:
            pid = session.connection.info.backend_pid
            running = asyncio.create_task(session.run("select pg_sleep(60)"))
            await observer.until(bool, _RUNNING, pid)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert session.is_idle
        assert not await observer.ask(_RUNNING, pid)
        async with lane.session() as again:
            assert again is session
            assert await again.run("select 1") == "SELECT 1"
    await lane.close()


async def test_a_string_too_large_to_be_taken_at_once_is_sent_to_its_end(database: str) -> None:
    lane = Lane(database, 1)
    async with lane.session() as session:
        assert await session.run(f"select length('{'x' * 30_000_000}')") == "SELECT 1"
        assert await session.run("select 1") == "SELECT 1"
    await lane.close()


async def test_a_connection_that_ends_while_nobody_waits_for_it_keeps_nobody_busy(database: str) -> None:
    """Its socket can be read for ever, and has nothing."""
    lane = Lane(database, 1)
    async with observing(database) as observer:
        async with lane.session() as session:
            await session.run("select 1")
            pid = session.connection.info.backend_pid
            watched = _watched(session)
        await observer.ask(b"SELECT pg_terminate_backend(%s)", pid)
        await observer.until(lambda rows: not rows, b"SELECT pid FROM pg_stat_activity WHERE pid = %s", pid)
        # It said so before it went: the loop has called, and is asked to call no more.
        assert not asyncio.get_running_loop().remove_reader(watched)
        with pytest.raises(psycopg.OperationalError):
            async with lane.session() as lost:
                await lost.run("select 1")
        async with lane.session() as session:
            assert await session.run("select 1") == "SELECT 1"
    await lane.close()


async def test_a_wait_ends_though_the_loop_calls_nobody(database: str) -> None:
    """As uvloop does once a socket had an error: the branch that waited would stay in doubt for ever."""
    lane = Lane(database, 1)
    async with observing(database) as observer, lane.session() as session:
        await session.run("select 1")
        running = asyncio.create_task(session.run("select pg_sleep(0.3)"))
        await observer.until(bool, _RUNNING, session.connection.info.backend_pid)
        asyncio.get_running_loop().remove_reader(_watched(session))
        async with asyncio.timeout(20):
            assert await running == "SELECT 1"
            assert await session.run("select 1") == "SELECT 1"
    await lane.close()


async def test_a_wait_that_is_longer_than_a_look_goes_on(database: str) -> None:
    """A branch may wait for another's row for as long as its time lasts."""
    lane = Lane(database, 1)
    async with lane.session() as session:
        assert await session.run("select pg_sleep(0.5)") == "SELECT 1"
    await lane.close()


async def test_a_wait_ends_when_its_connection_is_closed(database: str) -> None:
    """A service's operation, when its branch's time is over: it gets an error, and is not left hanging."""
    lane = Lane(database, 1)
    async with observing(database) as observer:
        with pytest.raises(psycopg.OperationalError):
            async with lane.session() as session, asyncio.timeout(20):
                running = asyncio.create_task(session.run("select pg_sleep(60)"))
                await observer.until(bool, _RUNNING, session.connection.info.backend_pid)
                await session.connection.close()
                await running
    await lane.close()


async def test_a_connection_that_cannot_be_watched_is_an_error_of_the_database(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without a descriptor left lives on, as with psycopg's own waits."""
    lane = Lane(database, 1)
    monkeypatch.setattr(postgres_connection.os, "dup", _no_descriptor)
    with pytest.raises(psycopg.OperationalError, match="cannot be watched"):
        async with asyncio.timeout(20), lane.session() as session:
            await session.run("select 1")
    await lane.close()


def _no_descriptor(_: int) -> int:
    raise OSError(errno.EMFILE, "Too many open files")
