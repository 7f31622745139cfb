"""The product's own processes on free ports, with a proxy before each participant, to be killed at chosen moments."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, LiteralString

import httpx
import psycopg
import yaml

from coordinator.embedded.process import free_port
from participant_sdk.faults import FaultProxy, proxying
from sidecars.main import SIDECARS
from sidecars.sidecar import Simulator
from sidecars.wallet.settings import INTERVAL_VARIABLE
from tests.conftest import MakeDatabase
from tests.crash import trigger
from tests.crash.nursery import Forked, fork

ROOT: Final = Path(__file__).parents[2]
START_TIMEOUT_S: Final = 60.0
STOP_S: Final = 20.0
LOOK_AGAIN_S: Final = 0.02
SERVICES: Final = ("bookkeeper", "trading")
BANK: Final = "bank"


@dataclass(slots=True)
class Process:
    """One process of the product, started and killed at will. Its output goes to ``log``, its order to ``armed``."""

    name: str
    command: Sequence[str]
    folder: Path
    running: Forked | None = None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def log(self) -> Path:
        """What it wrote, in all its lives."""
        return self.folder / f"{self.name}.log"

    @property
    def armed(self) -> Path:
        """The file that arms its crash points."""
        return self.folder / f"{self.name}.armed"

    @property
    def pid(self) -> int:
        """The running process."""
        assert self.running is not None, f"{self.name} is not running"
        return self.running.pid

    @property
    def is_running(self) -> bool:
        """It was started, and has not ended."""
        return self.running is not None and self.running.poll() is None

    def start(self) -> None:
        """Start it, again after a kill. Its crash points do nothing before it is armed."""
        self.running = fork(self.command, self.log, self.environment)

    def arm(self, point: str, nth: int = 1, action: str = "kill") -> None:
        """Have it end at this hit of the point, counted from now."""
        trigger.arm(self.armed, point, nth, action)

    def count(self) -> None:
        """Have it count what points it comes by from now on."""
        trigger.counts_of(self.armed).unlink(missing_ok=True)
        trigger.count(self.armed)

    def counted(self) -> Counter[str]:
        """How often it came by each, until now; it counts no more."""
        self.disarm()
        counts = trigger.counts_of(self.armed)
        return Counter(counts.read_text(encoding="ascii").split()) if counts.exists() else Counter()

    def disarm(self) -> None:
        """Take the order back."""
        self.armed.unlink(missing_ok=True)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        if self.running is not None:
            self.running.kill()
            self.running.wait()
            self.running = None

    def log_end(self) -> str:
        """The last lines of what it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    async def ended(self, within_s: float) -> float:
        """Wait for its end; when that was, by the monotonic clock. TimeoutError."""
        async with asyncio.timeout(within_s):
            while self.is_running:  # noqa: ASYNC110 - another process has no event for us.
                await asyncio.sleep(LOOK_AGAIN_S / 4)
        return time.monotonic()


@dataclass(slots=True)
class Coordinator:
    """One coordinator's process, and where its doors are."""

    process: Process
    grpc: str
    http: str


@dataclass(slots=True)
class Cluster:
    """Coordinators and participants as processes, each participant with its own database, behind a proxy."""

    coordinators: Sequence[Coordinator]
    sidecars: Mapping[str, Process]
    # Where participants themselves listen.
    addresses: Mapping[str, str]
    proxies: Mapping[str, FaultProxy]
    dsns: Mapping[str, str]
    # Who plays other companies, by the name of the sidecar that talks to them, and the URLs.
    companies: Mapping[str, Process] = field(default_factory=dict[str, Process])
    urls: Mapping[str, str] = field(default_factory=dict[str, str])
    # A connection is not used again when the other side may be about to close it.
    client: httpx.AsyncClient = field(
        default_factory=lambda: httpx.AsyncClient(timeout=60.0, limits=httpx.Limits(keepalive_expiry=1.0))
    )

    @property
    def coordinator(self) -> Process:
        """The first coordinator's process."""
        return self.coordinators[0].process

    @property
    def processes(self) -> Sequence[Process]:
        """All of them, coordinators last, since they need the others."""
        return (*self.companies.values(), *self.sidecars.values(), *(each.process for each in self.coordinators))

    def start_all(self) -> None:
        """Start what is not running."""
        for process in self.processes:
            if not process.is_running:
                process.start()

    async def execute(self, *operations: tuple[str, str, Mapping[str, object]], **more: object) -> httpx.Response:
        """POST a transaction of (service, operation, parameters) to the first coordinator."""
        listed = [{"service": s, "operation": o, "parameters": p} for s, o, p in operations]
        body = json.dumps({"operations": listed, **more})
        headers = {"content-type": "application/json"}
        url = f"http://{self.coordinators[0].http}/api/v1/transactions/execute"
        return await self.client.post(url, content=body, headers=headers)

    async def until_ready(self) -> None:
        """Wait until every coordinator answers and all its links are up."""
        for each in self.coordinators:
            await self.until(partial(self._is_ready, each.http))

    async def _is_ready(self, http: str) -> bool:
        for process in self.processes:
            assert process.is_running, f"{process.name} ended:\n{process.log_end()}"
        try:
            answer = (await self.client.get(f"http://{http}/api/v1/transactions/health")).json()
        except httpx.TransportError:
            return False
        return answer["status"] == "UP"

    async def rows(self, database: str, query: LiteralString) -> list[tuple[object, ...]]:
        """What a query in one of the databases returns."""
        async with await psycopg.AsyncConnection.connect(self.dsns[database], autocommit=True) as connection:
            cursor = await connection.execute(query)
            return await cursor.fetchall()

    async def until(
        self,
        condition: Callable[[], Awaitable[bool]],
        within_s: float = START_TIMEOUT_S,
        every_s: float = LOOK_AGAIN_S,
    ) -> None:
        """Return once the condition holds, of other processes, which have no event for us."""
        async with asyncio.timeout(within_s):
            # What is waited for happens in another process.
            while not await condition():  # noqa: ASYNC110
                await asyncio.sleep(every_s)


def own_host() -> str:
    """An address of the loopback that is this process's alone: nobody takes the port of whoever was just killed.

    Where the loopback has but one address, it is that.
    """
    if sys.platform != "linux":
        return "127.0.0.1"
    number = os.getpid()
    return f"127.{1 + number // 62_500 % 254}.{number // 250 % 250}.{1 + number % 250}"


@asynccontextmanager
async def cluster(
    folder: Path,
    databases: MakeDatabase,
    *,
    coordinators: int = 1,
    bank: bool = False,
    others: Mapping[str, str] | None = None,
    more: Mapping[str, object] | None = None,
    workflows: Sequence[str] = (),
    services: Sequence[str] = SERVICES,
    companies: bool = False,
) -> AsyncGenerator[Cluster]:
    """Start all, ready for work, for the time of the block; kill what is left at its end.

    ``bank`` adds the participant on XA; ``others`` are further participants, by name, and where they serve;
    ``workflows`` are modules of workflows; ``services`` are the sidecars, and ``companies`` adds those that play whom
    they talk to; ``more`` are further sections of the coordinators' configuration.
    """
    names = (*services, BANK) if bank else services
    dsns = {name: await databases(name) for name in ("txlog", *names)}
    host = own_host()
    doors = [(f"{host}:{free_port()}", f"{host}:{free_port()}") for _ in range(coordinators)]
    async with AsyncExitStack() as stack:
        addresses = {name: f"{host}:{free_port()}" for name in names}
        proxies = {name: await stack.enter_async_context(proxying(addresses[name])) for name in names}
        configured = {**{name: proxy.address for name, proxy in proxies.items()}, **(others or {})}
        known = ",".join(address for address, _ in doors)
        # Without TLS a sidecar talks to no other address of the loopback.
        urls = {name: f"http://127.0.0.1:{free_port()}" for name in names if companies and _simulator(name)}
        sidecars = {
            name: _sidecar(name, folder, dsns[name], addresses[name], known, urls.get(name, "")) for name in names
        }
        running = Cluster(
            [
                _coordinator(number, door, folder, dsns["txlog"], configured, workflows, more or {})
                for number, door in enumerate(doors, 1)
            ],
            sidecars,
            addresses,
            proxies,
            dsns,
            {name: _company(name, folder, url) for name, url in urls.items()},
            urls,
        )
        stack.push_async_callback(running.client.aclose)
        for process in running.processes:
            stack.callback(process.kill)
        for process in (*running.companies.values(), *sidecars.values()):
            process.start()
        for name, process in sidecars.items():
            await running.until(partial(_is_served, process, addresses[name]))
        for each in running.coordinators:
            each.process.start()
        await running.until_ready()
        yield running


def _sidecar(name: str, folder: Path, dsn: str, address: str, known: str, url: str) -> Process:
    module = ("tests.crash.bank",) if name == BANK else ("sidecars.main", name)
    command = (*module, "--dsn", dsn, "--listen", address, "--coordinators", known)
    simulator = _simulator(name)
    if simulator is None or not url:
        return Process(name, command, folder)
    return Process(name, command, folder, environment={simulator.variable: url, INTERVAL_VARIABLE: "0.05"})


def _simulator(name: str) -> Simulator | None:
    sidecar = SIDECARS.get(name)
    return None if sidecar is None else sidecar.simulator


def _company(name: str, folder: Path, url: str) -> Process:
    """Who plays the company that this sidecar talks to."""
    simulator = _simulator(name)
    assert simulator is not None
    played = simulator.module.rpartition(".")[2]
    listen = url.removeprefix("http://")
    command = ("tests.crash.company", simulator.module, "--listen", listen, "--folder", str(folder / played))
    return Process(played, command, folder)


def _coordinator(
    number: int,
    door: tuple[str, str],
    folder: Path,
    log_dsn: str,
    participants: Mapping[str, str],
    workflows: Sequence[str],
    more: Mapping[str, object],
) -> Coordinator:
    name = f"coordinator-{number}"
    file = folder / f"{name}.yaml"
    settings: dict[str, object] = {
        "log": {"dsn": log_dsn},
        "server": {"grpc": door[0], "http": door[1]},
        "coordinator": {"name": name},
        "workflows": {"modules": list(workflows)},
        "participants": [{"name": each, "address": address} for each, address in participants.items()],
        "security": {
            "enable_authentication": False,
            "enable_authorization": False,
            "api_key_required": False,
            "rate_limiting": {"enabled": False},
        },
        **more,
    }
    file.write_text(yaml.safe_dump(settings))
    return Coordinator(Process(name, ("coordinator", "--config", str(file)), folder), *door)


async def _is_served(process: Process, address: str) -> bool:
    """Whether something listens at the address. AssertionError with its log's end if the process has ended."""
    assert process.is_running, f"{process.name} ended:\n{process.log_end()}"
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True
