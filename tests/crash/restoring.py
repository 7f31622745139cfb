"""A log's server whose data can be put back to an earlier moment, in each way that people have."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from coordinator.embedded import EmbeddedPostgres, Shutdown
from coordinator.embedded.process import free_port, log_end

# A recovery that ends where the backup does, and goes on from there on a timeline of its own.
_POINT_IN_TIME: Final = {
    "restore_command": "false",
    "recovery_target": "immediate",
    "recovery_target_action": "promote",
}


class RestorableLog:
    """The log's server. It is always to be found at the same address, whichever data it has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies = 0
        self._server = _Server(folder / "log", orphaned=Shutdown.IMMEDIATE)
        self._server.start()

    def dsn(self, database: str) -> str:
        """How to connect; it stays the same."""
        return self._server.dsn(database)

    def create_database(self, name: str) -> str:
        """Make the database, and return its DSN."""
        return self._server.create_database(name)

    def back_up(self) -> Path:
        """Take a base backup of the running server."""
        self._copies += 1
        return self._server.back_up(f"copy{self._copies}")

    def dump(self, database: str) -> Path:
        """Dump one database of the running server."""
        self._copies += 1
        file = self._folder / f"dump{self._copies}"
        self._server.run("pg_dump", f"--dbname={self.dsn(database)}", "--format=custom", f"--file={file}")
        return file

    def stop(self) -> None:
        """End it as a power failure does."""
        self._server.stop(Shutdown.IMMEDIATE)

    def start(self) -> None:
        """Bring it up at its address."""
        self._server.start()

    def put_back(self, copy: Path, *, at_point_in_time: bool = False) -> None:
        """Stop it, and have the backup as its data. A snapshot keeps the timeline, a point in time begins one."""
        self.stop()
        self._server.replace(copy)
        self._server.recover_to_point(is_wanted=at_point_in_time)

    def hold_before_anybody_comes(self, database: str, reason: str) -> None:
        """Put the log in HOLD at a port that no coordinator knows, and stop again."""
        known, self._server.port = self._server.port, free_port()
        self._server.start()
        assert self.ask(database, f"SELECT txlog.hold('{reason}')") == "t"
        self._server.stop()
        self._server.port = known

    def ask(self, database: str, query: str) -> str:
        """What a query returns, asked as an operator does."""
        printed = self._server.run("psql", "-d", self.dsn(database), "-c", query, "--no-psqlrc", "--tuples-only")
        return printed.strip()

    def move(self, dump: Path, database: str) -> None:
        """Stop it for good, and restore the dump on a fresh server at the same address."""
        before = self._server
        self.stop()
        self._copies += 1
        fresh = _Server(self._folder / f"fresh{self._copies}", orphaned=Shutdown.IMMEDIATE)
        fresh.start()
        empty = fresh.create_database(database)
        fresh.run("pg_restore", f"--dbname={empty}", "--no-owner", "--exit-on-error", str(dump))
        fresh.take_password(str(conninfo_to_dict(before.dsn())["password"]))
        fresh.stop()
        fresh.port = before.port
        self._server = fresh


class _Server(EmbeddedPostgres):
    """An embedded server, with what its wheel has for backups."""

    def back_up(self, name: str) -> Path:
        """Make a base backup beside the data."""
        place = self._directory / name
        place.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(place, self._account.uid, self._account.gid)
        command = [self._tool("pg_basebackup"), f"--dbname={self.dsn()}", f"--pgdata={place}", "--checkpoint=fast"]
        assert self._spawn(command).wait() == 0, log_end(self.log)
        return place

    def replace(self, copy: Path) -> None:
        """Throw the data away, and have the copy in their place."""
        shutil.rmtree(self.data)
        copy.rename(self.data)

    def recover_to_point(self, *, is_wanted: bool) -> None:
        """Have the next start be a point-in-time recovery, or an ordinary one."""
        if is_wanted:
            (self.data / "recovery.signal").touch()
        settings = {name: value for name, value in self._settings.items() if name not in _POINT_IN_TIME}
        self._settings = {**settings, **(_POINT_IN_TIME if is_wanted else {})}

    def run(self, tool: str, *arguments: str) -> str:
        """Run one of PostgreSQL's clients to its end; what it printed."""
        command: Sequence[str] = (self._tool(tool), *arguments)
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def take_password(self, password: str) -> None:
        """Have another server's password, so that clients need not know of the change."""
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(sql.SQL("ALTER USER postgres PASSWORD {}").format(sql.Literal(password)))
        self._password_file.write_text(password)

    def _tool(self, name: str) -> str:
        return str(self._binaries / name)
