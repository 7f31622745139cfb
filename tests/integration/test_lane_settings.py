"""The sessions of a participant's database: what they wait for (R8, R9), and whose they are."""

from __future__ import annotations

import pytest

from participant_sdk.resources.postgres_lane import Lane
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
