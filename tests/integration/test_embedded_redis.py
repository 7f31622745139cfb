"""The embedded Redis: one server on its data, whatever happened to the one before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from coordinator.embedded.postgres import EmbeddedPostgres
from coordinator.embedded.process import EmbeddedServerError, processes_in
from coordinator.embedded.redis import EmbeddedRedis

# redis-py leaves its keyword arguments untyped.
# pyright: reportUnknownMemberType=false

_OWNER = """
import pathlib, sys
from coordinator.embedded.redis import EmbeddedRedis
server = EmbeddedRedis(pathlib.Path(sys.argv[1]))
server.start()
print(server.port, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(server_folder / request.node.name)
    server.start()
    yield server
    server.stop()


def test_what_was_written_is_there_after_a_restart(server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(server.dsn) as client:
        client.set("key", "value")
    server.stop()
    server.start()
    with redis.Redis.from_url(server.dsn) as client:
        assert client.get("key") == b"value"


def test_a_wrong_password_is_refused(server: EmbeddedRedis) -> None:
    """Other users of the machine reach the loopback too."""
    with redis.Redis(port=server.port) as client, pytest.raises(redis.AuthenticationError):
        client.ping()


def test_a_server_ends_with_an_owner_killed_and_its_data_serve_the_next(server_folder: Path) -> None:
    """kill -9 of the owner runs none of its code: the kernel tells the server, and the next start waits for its end."""
    folder = server_folder / "redis-killed"
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        assert int(owner.stdout.readline()) > 0
        owner.kill()
    successor = EmbeddedRedis(folder)
    successor.start()
    assert len(processes_in(successor.data)) == 1
    successor.stop()
    assert processes_in(successor.data) == []


def test_a_port_in_use_is_told_with_the_servers_own_words(postgres: EmbeddedPostgres, server_folder: Path) -> None:
    server = EmbeddedRedis(server_folder / "redis-port", port=postgres.port)
    with pytest.raises(EmbeddedServerError, match="bind"):
        server.start()


def test_starting_a_server_that_runs_is_refused(server: EmbeddedRedis) -> None:
    with pytest.raises(EmbeddedServerError, match="running already"):
        server.start()
