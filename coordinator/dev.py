"""``pincex dev``: everything on this machine, from one command, on the loopback only.

PostgreSQL and Redis (our own, or given ones), the sidecars, whoever plays the companies that they talk
to, and one coordinator, each a process of its own, kept running until a Ctrl-C. Data, logs and the
written configuration live in one folder, ``.pincex``; a second start finds its data there.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from rich.table import Table

from coordinator.embedded.postgres import EmbeddedPostgres, ensure_database
from coordinator.embedded.process import EmbeddedServerError, free_port, hold_port, log_end
from coordinator.embedded.redis import EmbeddedRedis
from coordinator.embedded.supervision import Child, await_port, await_up, keep_child, keep_server
from sidecars.main import SIDECARS

# Ports above the gRPC port at which the sidecars begin, and those who play other companies.
_SIDECARS_FROM: Final = 10
_SIMULATORS_FROM: Final = 20
_LOG_DATABASE: Final = "txlog"
_READY_S: Final = 60.0
_EXAMPLE: Final = """\
Open an account and put money into it:

curl -sS http://127.0.0.1:{http}/api/v1/transactions/execute -H 'Content-Type: application/json' -d '{{
  "operations": [
    {{"service": "bookkeeper", "operation": "open_account", "parameters": {{"user_id": "123", "currency": "BTC"}}}},
    {{"service": "bookkeeper", "operation": "credit_account",
      "parameters": {{"user_id": "123", "currency": "BTC", "amount": 10}}}}
  ]}}'

Lock funds and place an order, both or neither:

curl -sS http://127.0.0.1:{http}/api/v1/transactions/execute -H 'Content-Type: application/json' -d '{{
  "operations": [
    {{"service": "bookkeeper", "operation": "lock_funds",
      "parameters": {{"user_id": "123", "currency": "BTC", "amount": 0.5}}}},
    {{"service": "trading", "operation": "place_order",
      "parameters": {{"user_id": "123", "symbol": "BTC/USD", "side": "sell", "amount": 0.5, "price": 50000}}}}
  ],
  "timeout_seconds": 300}}'
"""


class DevError(Exception):
    """The development system cannot be started. The message says what to do."""


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What ``pincex dev`` can be told. Port 0 takes a free one.

    The sidecars listen from ten ports above ``grpc_port`` on, and simulators from twenty. A ``postgres`` DSN
    names a server, by any database on it, where the needed databases exist or may be made.

    ``own`` are further participants, by name and port: each gets a database, and is started by whoever wrote
    it. ``as_json``: once everything is ready that is told as one line of JSON, with passwords, on standard
    output, and everything else on standard error.
    """

    folder: Path = Path(".pincex")
    http_port: int = 8080
    grpc_port: int = 50051
    postgres: str = ""
    redis: str = ""
    own: Mapping[str, int] = field(default_factory=dict[str, int])
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class _Places:
    """Where everything of one run listens, the DSNs it stands on, and the folder of its data."""

    folder: Path
    http: int
    grpc: int
    sidecars: dict[str, int]
    simulators: dict[str, int]
    own: dict[str, int]
    databases: dict[str, str]
    redis: str

    @property
    def participants(self) -> dict[str, str]:
        """The address of each participant."""
        return {name: f"127.0.0.1:{port}" for name, port in {**self.sidecars, **self.own}.items()}

    def json(self) -> str:
        """All of it on one line."""
        return json.dumps(
            {
                "http": f"http://127.0.0.1:{self.http}",
                "grpc": f"127.0.0.1:{self.grpc}",
                "participants": self.participants,
                "simulators": {played_by(name): f"http://127.0.0.1:{port}" for name, port in self.simulators.items()},
                "databases": self.databases,
                "redis": self.redis,
                "data": str(self.folder.resolve()),
            }
        )


def played_by(sidecar: str) -> str:
    """The company that a sidecar talks to, such as bank; nothing for most."""
    simulator = SIDECARS[sidecar].simulator
    return "" if simulator is None else simulator.module.rpartition(".")[2]


def run(options: DevOptions) -> None:
    """Bring everything up, print how to try it, and keep it running until SIGINT or SIGTERM.

    DevError when it cannot start. Call it from the main thread.
    """
    (options.folder / "logs").mkdir(parents=True, exist_ok=True)
    with _sole_owner(options.folder), ExitStack() as stack:
        http, grpc, sidecars, simulators = _ports(options, stack)
        own = {name: port or free_port() for name, port in options.own.items()}
        if taken := own.keys() & {_LOG_DATABASE, *SIDECARS}:
            raise DevError(f"{', '.join(sorted(taken))}: names of what runs here already")
        servers: dict[str, EmbeddedPostgres | EmbeddedRedis] = {}
        try:
            postgres_dsn = options.postgres or _start_postgres(options.folder / "postgres", servers, stack)
            redis_dsn = options.redis or _start_redis(options.folder / "redis", servers, stack)
            databases = {name: ensure_database(postgres_dsn, name) for name in (_LOG_DATABASE, *SIDECARS, *own)}
        except EmbeddedServerError as error:
            raise DevError(str(error)) from error
        except psycopg.Error as error:
            raise DevError(f"PostgreSQL at {_shown(options.postgres)}: {error}") from error
        places = _Places(options.folder, http, grpc, sidecars, simulators, own, databases, redis_dsn)
        console = Console(stderr=options.as_json)
        _set_logs_aside(options.folder / "logs")
        asyncio.run(_Development(options.folder, places, console, as_json=options.as_json).run(servers))
        stack.close()
        console.print(f"run: everything is stopped; the data stay in {options.folder}", highlight=False)


@contextmanager
def _sole_owner(folder: Path) -> Generator[None]:
    """Hold the folder: two owners would stop each other's servers. The kernel lets go when we end."""
    with (folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise DevError(f"already running on {folder}, as process {lock.read().strip()}; stop it first") from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _set_logs_aside(folder: Path) -> None:
    """Begin new logs; the last run's stay beside them, and no others."""
    for log in folder.glob("*.log"):
        log.replace(log.with_suffix(".log.1"))


def _start_postgres(folder: Path, servers: dict[str, EmbeddedPostgres | EmbeddedRedis], stack: ExitStack) -> str:
    servers["PostgreSQL"] = postgres = EmbeddedPostgres(folder)
    stack.callback(postgres.stop)
    postgres.start()
    return postgres.dsn()


def _start_redis(folder: Path, servers: dict[str, EmbeddedPostgres | EmbeddedRedis], stack: ExitStack) -> str:
    servers["Redis"] = redis = EmbeddedRedis(folder)
    stack.callback(redis.stop)
    redis.start()
    return redis.dsn


def _ports(options: DevOptions, stack: ExitStack) -> tuple[int, int, dict[str, int], dict[str, int]]:
    """The ports of HTTP, gRPC, each sidecar and each simulator; DevError names one that is taken.

    Those that were asked for are held until the stack ends, or our own connections might be given them.
    """

    def port_at(wanted: int) -> int:
        if not wanted:
            return free_port()
        try:
            held = hold_port(wanted)
        except OSError as error:
            message = f"port {wanted} is in use: stop what listens there, or take others (--http-port, --grpc-port)"
            raise DevError(message) from error
        if sys.platform == "linux":
            stack.enter_context(held)
        else:
            # Nobody else could listen there.
            held.close()
        return wanted

    def ports_from(above: int, names: Iterable[str]) -> dict[str, int]:
        first = options.grpc_port + above
        return {name: port_at(first + at if options.grpc_port else 0) for at, name in enumerate(names)}

    simulated = [name for name, sidecar in SIDECARS.items() if sidecar.simulator is not None]
    return (
        port_at(options.http_port),
        port_at(options.grpc_port),
        ports_from(_SIDECARS_FROM, SIDECARS),
        ports_from(_SIMULATORS_FROM, simulated),
    )


class _Development:
    """One run: the children, in the order in which they start and stop."""

    def __init__(self, folder: Path, places: _Places, console: Console, *, as_json: bool) -> None:
        self._as_json = as_json
        self._folder = folder
        self._places = places
        self._console = console
        self._stopping = asyncio.Event()
        self._stop_coordinator = asyncio.Event()
        self._stop_sidecars = asyncio.Event()

    async def run(self, servers: dict[str, EmbeddedPostgres | EmbeddedRedis]) -> None:
        """Start, show, wait for a signal, stop: the coordinator first, then what it talks to."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        async with asyncio.TaskGroup() as group:
            watches = [group.create_task(keep_server(name, server, self._tell)) for name, server in servers.items()]
            sidecars = [
                group.create_task(keep_child(child, self._stop_sidecars, self._tell)) for child in self._beside()
            ]
            coordinator = group.create_task(keep_child(self._coordinator(), self._stop_coordinator, self._tell))
            stopping = group.create_task(self._stopping.wait())
            ready = group.create_task(self._ready())
            await asyncio.wait((stopping, ready), return_when=asyncio.FIRST_COMPLETED)
            problem = ready.result() if ready.done() else ""
            if ready.done() and not problem:
                if self._as_json:
                    sys.stdout.write(self._places.json() + "\n")
                    sys.stdout.flush()
                else:
                    self._show()
                await stopping
            self._console.print("Stopping.")
            self._stop_coordinator.set()
            await asyncio.wait((coordinator,))
            self._stop_sidecars.set()
            await asyncio.wait(sidecars)
            for task in (*watches, stopping, ready):
                task.cancel()
        if problem:
            raise DevError(problem)

    def _tell(self, message: str) -> None:
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _beside(self) -> Iterator[Child]:
        """Everything that runs beside the coordinator."""
        for name in self._places.simulators:
            yield from self._simulator(name)
        for name in self._places.sidecars:
            yield self._sidecar(name)

    def _simulator(self, name: str) -> Iterator[Child]:
        """Who plays the company that a sidecar talks to; nobody for most."""
        simulator = SIDECARS[name].simulator
        if simulator is not None:
            played = played_by(name)
            command = (
                *(sys.executable, "-m", simulator.module),
                *("--listen", f"127.0.0.1:{self._places.simulators[name]}", "--folder", str(self._folder / played)),
            )
            yield Child(played, command, self._log(played))

    def _sidecar(self, name: str) -> Child:
        parameters = conninfo_to_dict(self._places.databases[name])
        # Not on the command line, which every user of the machine can read.
        password = str(parameters.pop("password", ""))
        command = (
            *(sys.executable, "-m", "sidecars.main", name),
            *("--dsn", make_conninfo("", **parameters)),
            *("--listen", f"127.0.0.1:{self._places.sidecars[name]}"),
            *("--coordinators", f"127.0.0.1:{self._places.grpc}"),
        )
        environment = {"PGPASSWORD": password} if password else {}
        simulator = SIDECARS[name].simulator
        if simulator is not None:
            environment[simulator.variable] = f"http://127.0.0.1:{self._places.simulators[name]}"
        return Child(name, command, self._log(name), environment)

    def _coordinator(self) -> Child:
        file = self._folder / "coordinator.yaml"
        file.touch(mode=0o600)
        file.write_text("# Written anew at every start.\n" + yaml.safe_dump(self._configuration(), sort_keys=False))
        command = (sys.executable, "-m", "coordinator.cli", "coordinator", "--config", str(file))
        return Child("coordinator", command, self._log("coordinator"))

    def _configuration(self) -> dict[str, object]:
        """The coordinator's configuration. Without keys and limits, since it listens on the loopback only."""
        return {
            "log": {"dsn": self._places.databases[_LOG_DATABASE]},
            "server": {"grpc": f"127.0.0.1:{self._places.grpc}", "http": f"127.0.0.1:{self._places.http}"},
            "participants": [{"name": name, "address": address} for name, address in self._places.participants.items()],
            "locks": {"store": self._places.redis},
            "security": {
                "enable_authentication": False,
                "enable_authorization": False,
                "api_key_required": False,
                "rate_limiting": {"enabled": False},
            },
        }

    async def _ready(self) -> str:
        """Return when everything answers: nothing, or a sentence on what does not."""
        waiting_for = ""
        try:
            async with asyncio.timeout(_READY_S):
                for name, port in (*self._places.simulators.items(), *self._places.sidecars.items()):
                    waiting_for = name
                    await await_port(port)
                waiting_for = "coordinator"
                await await_up(f"http://127.0.0.1:{self._places.http}/api/v1/transactions/health", self._places.own)
        except TimeoutError:
            return (
                f"{waiting_for} did not get ready in {_READY_S:g} s; its log ends:\n{log_end(self._log(waiting_for))}"
            )
        return ""

    def _show(self) -> None:
        places = self._places
        table = Table(title="PinCEX Transactions, for development: anyone on this machine may call it")
        table.add_column("what")
        table.add_column("where", overflow="fold")
        table.add_row("HTTP", f"http://127.0.0.1:{places.http}/api/v1/transactions")
        table.add_row("metrics", f"http://127.0.0.1:{places.http}/metrics")
        table.add_row("gRPC, with reflection", f"127.0.0.1:{places.grpc}")
        for name, port in places.sidecars.items():
            table.add_row(f"{name}, gRPC", f"127.0.0.1:{port}")
        for name, port in places.simulators.items():
            table.add_row(f"whom {name} talks to, simulated", f"http://127.0.0.1:{port}")
        for name, port in places.own.items():
            table.add_row(f"{name}, which you start yourself", f"127.0.0.1:{port}")
        for name, dsn in places.databases.items():
            table.add_row(f"database {name}", _shown(dsn))
        table.add_row("Redis", _shown(places.redis))
        table.add_row("logs, data, passwords", str(self._folder))
        self._console.print(table)
        self._tell(_EXAMPLE.format(http=places.http))
        self._console.print("Ready. Ctrl-C stops everything.")


def _shown(dsn: str) -> str:
    """The DSN as a short URL, without its password."""
    if dsn.startswith("redis"):
        return re.sub(r"//[^@/]*@", "//", dsn)
    try:
        known = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "the DSN given"
    return (
        f"postgresql://{known.get('user', '')}@{known.get('host', '')}:{known.get('port', 5432)}/{known.get('dbname')}"
    )
