"""The coordinator's process over a real decision log: start, readiness, stop, fence."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psycopg
import pytest
import yaml

from coordinator.embedded.process import free_port
from tests.counting import counted
from tests.sdk.small_system import LEFT, OPENING, RIGHT, System, system

EXECUTE: Final = "/api/v1/transactions/execute"
WITHIN_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Process:
    """A coordinator's process, its HTTP door, and what it logs."""

    process: asyncio.subprocess.Process
    http: httpx.AsyncClient
    log: Path

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def until_ready(self) -> None:
        """Return when it says that calls are welcome."""
        await until(lambda: self._answers("/health/ready"))

    async def until_live(self) -> None:
        """Return when it answers at all."""
        await until(lambda: self._answers("/health/live"))

    async def until_up(self) -> None:
        """Return when every participant is up too."""
        await until(lambda: self._has("status", "UP"))

    async def until_in_flight(self, count: int) -> None:
        """Return when so many transactions are in flight."""
        counts = {"in_flight": count, "unfinished": count, "needing_attention": 0}
        await until(lambda: self._has("transactions", counts))

    async def until_stopping(self) -> None:
        """Return when it says that calls are no longer welcome."""
        await until(lambda: self._has("stopping", wanted=True))

    async def log_says(self, problem: str | None) -> bool:
        """Whether that is what keeps it from its log."""
        health = (await self.http.get("/api/v1/transactions/health")).json()
        return health["decision_log"]["problem"] == problem

    async def _has(self, key: str, wanted: object) -> bool:
        try:
            return (await self.http.get("/api/v1/transactions/health")).json()[key] == wanted
        except httpx.TransportError:
            return False

    async def ended(self) -> int:
        async with asyncio.timeout(WITHIN_S):
            return await self.process.wait()

    async def _answers(self, path: str) -> bool:
        try:
            return (await self.http.get(path)).is_success
        except httpx.TransportError:
            return False


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when another process' state is as wanted: it has no event for us."""
    async with asyncio.timeout(WITHIN_S):
        while not await holds():  # noqa: ASYNC110 - as the docstring says.
            await asyncio.sleep(0.02)


def configuration(dsn: str, around: System | None, http_port: int) -> dict[str, object]:
    addresses: Mapping[str, str] = around.addresses if around else {}
    return {
        "log": {"dsn": dsn},
        "server": {"grpc": "127.0.0.1:0", "http": f"127.0.0.1:{http_port}"},
        "participants": [{"name": name, "address": address} for name, address in addresses.items()],
    }


@asynccontextmanager
async def coordinator(folder: Path, dsn: str, around: System | None = None) -> AsyncGenerator[Process]:
    """Start a coordinator's process; kill it at the end of the block if it still runs."""
    port = free_port()
    file, log = folder / "coordinator.yaml", folder / "coordinator.log"
    file.write_text(yaml.safe_dump(configuration(dsn, around, port)))
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordinator.cli", "coordinator", "--config", str(file)),
            stderr=output,
            env={**os.environ, **counted(), "LOG_LEVEL": "info"},
        )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WITHIN_S) as http:
        try:
            yield Process(process, http, log)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def transfer(amount: str = "5") -> dict[str, object]:
    parameters: dict[str, object] = {"from": "a", "to": "b", "amount": amount}
    return {
        "operations": [{"service": name, "operation": "transfer", "parameters": parameters} for name in (LEFT, RIGHT)]
    }


async def test_it_commits_and_stops_cleanly(tmp_path: Path, database: str) -> None:
    async with system() as around, coordinator(tmp_path, database, around) as running:
        await running.until_up()
        told = (await running.http.post(EXECUTE, json=transfer())).json()
        assert told["state"] == "COMMITTED"
        assert around.balance(LEFT, "a") == OPENING - 5
        metrics = (await running.http.get("/metrics")).text
        assert "pincex_log_flush_duration_seconds_count" in metrics
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
        lines = running.lines()
        messages = [line["message"] for line in lines]
        assert messages[-1] == "Coordinator stopped"
        assert "Coordinator started" in messages
        (line,) = [line for line in lines if line.get("transaction_id") == told["transaction_id"]]
        assert (line["message"], line["resources"]) == ("Transaction committed", [LEFT, RIGHT])
        assert all({"timestamp", "level", "message"} <= line.keys() for line in lines)


async def test_without_its_log_it_lives_and_is_not_ready(tmp_path: Path) -> None:
    """Readiness comes with the log; until then calls are told to come again, and nothing is begun."""
    async with coordinator(tmp_path, f"host=127.0.0.1 port={free_port()} dbname=none") as running:
        await running.until_live()
        assert (await running.http.get("/health/ready")).status_code == 503
        health = await running.http.get("/api/v1/transactions/health")
        assert (health.status_code, health.json()["status"]) == (503, "DOWN")
        assert "connection" in health.json()["decision_log"]["problem"]
        response = await running.http.post(EXECUTE, json=transfer())
        assert (response.status_code, response.json()["code"]) == (503, "UNAVAILABLE")
        assert response.headers["retry-after"] == "1"
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
        assert "Decision log not open; trying again" in [line["message"] for line in running.lines()]


async def test_what_the_log_refuses_for_good_is_shown_until_it_is_mended(tmp_path: Path, database: str) -> None:
    """With its SQLSTATE, by which a person finds out what to do; nothing is lost meanwhile."""
    async with (
        coordinator(tmp_path, database) as running,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
    ):
        await running.until_ready()
        await connection.execute("ALTER TABLE txlog.decisions RENAME TO elsewhere")
        problem = 'SQLSTATE 42P01: relation "txlog.decisions" does not exist'
        await until(lambda: running.log_says(problem))
        status = (await running.http.get("/api/v1/transactions/recovery/status")).json()
        assert status["log_problem"] == problem
        await connection.execute("ALTER TABLE txlog.elsewhere RENAME TO decisions")
        await until(lambda: running.log_says(None))
        assert (await running.http.get("/api/v1/transactions/recovery/status")).json()["log_problem"] is None


async def test_fenced_it_ends_at_once_and_says_so(tmp_path: Path, database: str) -> None:
    """R4: a fenced incarnation changes nothing more; its process ends for a new one to start."""
    async with coordinator(tmp_path, database) as running:
        await running.until_ready()
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await connection.execute("UPDATE txlog.incarnations SET fenced_at = now(), fenced_by = incarnation")
        assert await running.ended() == 5
        last = running.lines()[-1]
        assert last["level"] == "error"
        assert "may write no more" in str(last["message"])


async def test_a_port_in_use_is_named(tmp_path: Path, database: str) -> None:
    async with coordinator(tmp_path, database) as running:
        await running.until_live()
        port = running.http.base_url.port
        file = tmp_path / "second.yaml"
        file.write_text(yaml.safe_dump(configuration(database, None, port or 0)))
        second = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "coordinator.cli", "coordinator", "--config", str(file)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await second.communicate()
        assert second.returncode == 2
        assert f"127.0.0.1:{port} (server.http)" in errors.decode()


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
async def test_stopping_lets_what_is_in_flight_finish(
    tmp_path: Path, database: str, signal_number: signal.Signals
) -> None:
    async with system() as around, coordinator(tmp_path, database, around) as running:
        await running.until_up()
        around.taps[RIGHT].shut()
        async with asyncio.TaskGroup() as tasks:
            executing = tasks.create_task(running.http.post(EXECUTE, json=transfer()))
            await running.until_in_flight(1)
            running.process.send_signal(signal_number)
            await running.until_stopping()
            refused = await running.http.post(EXECUTE, json=transfer())
            assert (refused.status_code, refused.json()["code"]) == (503, "UNAVAILABLE")
            around.taps[RIGHT].open()
        assert executing.result().json()["state"] == "COMMITTED"
        assert await running.ended() == 0
