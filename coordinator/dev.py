"""``pincex dev``: everything on this machine, from one command, on the loopback only.

PostgreSQL and Redis (our own, or given ones), the bookkeeper and trading sidecars, and one
coordinator, each a process of its own, kept running until a Ctrl-C. Data, logs and the
written configuration live in one folder, ``.pincex``; a second start finds its data there.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import signal
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rich.console import Console
from rich.table import Table

from coordinator.embedded.postgres import EmbeddedPostgres, ensure_database
from coordinator.embedded.process import EmbeddedServerError, free_port, log_end, port_is_free
from coordinator.embedded.redis import EmbeddedRedis
from coordinator.embedded.supervision import Child, await_port, await_up, keep_child, keep_server

_SIDECARS: Final = ("bookkeeper", "trading")
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

    The sidecars listen ten and eleven ports above ``grpc_port``. A ``postgres`` DSN names a server, by
    any database on it, where the needed databases exist or may be made.
    """

    folder: Path = Path(".pincex")
    http_port: int = 8080
    grpc_port: int = 50051
    postgres: str = ""
    redis: str = ""


@dataclass(frozen=True, slots=True)
class _Places:
    """Where everything of one run listens, and the DSNs it stands on."""

    http: int
    grpc: int
    sidecars: dict[str, int]
    databases: dict[str, str]
    redis: str


def run(options: DevOptions) -> None:
    """Bring everything up, print how to try it, and keep it running until SIGINT or SIGTERM.

    DevError when it cannot start. Call it from the main thread.
    """
    (options.folder / "logs").mkdir(parents=True, exist_ok=True)
    with _sole_owner(options.folder), ExitStack() as stack:
        http, grpc, *others = _ports(options)
        servers: dict[str, EmbeddedPostgres | EmbeddedRedis] = {}
        try:
            postgres_dsn = options.postgres or _start_postgres(options.folder / "postgres", servers, stack)
            redis_dsn = options.redis or _start_redis(options.folder / "redis", servers, stack)
            databases = {name: ensure_database(postgres_dsn, name) for name in (_LOG_DATABASE, *_SIDECARS)}
        except EmbeddedServerError as error:
            raise DevError(str(error)) from error
        except psycopg.Error as error:
            raise DevError(f"PostgreSQL at {_shown(options.postgres)}: {error}") from error
        places = _Places(http, grpc, dict(zip(_SIDECARS, others, strict=True)), databases, redis_dsn)
        console = Console()
        _set_logs_aside(options.folder / "logs")
        asyncio.run(_Development(options.folder, places, console).run(servers))
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


def _ports(options: DevOptions) -> list[int]:
    """The ports of HTTP, gRPC and each sidecar; DevError names one that is taken."""
    wanted = [options.http_port, options.grpc_port]
    wanted += [options.grpc_port + 10 + at if options.grpc_port else 0 for at, _ in enumerate(_SIDECARS)]
    for port in wanted:
        if port and not port_is_free(port):
            raise DevError(f"port {port} is in use: stop what listens there, or take others (--http-port, --grpc-port)")
    return [port or free_port() for port in wanted]


class _Development:
    """One run: the children, in the order in which they start and stop."""

    def __init__(self, folder: Path, places: _Places, console: Console) -> None:
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
                group.create_task(keep_child(self._sidecar(name), self._stop_sidecars, self._tell))
                for name in self._places.sidecars
            ]
            coordinator = group.create_task(keep_child(self._coordinator(), self._stop_coordinator, self._tell))
            stopping = group.create_task(self._stopping.wait())
            ready = group.create_task(self._ready())
            await asyncio.wait((stopping, ready), return_when=asyncio.FIRST_COMPLETED)
            problem = ready.result() if ready.done() else ""
            if ready.done() and not problem:
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
        return Child(name, command, self._log(name), {"PGPASSWORD": password} if password else {})

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
            "participants": [
                {"name": name, "address": f"127.0.0.1:{port}"} for name, port in self._places.sidecars.items()
            ],
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
                for name, port in self._places.sidecars.items():
                    waiting_for = name
                    await await_port(port)
                waiting_for = "coordinator"
                await await_up(f"http://127.0.0.1:{self._places.http}/api/v1/transactions/health")
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
