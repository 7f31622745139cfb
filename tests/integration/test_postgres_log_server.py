"""The decision log on a PostgreSQL that misses its standby, is stopped, and is promoted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from coordinator.embedded.postgres import EmbeddedPostgres, Shutdown
from coordinator.log.decision_log import AppendStatus, Checkpoint, LogUnavailableError, LogUncertainError
from coordinator.log.postgres import PostgresLog, migrate_log
from coordinator.protocol.events import Recorded
from tests.contract.worlds import LEASE_S, started
from tests.integration.log_observer import IMPATIENT, PATIENCE_S, Observer, committing, observing, outcome


@pytest.fixture(scope="module")
def own_server(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A server that a test may stop, promote, or leave without its standby."""
    server = EmbeddedPostgres(server_folder / "log", orphaned=Shutdown.IMMEDIATE)
    server.start()
    yield server
    server.stop(Shutdown.IMMEDIATE)


@asynccontextmanager
async def without_standby(server: EmbeddedPostgres) -> AsyncGenerator[None]:
    """Have every commit wait for a standby that is not there."""
    async with observing(server.dsn()) as observer:
        await observer.ask(b"ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        await observer.ask(b"SELECT pg_reload_conf()")
        try:
            await _commits_wait(server, observer)
            yield
        finally:
            await observer.ask(b"SET synchronous_commit = local")
            await observer.ask(b"ALTER SYSTEM RESET synchronous_standby_names")
            await observer.ask(b"SELECT pg_reload_conf()")


async def _commits_wait(server: EmbeddedPostgres, observer: Observer) -> None:
    """Return when commits do wait: the server takes the setting some time after it was told."""

    async def write() -> None:
        async with observing(server.dsn(), "probe") as probe:
            with suppress(psycopg.Error):
                while True:
                    await probe.ask(b"SELECT pg_logical_emit_message(true, 'probe', '')")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        await observer.ask(b"SELECT pg_terminate_backend(%s)", await observer.backend("probe", "SyncRep"))


class TestDurability:
    async def test_a_cancelled_wait_for_the_standby_is_an_unknown_result(self, own_server: EmbeddedPostgres) -> None:
        """R5: COMMIT answered with a WARNING; the row is there, and told only with a later write."""
        dsn = await _fresh(own_server, "warned")
        log = PostgresLog(dsn, name="warned")
        own = await started(log)
        await own.append()
        record = own.record()
        async with without_standby(own_server), observing(dsn) as observer, asyncio.TaskGroup() as tasks:
            append = tasks.create_task(outcome(own.append(record)))
            await observer.ask(b"SELECT pg_cancel_backend(%s)", await observer.backend("warned-appends", "SyncRep"))
            assert isinstance(await append, LogUncertainError)
        assert (await own.append(record)).status is AppendStatus.SEQUENCE_AHEAD
        assert (await log.read([record.xid])).decisions[record.xid].sequence == 1
        await log.close()

    async def test_done_with_the_answer_lost_is_told_once(self, own_server: EmbeddedPostgres) -> None:
        """R5: the backend dies after its commit, before its answer."""
        dsn = await _fresh(own_server, "lost")
        log = PostgresLog(dsn, name="lost")
        own = await started(log)
        record = own.record("order-1")
        async with committing(own) as commits:
            async with without_standby(own_server), observing(dsn) as observer:
                commits.commit.append(record)
                backend = await observer.backend("lost-appends", "SyncRep")
                await observer.ask(b"SELECT pg_terminate_backend(%s)", backend)
                # The retry finds the row, and then waits for the standby as any write does.
                assert not commits.recorded
            await commits.told(1)
        assert commits.recorded == [(record, Recorded(own.number, 1))]
        await log.close()

    async def test_only_checkpoints_do_not_wait_for_the_standby(self, own_server: EmbeddedPostgres) -> None:
        """The decision log's connections have synchronous_commit = on, whatever the database says."""
        dsn = await _fresh(own_server, "lazy")
        async with observing(dsn) as observer:
            await observer.ask(b"ALTER DATABASE lazy SET synchronous_commit = off")
        log = PostgresLog(dsn, name="lazy", timeouts=replace(IMPATIENT, statement_s=5.0))
        own = await started(log)
        await own.append(own.record())
        async with without_standby(own_server):
            async with asyncio.timeout(PATIENCE_S):
                await log.checkpoint(Checkpoint(own.number, 1))
            for write in (log.hold("try"), own.append(), log.open("other", "", LEASE_S)):
                with pytest.raises(LogUncertainError):
                    await write
        assert not await log.unfinished(own.number)
        await log.close()


class TestServer:
    async def test_a_server_that_is_down_is_unavailable_and_is_met_again(self, own_server: EmbeddedPostgres) -> None:
        dsn = await _fresh(own_server, "down")
        log = PostgresLog(dsn)
        own = await started(log)
        record = own.record("order-1")
        async with committing(own) as commits:
            commits.commit.append(own.record())
            await commits.told(1)
            await asyncio.to_thread(own_server.stop, Shutdown.IMMEDIATE)
            with pytest.raises(LogUnavailableError):
                await log.read([record.xid])
            with pytest.raises(LogUnavailableError):
                await PostgresLog(dsn).append(own.incarnation, 1, [record])
            commits.commit.append(record)
            # From this thread: the server dies with the one that started it.
            own_server.start()
            await commits.told(2)
        assert commits.recorded[1] == (record, Recorded(own.number, 2))
        await log.close()

    async def test_a_standby_answers_nothing_and_its_promotion_ends_the_incarnations(
        self, own_server: EmbeddedPostgres
    ) -> None:
        """R7 asks the primary; R15 ends the old timeline's incarnations."""
        dsn = await _fresh(own_server, "promoted")
        log = PostgresLog(dsn)
        own = await started(log)
        record = own.record()
        await own.append(record)
        await log.close()
        _become_standby(own_server)
        async with observing(dsn) as observer:
            for call in (log.read([record.xid]), own.append(own.record()), log.unfinished(own.number)):
                with pytest.raises(LogUnavailableError, match=r"recovery is in progress|read-only"):
                    await call
            await observer.ask(b"SELECT pg_promote()")
        assert (await own.append(own.record())).status is AppendStatus.TIMELINE_CHANGED
        new = await started(log)
        assert new.incarnation.timeline > own.incarnation.timeline
        assert new.incarnation.epoch == new.number
        snapshot = await log.read([record.xid])
        assert snapshot.incarnations[own.number].fenced
        assert snapshot.decisions[record.xid].record == record
        assert list(await log.fence_expired(new.incarnation)) == [own.number]
        await log.close()


def _become_standby(server: EmbeddedPostgres) -> None:
    server.stop()
    signal_file = server.data / "standby.signal"
    signal_file.touch()
    owner = server.data.stat()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    server.start()


async def _fresh(server: EmbeddedPostgres, name: str) -> str:
    dsn = await asyncio.to_thread(server.create_database, name)
    await migrate_log(dsn)
    return dsn
