"""``pincex dev``: one command brings everything up, again and again, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import psycopg
import pytest

from coordinator.embedded.postgres import EmbeddedPostgres
from coordinator.embedded.process import processes_in
from coordinator.embedded.redis import EmbeddedRedis
from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Committed
from sidecars.main import SIDECARS
from tests.counting import counted
from tests.development import PINCEX, Development, development, until

SECOND_START_S: Final = 10.0
_OPEN: Final = ("bookkeeper", "open_account", {"user_id": "7", "currency": "BTC"})
_CREDIT: Final = ("bookkeeper", "credit_account", {"user_id": "7", "currency": "BTC", "amount": "1"})

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def running(server_folder: Path) -> Iterator[Development]:
    """One for all tests that leave it running and whole."""
    with development(server_folder / "running", environment=counted()) as running:
        yield running


def _children(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return {int(word) for word in listed.stdout.split()}


def _alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}/stat").exists() and _state(pid) != "Z"}


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def _is_up(running: Development) -> bool:
    try:
        answer = httpx.get(f"http://{running.http}/api/v1/transactions/health")
    except httpx.TransportError:
        return False
    return answer.json()["status"] == "UP"


async def _commits(running: Development, *operations: tuple[str, str, dict[str, str]]) -> None:
    async with TransactionClient(running.grpc) as client:
        ending = await client.execute(operations)
    assert isinstance(ending, Committed), ending


def test_everything_answers_and_the_screen_tells_where(running: Development) -> None:
    # On a busy machine a participant may be out of reach for a moment.
    until(lambda: _is_up(running))
    health = httpx.get(f"http://{running.http}/api/v1/transactions/health").json()
    assert {each["name"] for each in health["participants"]} == set(SIDECARS)
    for place in (running.http, running.grpc, *running.sidecars.values()):
        assert place in running.output
    assert f"curl -sS http://{running.http}/api/v1/transactions/execute" in running.output


def test_no_password_is_on_the_screen_or_on_a_command_line(running: Development) -> None:
    """Every user of the machine can read command lines."""
    (password,) = (running.folder / "postgres" / "password").read_text().split()
    assert password not in running.output
    for child in _children(running.process.pid):
        assert password not in Path(f"/proc/{child}/cmdline").read_text()
    assert (running.folder / "coordinator.yaml").stat().st_mode & 0o077 == 0


async def test_what_was_stopped_or_killed_leaves_no_process_and_starts_again_with_its_data(server_folder: Path) -> None:
    """A Ctrl-C ends all of it in order. kill -9 runs none of its code: the kernel ends the children.

    The second start takes ten seconds on a machine that is otherwise idle; others' work on it is taken out.
    """
    folder = server_folder / "dev"
    with development(folder) as first:
        await _commits(first, _OPEN, _CREDIT)
        children = _children(first.process.pid)
        # PostgreSQL, Redis and the coordinator; the sidecars, and who plays the companies that they talk to.
        assert len(children) == 3 + len(SIDECARS) + sum(each.simulator is not None for each in SIDECARS.values())
        assert first.stop() == 0
        assert _alive(children) == set()
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    began = time.monotonic()
    with development(folder) as second:
        assert time.monotonic() - began < SECOND_START_S * busy
        await _commits(second, _CREDIT)
        children = _children(second.process.pid)
        second.process.kill()
        second.process.wait()
        until(lambda: not _alive(children))
    with development(folder) as third:
        await _commits(third, _CREDIT)


def test_a_sidecar_that_is_killed_comes_back(running: Development) -> None:
    before = _children(running.process.pid)
    (sidecar,) = (pid for pid in before if "sidecars.main\0trading" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(sidecar, signal.SIGKILL)
    until(lambda: _children(running.process.pid) - before != set() and _is_up(running))


def test_a_postgresql_that_is_killed_comes_back_with_everything(running: Development) -> None:
    with psycopg.connect(running.log_dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    data = (running.folder / "postgres").resolve() / "data"
    before = processes_in(data)
    os.kill(int((data / "postmaster.pid").read_text().splitlines()[0]), signal.SIGKILL)
    until(lambda: set(processes_in(data)) - set(before) != set() and _is_up(running))
    asyncio.run(_commits(running, ("bookkeeper", "open_account", {"user_id": "8", "currency": "BTC"})))


def test_a_second_one_on_the_same_folder_is_refused(running: Development) -> None:
    """Two owners would stop each other's servers."""
    refused = subprocess.run(
        [PINCEX, "dev", "--data", str(running.folder)], capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode != 0
    assert f"process {running.process.pid}" in refused.stdout + refused.stderr


def test_a_port_in_use_is_named(running: Development, server_folder: Path) -> None:
    port = running.http.rpartition(":")[2]
    refused = subprocess.run(
        [PINCEX, "dev", "--data", str(server_folder / "taken"), "--http-port", port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode != 0
    assert f"port {port} is in use" in refused.stdout + refused.stderr


def test_a_given_server_that_does_not_answer_is_named(server_folder: Path) -> None:
    """The password stays out of the message."""
    refused = subprocess.run(
        [
            PINCEX,
            "dev",
            "--data",
            str(server_folder / "lost"),
            "--postgres",
            "postgresql://me:secret@127.0.0.1:1/lost",
            "--http-port",
            "0",
            "--grpc-port",
            "0",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode != 0
    assert "PostgreSQL at postgresql://me@127.0.0.1:1/lost" in refused.stderr
    assert "secret" not in refused.stdout + refused.stderr


async def test_given_servers_are_used_in_place_of_the_embedded(postgres: EmbeddedPostgres, server_folder: Path) -> None:
    """The databases are made on the given server."""
    redis = EmbeddedRedis(server_folder / "given-redis")
    redis.start()
    folder = server_folder / "given"
    with development(folder, "--postgres", postgres.dsn(), "--redis", redis.dsn) as running:
        await _commits(running, _OPEN, _CREDIT)
        assert not (folder / "postgres").exists()
        assert not (folder / "redis").exists()
    redis.stop()
