"""The product as it runs: a coordinator and two bookkeepers, each a process, under load from one more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from coordinator.embedded.process import free_port
from coordinator.embedded.supervision import await_port
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import ClientError
from participant_sdk.client_results import Committed
from participant_sdk.load import Report
from tests.benchmarks import processes
from tests.benchmarks.figures import Figure
from tests.benchmarks.ledgers import CURRENCY

DEBITED: Final = "payer"
CREDITED: Final = "payee"
WARM_UP_S: Final = 1.0
READY_S: Final = 30.0


@dataclass(slots=True)
class Product:
    """The running system. Not frozen: ``told`` counts the commits that its clients were told of."""

    address: str
    pids: dict[str, int]
    accounts: int
    told: int = 0
    complaints: list[str] = field(default_factory=list[str])

    async def measure(self, seconds: float, in_flight: int, *, unary: bool = False) -> Figure:
        """Load it with transfers, ``in_flight`` at once. What should not happen becomes a complaint."""
        before_s = processes.cpu_s(self.pids)
        report = await self._load(seconds, in_flight, unary=unary)
        ended = report.committed + sum(report.rolled_back.values()) + report.unknown
        used_s = {name: after_s - before_s[name] for name, after_s in processes.cpu_s(self.pids).items()}
        subject = "product, unary" if unary else "product, stream"
        self._judge(f"{subject}, {in_flight} in flight", report)
        figure = Figure(subject, in_flight, report.per_second, report.p50_ms, report.p99_ms, count=ended)
        return figure.with_cpu({**used_s, "load": report.cpu_us * ended / 1_000_000})

    async def _load(self, seconds: float, in_flight: int, *, unary: bool) -> Report:
        output = await processes.output_of(
            "load",
            (
                *("participant_sdk.load", "--coordinators", self.address),
                *("--debited", DEBITED, "--credited", CREDITED, "--accounts", str(self.accounts)),
                *("--in-flight", str(in_flight), "--seconds", str(seconds), "--warm-up", str(WARM_UP_S)),
                *("--seed", str(self.told), *(["--unary"] if unary else [])),
            ),
        )
        return Report(**json.loads(output))

    def _judge(self, what: str, report: Report) -> None:
        self.told += report.committed
        if not report.committed:
            self.complaints.append(f"{what}: nothing committed")
        if report.rolled_back or report.unknown or report.not_applied:
            self.complaints.append(
                f"{what}: rolled back {report.rolled_back}, unknown {report.unknown}, not applied {report.not_applied}"
            )


@asynccontextmanager
async def product(ledgers: tuple[str, str], log: str, accounts: int, folder: Path) -> AsyncGenerator[Product]:
    """Run the system on these databases for the time of the block; it has committed once when it begins."""
    async with AsyncExitStack() as stack:
        ports = {DEBITED: free_port(), CREDITED: free_port()}
        grpc, http = free_port(), free_port()
        pids: dict[str, int] = {}
        for (name, port), dsn in zip(ports.items(), ledgers, strict=True):
            pids[name] = await stack.enter_async_context(bookkeeper(name, port, dsn, grpc, folder))
        file = folder / "coordinator.yaml"
        file.write_text(yaml.safe_dump(configuration(ports, log, grpc, http)))
        arguments = ("coordinator.cli", "coordinator", "--config", str(file))
        pids["coordinator"] = await stack.enter_async_context(processes.process("coordinator", arguments, folder, {}))
        running = Product(f"127.0.0.1:{grpc}", pids, accounts)
        try:
            async with asyncio.timeout(READY_S):
                for port in (*ports.values(), grpc):
                    await await_port(port)
            await _commit_once(running)
        except (TimeoutError, ClientError) as error:
            logs = "\n".join(f"{name}: {processes.log_end(name, folder)}" for name in pids)
            raise processes.ProcessFailedError(f"the product did not get ready in {READY_S:g} s\n{logs}") from error
        yield running


@asynccontextmanager
async def bookkeeper(name: str, port: int, dsn: str, grpc: int, folder: Path) -> AsyncGenerator[int]:
    """Run one bookkeeper under this name for the time of the block; gives its process id."""
    parameters = conninfo_to_dict(dsn)
    # Not on the command line, which every user of the machine can read.
    password = str(parameters.pop("password"))
    arguments = (
        *("sidecars.main", "bookkeeper", "--name", name, "--dsn", make_conninfo("", **parameters)),
        *("--listen", f"127.0.0.1:{port}", "--coordinators", f"127.0.0.1:{grpc}"),
    )
    async with processes.process(name, arguments, folder, {"PGPASSWORD": password}) as pid:
        yield pid


def configuration(ports: dict[str, int], log: str, grpc: int, http: int) -> dict[str, object]:
    """The coordinator's configuration: the defaults, without keys and rate limits."""
    return {
        "log": {"dsn": log},
        "server": {"grpc": f"127.0.0.1:{grpc}", "http": f"127.0.0.1:{http}"},
        "participants": [{"name": name, "address": f"127.0.0.1:{port}"} for name, port in ports.items()],
        "security": {
            "enable_authentication": False,
            "enable_authorization": False,
            "api_key_required": False,
            "rate_limiting": {"enabled": False},
        },
    }


async def _commit_once(running: Product) -> None:
    parameters = f'{{"user_id":"0","currency":"{CURRENCY}","amount":"1"}}'
    transfer = [(DEBITED, "debit_account", parameters), (CREDITED, "credit_account", parameters)]
    async with TransactionClient(running.address, timeout_s=READY_S) as client:
        ending = await client.execute(transfer)
    if not isinstance(ending, Committed):
        raise processes.ProcessFailedError(f"the first transfer was refused: {ending.reason}: {ending.message}")
    running.told += 1
