"""The product's own processes on free ports, with a proxy before each participant, to be killed at chosen moments."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, LiteralString

import httpx
import psycopg
import yaml

from participant_sdk.faults import FaultProxy, proxying
from tests.conftest import MakeDatabase

PINCEX: Final = str(Path(sys.executable).with_name("pincex"))
START_TIMEOUT_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.02
SERVICES: Final = ("bookkeeper", "trading")


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Process:
    """One process of the product, started and killed at will. Its output goes to ``log``."""

    command: Sequence[str]
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again after a kill."""
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=dict(os.environ)
            )

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        if self.running is not None:
            self.running.send_signal(signal.SIGKILL)
            self.running.wait()
            self.running = None


@dataclass(slots=True)
class Cluster:
    """A coordinator and two sidecars as processes, each with its own database; proxies stand before the sidecars."""

    http: str
    grpc: str
    coordinator: Process
    sidecars: Mapping[str, Process]
    proxies: Mapping[str, FaultProxy]
    dsns: Mapping[str, str]
    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=60.0))

    async def execute(self, *operations: tuple[str, str, Mapping[str, str]], **more: object) -> httpx.Response:
        """POST a transaction of (service, operation, parameters)."""
        listed = [{"service": s, "operation": o, "parameters": p} for s, o, p in operations]
        body = json.dumps({"operations": listed, **more})
        headers = {"content-type": "application/json"}
        return await self.client.post(f"http://{self.http}/api/v1/transactions/execute", content=body, headers=headers)

    async def status(self, transaction_id: str) -> httpx.Response:
        """GET a transaction's status."""
        return await self.client.get(f"http://{self.http}/api/v1/transactions/status/{transaction_id}")

    async def until_ready(self) -> None:
        """Wait until the coordinator answers and both its links carried something."""
        await self.until(self._is_ready)

    async def _is_ready(self) -> bool:
        try:
            response = await self.client.get(f"http://{self.http}/health/ready")
            if not response.is_success:
                return False
            # A cancel of an order that is not there, and of a user who is not: both participants answer "no".
            answers = [
                await self.execute(("trading", "cancel_order", {"order_id": "none"})),
                await self.execute(("bookkeeper", "open_account", {"user_id": "ready", "currency": "nope"})),
            ]
        except httpx.TransportError:
            return False
        return all("retry" not in answer.text or '"retry":false' in answer.text for answer in answers)

    async def rows(self, database: str, query: LiteralString) -> list[tuple[object, ...]]:
        """What a query in one of the databases returns."""
        async with await psycopg.AsyncConnection.connect(self.dsns[database], autocommit=True) as connection:
            cursor = await connection.execute(query)
            return await cursor.fetchall()

    async def until(self, condition: Callable[[], Awaitable[bool]], within_s: float = START_TIMEOUT_S) -> None:
        """Return once the condition holds, of other processes, which have no event for us."""
        async with asyncio.timeout(within_s):
            # What is waited for happens in another process.
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(LOOK_AGAIN_S)


@asynccontextmanager
async def cluster(folder: Path, databases: MakeDatabase) -> AsyncGenerator[Cluster]:
    """Start all, ready for work, for the time of the block; kill what is left at its end."""
    dsns = {name: await databases(name) for name in ("txlog", *SERVICES)}
    http, grpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    async with AsyncExitStack() as stack:
        sidecars: dict[str, Process] = {}
        proxies: dict[str, FaultProxy] = {}
        for name in SERVICES:
            address = f"127.0.0.1:{free_port()}"
            proxies[name] = await stack.enter_async_context(proxying(address))
            options = ("--dsn", dsns[name], "--listen", address, "--coordinators", grpc)
            command = (sys.executable, "-m", "sidecars.main", name, *options)
            sidecars[name] = Process(command, folder / f"{name}.log")
        configuration = folder / "coordinator.yaml"
        configuration.write_text(_configuration(dsns["txlog"], http, grpc, proxies))
        coordinator = Process((PINCEX, "coordinator", "--config", str(configuration)), folder / "coordinator.log")
        running = Cluster(http, grpc, coordinator, sidecars, proxies, dsns)
        stack.push_async_callback(running.client.aclose)
        for process in (*sidecars.values(), coordinator):
            stack.callback(process.kill)
            process.start()
        await running.until_ready()
        yield running


def _configuration(log_dsn: str, http: str, grpc: str, proxies: Mapping[str, FaultProxy]) -> str:
    return yaml.safe_dump(
        {
            "log": {"dsn": log_dsn},
            "server": {"grpc": grpc, "http": http},
            "participants": [{"name": name, "address": proxy.address} for name, proxy in proxies.items()],
            "security": {
                "enable_authentication": False,
                "enable_authorization": False,
                "api_key_required": False,
                "rate_limiting": {"enabled": False},
            },
        }
    )
