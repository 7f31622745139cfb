"""The product as it runs: a coordinator and its participants, each a process, under load from one more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
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
from participant_sdk.faults import FaultProxy, proxying
from participant_sdk.load import OpenReport, Operations, Report
from tests.benchmarks import processes
from tests.benchmarks.figures import Figure
from tests.benchmarks.ledgers import (
    CURRENCY,
    Kind,
    Ledger,
    disagreements,
    make_ledger,
    make_xa_bank,
    numbered,
    read_ledger,
    read_log,
    settled,
    violations,
)
from tests.benchmarks.loading import Load, load
from tests.benchmarks.run import Run

DEBITED: Final = "payer"
CREDITED: Final = "payee"
READY_S: Final = 30.0
# More than any measurement has in flight: what is measured is not how many the coordinator lets in.
IN_FLIGHT_MAX: Final = 20_000


@dataclass(slots=True)
class Product:
    """The running system. Not frozen: ``told`` counts the commits that its clients were told of."""

    address: str
    http: str
    pids: dict[str, int]
    told: int = 0
    complaints: list[str] = field(default_factory=list[str])
    proxies: dict[str, FaultProxy] = field(default_factory=dict[str, FaultProxy])
    _seed: int = 0

    async def measure(self, subject: str, wanted: Load) -> Figure:
        """Load it. What should not happen becomes a complaint."""
        self._seed += 1
        before_s = processes.cpu_s(self.pids)
        report = await load(self.address, wanted, seed=self._seed)
        ended = report.ended
        used_s = {name: after_s - before_s[name] for name, after_s in processes.cpu_s(self.pids).items()}
        self._judge(f"{subject}, {wanted.in_flight} in flight", wanted, report)
        # What a late generator saw are not the system's latencies.
        is_true = not isinstance(report, OpenReport) or report.trustworthy
        p50_ms, p99_ms = (report.p50_ms, report.p99_ms) if is_true else (0.0, 0.0)
        in_flight = wanted.in_flight if wanted.per_second is None else 0
        rate = report.per_second
        figure = Figure(subject, in_flight, rate, p50_ms, p99_ms, count=ended, values=_values(report))
        return figure.with_cpu({**used_s, "load": report.cpu_us * ended / 1_000_000})

    def _judge(self, what: str, wanted: Load, report: Report) -> None:
        self.told += report.committed
        if not report.committed:
            self.complaints.append(f"{what}: nothing committed")
        if report.rolled_back and not wanted.may_refuse:
            self.complaints.append(f"{what}: rolled back {report.rolled_back}")
        if report.unknown:
            self.complaints.append(f"{what}: {report.unknown} outcomes are unknown")
        if report.not_applied and not wanted.decided:
            self.complaints.append(f"{what}: {report.not_applied} were told as not applied")


def _values(report: Report) -> dict[str, float]:
    """What an open loop says beside: how late the generator was, and whether it could offer what was asked."""
    if not isinstance(report, OpenReport):
        return {}
    return {
        "offered /s": report.offered_per_second,
        "lag p99 ms": report.lag_p99_ms,
        **({"not offered": float(report.not_offered)} if report.not_offered else {}),
    }


@asynccontextmanager
async def checked_product(
    run: Run,
    names: Sequence[str] = (DEBITED, CREDITED),
    *,
    kind: Kind = Kind.BOOKKEEPER,
    users: Mapping[str, Sequence[str]] | None = None,
    log: str | None = None,
    closed: bool = True,
    proxied: Sequence[str] = (),
) -> AsyncGenerator[Product]:
    """Run a system on fresh ledgers for the time of the block, and check the invariants at its end.

    ``users``: who has an account, by ledger; else "0" and so on. ``log``: a log database that is there already.
    ``closed``: money only moves between the ledgers. ``proxied``: whom the coordinator reaches through a proxy.
    """
    ledgers = [Ledger(name, run.database(name.replace("-", "_")), kind) for name in names]
    for ledger in ledgers:
        make = make_ledger if kind is Kind.BOOKKEEPER else make_xa_bank
        await make(ledger.dsn, users[ledger.name] if users else numbered(run.plan.accounts))
    log = log or run.database("txlog")
    async with checked(run, ledgers, log, transfer_over(names), proxied, closed=closed) as running:
        yield running


@asynccontextmanager
async def checked(
    run: Run, ledgers: Sequence[Ledger], log: str, first: Operations, proxied: Sequence[str] = (), *, closed: bool
) -> AsyncGenerator[Product]:
    """Run a system on these databases for the time of the block, and check the invariants at its end.

    ``first`` is a transaction over all of them, which shows that every link is up.
    """
    before = [await read_ledger(ledger.dsn, ledger.kind) for ledger in ledgers]
    async with product(ledgers, log, run.place(), first, proxied) as running:
        running.pids["postgresql"] = run.server.pid
        yield running
        after = await settled(log, ledgers)
    names = [ledger.name for ledger in ledgers]
    run.fail(running.complaints)
    run.fail(disagreements(names, before, after, running.told, await read_log(log), closed=closed))
    for ledger in ledgers:
        if ledger.kind is not Kind.XA:
            run.fail([f"{ledger.name}: {violation}" for violation in await violations(ledger.dsn, ledger.kind)])


@asynccontextmanager
async def product(
    ledgers: Sequence[Ledger], log: str, folder: Path, first: Operations, proxied: Sequence[str] = ()
) -> AsyncGenerator[Product]:
    """Run the system on these databases for the time of the block; ``first`` is committed when it begins."""
    async with AsyncExitStack() as stack:
        ports = {ledger.name: free_port() for ledger in ledgers}
        grpc, http = free_port(), free_port()
        pids: dict[str, int] = {}
        for ledger in ledgers:
            serving = participant(ledger, ports[ledger.name], grpc, folder)
            pids[ledger.name] = await stack.enter_async_context(serving)
        proxies = {name: await stack.enter_async_context(proxying(f"127.0.0.1:{ports[name]}")) for name in proxied}
        addresses = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        addresses.update({name: proxy.address for name, proxy in proxies.items()})
        file = folder / "coordinator.yaml"
        file.write_text(yaml.safe_dump(configuration(addresses, log, grpc, http)))
        arguments = ("coordinator.cli", "coordinator", "--config", str(file))
        pids["coordinator"] = await stack.enter_async_context(processes.process("coordinator", arguments, folder, {}))
        running = Product(f"127.0.0.1:{grpc}", f"127.0.0.1:{http}", pids, proxies=proxies)
        try:
            async with asyncio.timeout(READY_S):
                for port in (*ports.values(), grpc):
                    await await_port(port)
            await _commit_once(running, first)
        except (TimeoutError, ClientError) as error:
            logs = "\n".join(f"{name}: {processes.log_end(name, folder)}" for name in pids)
            raise processes.ProcessFailedError(f"the product did not get ready in {READY_S:g} s\n{logs}") from error
        yield running


@asynccontextmanager
async def participant(ledger: Ledger, port: int, grpc: int, folder: Path) -> AsyncGenerator[int]:
    """Serve one ledger for the time of the block; gives its process id."""
    parameters = conninfo_to_dict(ledger.dsn)
    # Not on the command line, which every user of the machine can read.
    password = str(parameters.pop("password"))
    program = ("tests.benchmarks.xa_bank",) if ledger.kind is Kind.XA else ("sidecars.main", ledger.kind.value)
    arguments = (
        *program,
        *("--name", ledger.name, "--dsn", make_conninfo("", **parameters)),
        *("--listen", f"127.0.0.1:{port}", "--coordinators", f"127.0.0.1:{grpc}"),
    )
    async with processes.process(ledger.name, arguments, folder, {"PGPASSWORD": password}) as pid:
        yield pid


def configuration(addresses: Mapping[str, str], log: str, grpc: int, http: int) -> dict[str, object]:
    """The coordinator's configuration: the defaults, without keys and rate limits."""
    return {
        "log": {"dsn": log},
        "server": {"grpc": f"127.0.0.1:{grpc}", "http": f"127.0.0.1:{http}"},
        "participants": [{"name": name, "address": address} for name, address in addresses.items()],
        "xa_manager": {"max_concurrent_txns": IN_FLIGHT_MAX},
        "security": {
            "enable_authentication": False,
            "enable_authorization": False,
            "api_key_required": False,
            "rate_limiting": {"enabled": False},
        },
    }


def transfer_over(names: Sequence[str]) -> Operations:
    """One transfer, from the first of these participants to all others."""
    debited, *credited = names
    return [
        _moving(debited, "debit_account", len(credited)),
        *(_moving(name, "credit_account", 1) for name in credited),
    ]


async def _commit_once(running: Product, operations: Operations) -> None:
    async with TransactionClient(running.address, timeout_s=READY_S) as client:
        ending = await client.execute(operations)
    if not isinstance(ending, Committed):
        raise processes.ProcessFailedError(f"the first transaction was refused: {ending.reason}: {ending.message}")
    running.told += 1


def _moving(name: str, operation: str, amount: int) -> tuple[str, str, str]:
    return name, operation, f'{{"user_id":"0","currency":"{CURRENCY}","amount":"{amount}"}}'
