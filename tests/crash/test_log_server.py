"""The log's server runs out of room, or fails over to its synchronous standby: under load."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from coordinator.embedded import EmbeddedPostgres, Shutdown
from tests.crash.checks import read
from tests.crash.opening import fill_till
from tests.crash.processes import Cluster, cluster
from tests.crash.trials import go_on, judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TMPFS_SIZE: Final = "200m"
_TIMELINES: Final = "select distinct timeline from txlog.incarnations"


@asynccontextmanager
async def on_log(log_dsn: str, participants: EmbeddedPostgres, folder: Path) -> AsyncGenerator[Cluster]:
    """A cluster whose log is the database of this DSN."""

    async def database(name: str) -> str:
        return log_dsn if name == "txlog" else await asyncio.to_thread(participants.create_database, name)

    async with cluster(folder, database, coordinators=2) as up:
        await fill_till(up)
        yield up
    for name in ("bookkeeper", "trading"):
        await asyncio.to_thread(participants.drop_database, name)


@contextmanager
def small_disk(folder: Path) -> Generator[Path]:
    """A small file system of its own; skipped where none may be mounted."""
    place = folder / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_SIZE},mode=0711", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_the_logs_disk_is_full(server_folder: Path, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """R5: no decision is told that is not on disk; once there is room again, all goes on."""
    with small_disk(server_folder) as place:
        settings = {"min_wal_size": "32MB", "max_wal_size": "64MB", "wal_init_zero": "on"}
        server = EmbeddedPostgres(place / "log", settings=settings, orphaned=Shutdown.IMMEDIATE)
        server.start()
        try:
            log_dsn = server.create_database("txlog")
            async with on_log(log_dsn, postgres, tmp_path) as up, judged(up, "disk") as load:
                await go_on(load)
                filler = place / "filler"
                _fill(filler)
                await _use_up_segments(server)
                assert "No space left on device" in server.log.read_text()
                filler.unlink()
                # A server that fails while it recovers ends; whoever runs it starts it again.
                server.stop(Shutdown.IMMEDIATE)
                server.start()
                await go_on(load)
        finally:
            server.stop(Shutdown.IMMEDIATE)


def _fill(filler: Path) -> None:
    """Leave no room."""
    with filler.open("wb") as file:
        piece = b"\0" * 65_536
        try:
            while True:
                file.write(piece)
                file.flush()
        except OSError:
            return


async def _use_up_segments(server: EmbeddedPostgres) -> None:
    """Have the server need new room for its log, until it fails."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as connection:
                    await connection.execute("select pg_logical_emit_message(true, 'fill', repeat('x', 500000))")
                    await connection.execute("select pg_switch_wal()")
            except psycopg.OperationalError:
                return


class Standby(EmbeddedPostgres):
    """A hot standby, which is up when it says so."""

    def copy(self, primary: EmbeddedPostgres) -> None:
        """Make its data from the primary's, which it then follows."""
        self._password_file.write_text(str(conninfo_to_dict(primary.dsn())["password"]))
        self.data.mkdir(mode=0o700)
        if self._account is not None:
            for path in (self.data, self._password_file):
                os.chown(path, self._account.uid, self._account.gid)
        command = [
            str(self._binaries / "pg_basebackup"),
            f"--dbname={primary.dsn()}",
            f"--pgdata={self.data}",
            "--write-recovery-conf",
            "--checkpoint=fast",
        ]
        assert self._spawn(command).wait() == 0, self.log.read_text()

    def _is_ready(self, pid: int) -> bool:
        lines = self._pid_file_lines()
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() in {"standby", "ready"}


async def test_the_log_fails_over_to_its_synchronous_standby(
    server_folder: Path, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """R15: the old timeline's incarnations end; nothing that was told is missing on the new one."""
    primary = EmbeddedPostgres(server_folder / "primary", orphaned=Shutdown.IMMEDIATE)
    primary.start()
    standby = Standby(server_folder / "standby", orphaned=Shutdown.IMMEDIATE)
    standby.copy(primary)
    try:
        primary.create_database("txlog")
        standby.start()
        await _make_synchronous(primary)
        ports = f"{primary.port},{standby.port}"
        log_dsn = make_conninfo(
            primary.dsn("txlog"), host="127.0.0.1,127.0.0.1", port=ports, target_session_attrs="read-write"
        )
        async with on_log(log_dsn, postgres, tmp_path) as up, judged(up, "failover") as load:
            await go_on(load)
            await asyncio.to_thread(primary.stop, Shutdown.KILL)
            async with await psycopg.AsyncConnection.connect(standby.dsn(), autocommit=True) as connection:
                await connection.execute("select pg_promote()")
            await go_on(load)
            assert len(await read(up.dsns["txlog"], _TIMELINES)) == 2
    finally:
        standby.stop(Shutdown.IMMEDIATE)
        primary.stop(Shutdown.IMMEDIATE)


async def _make_synchronous(primary: EmbeddedPostgres) -> None:
    """Have commits wait for the standby, and return once it keeps up."""
    async with await psycopg.AsyncConnection.connect(primary.dsn(), autocommit=True) as connection:
        await connection.execute("alter system set synchronous_standby_names = '*'")
        await connection.execute("select pg_reload_conf()")
        async with asyncio.timeout(30):
            while True:
                row = await (await connection.execute("select sync_state from pg_stat_replication")).fetchone()
                if row is not None and row[0] == "sync":
                    return
                await asyncio.sleep(0.05)
