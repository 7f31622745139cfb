"""The embedded PostgreSQL: one server on its data, whatever happened to the one before."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from coordinator.embedded.postgres import EmbeddedPostgres, Shutdown
from coordinator.embedded.process import EmbeddedServerError, free_port, processes_in

_OWNER = """
import pathlib, sys
from coordinator.embedded.postgres import EmbeddedPostgres
server = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def stopped(server_folder: Path) -> EmbeddedPostgres:
    """A server of these tests' own, to be stopped and killed."""
    return EmbeddedPostgres(server_folder / "embedded")


@pytest.fixture
def server(stopped: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    """The same, started."""
    stopped.start()
    yield stopped
    stopped.stop(Shutdown.IMMEDIATE)


def _setting(server: EmbeddedPostgres, name: str) -> str:
    with psycopg.connect(server.dsn()) as connection:
        row = connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
    assert row is not None
    return str(row[0])


def test_settings_are_those_that_prepared_transactions_need(postgres: EmbeddedPostgres) -> None:
    """max_prepared_transactions is 0 by default; a commit that is not on disk would break R1, R8 and R9."""
    names = ("max_prepared_transactions", "max_connections", "fsync", "synchronous_commit", "listen_addresses")
    assert [_setting(postgres, name) for name in names] == ["1000", "200", "on", "on", "127.0.0.1"]


def test_settings_given_go_over_the_defaults(server_folder: Path) -> None:
    server = EmbeddedPostgres(server_folder / "settings", settings={"max_connections": "20"})
    server.start()
    try:
        assert _setting(server, "max_connections") == "20"
    finally:
        server.stop()


def test_a_wrong_password_is_refused(postgres: EmbeddedPostgres) -> None:
    """Other users of the machine reach the loopback too."""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres")


@pytest.mark.parametrize("how", Shutdown)
def test_what_was_committed_is_there_after_a_restart(server: EmbeddedPostgres, how: Shutdown) -> None:
    dsn = server.create_database(f"kept_{how.name}".lower())
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS value")
    port = server.port
    server.stop(how)
    assert processes_in(server.data) == []
    server.start()
    assert server.port == port
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT value FROM kept").fetchall() == [(1,)]


def test_dropping_a_database_ends_its_prepared_transactions_and_connections(server: EmbeddedPostgres) -> None:
    """PostgreSQL refuses to drop a database with prepared transactions."""
    dsn = server.create_database("busy")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE made ()")
        connection.execute("PREPARE TRANSACTION 'orphan'")
        server.drop_database("busy")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(dsn)


def test_creating_a_database_twice_keeps_the_first(server: EmbeddedPostgres) -> None:
    dsn = server.create_database("twice")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept ()")
    assert server.create_database("twice") == dsn
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_a_server_ends_with_an_owner_killed_and_its_data_serve_the_next(server_folder: Path) -> None:
    """kill -9 of the owner runs none of its code: the kernel tells the server, and the next start waits for its end."""
    folder = server_folder / "killed"
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    successor = EmbeddedPostgres(folder)
    successor.start()
    try:
        assert successor.pid != pid
        assert pid not in processes_in(successor.data)
    finally:
        successor.stop()


def test_a_pid_file_that_names_an_unrelated_process_does_not_stop_a_start(server: EmbeddedPostgres) -> None:
    """After a restart of a container, the number left in postmaster.pid soon belongs to another program."""
    server.stop(Shutdown.KILL)
    pid_file = server.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    server.start()
    assert _setting(server, "fsync") == "on"


def test_starting_a_server_that_runs_is_refused(postgres: EmbeddedPostgres) -> None:
    with pytest.raises(EmbeddedServerError, match="running already"):
        postgres.start()


def test_a_stopped_server_has_no_process(server_folder: Path) -> None:
    server = EmbeddedPostgres(server_folder / "never")
    server.stop()
    with pytest.raises(EmbeddedServerError, match="not running"):
        _ = server.pid


def test_a_port_in_use_is_told_with_the_servers_own_words(postgres: EmbeddedPostgres, server_folder: Path) -> None:
    """A port that was asked for is not replaced in silence."""
    server = EmbeddedPostgres(server_folder / "port", port=postgres.port)
    with pytest.raises(EmbeddedServerError, match="could not bind"):
        server.start()


def test_a_bad_setting_is_told_with_the_servers_own_words(server_folder: Path) -> None:
    server = EmbeddedPostgres(server_folder / "bad", port=free_port(), settings={"max_connections": "many"})
    with pytest.raises(EmbeddedServerError, match="max_connections"):
        server.start()


def test_a_server_stopped_by_sigstop_is_killed_where_it_does_not_listen(server: EmbeddedPostgres) -> None:
    """A kill takes effect on a process that takes no other signal."""
    os.kill(server.pid, signal.SIGSTOP)
    server.stop(Shutdown.KILL)
    assert processes_in(server.data) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files are closed to the server's account")
def test_below_a_closed_folder_the_data_go_where_the_server_can_reach_them(tmp_path: Path) -> None:
    """A clone below /root works, and no folder is opened to anybody for it."""
    tmp_path.chmod(0o700)
    server = EmbeddedPostgres(tmp_path / "postgres")
    try:
        server.start()
        assert (tmp_path / "postgres").readlink() == server.data.parent
        assert tmp_path.stat().st_mode & 0o777 == 0o700
        assert server.data.stat().st_mode & 0o777 == 0o700
        server.stop()
        again = EmbeddedPostgres(tmp_path / "postgres")
        assert again.data == server.data
    finally:
        server.stop()
        shutil.rmtree(server.data.parent)
