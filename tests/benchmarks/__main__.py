"""``python -m tests.benchmarks``: the limits and the product in one run, in turns, on one PostgreSQL.

Ends with the invariants: money conserved, nothing in doubt, counts agree. Exit code 1 and the
sentences of what failed otherwise.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console

from coordinator.embedded import EmbeddedPostgres, Shutdown
from tests.benchmarks import report
from tests.benchmarks.figures import Figure, summarize
from tests.benchmarks.ledgers import count_commits, disagreements, make_ledger, read_ledger, violations
from tests.benchmarks.limit_ledger import LedgerLimit, ledger_limit
from tests.benchmarks.limit_reservation import measure_l3
from tests.benchmarks.limits import Banks, make_banks, measure_l1, measure_l2
from tests.benchmarks.processes import cpu_s
from tests.benchmarks.product import Product, product

IN_FLIGHT: Final = (1, 64, 512)
UNARY_CLIENTS: Final = 64
TABLE_WIDTH: Final = 160


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    accounts: int
    rounds: int
    seconds: float
    output: Path


@dataclass(frozen=True, slots=True)
class _Subjects:
    """What is measured."""

    banks: Banks
    ledger: LedgerLimit
    product: Product

    async def with_postgresql(self, measurement: Awaitable[Figure]) -> Figure:
        """A limit's figure, with PostgreSQL's CPU added."""
        server = {"postgresql": self.product.pids["postgresql"]}
        before_s = cpu_s(server)
        figure = await measurement
        return figure.with_cpu({name: used_s - before_s[name] for name, used_s in cpu_s(server).items()})


def _plan() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="The product against the limits.")
    parser.add_argument("--quick", action="store_true", help="one short round on few accounts, for CI")
    parser.add_argument("--accounts", type=int, help="in each database (100,000)")
    parser.add_argument("--rounds", type=int, help="5")
    parser.add_argument("--seconds", type=float, help="for each measurement (4)")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    given = parser.parse_args()
    accounts, rounds, seconds = (5_000, 1, 2.0) if given.quick else (100_000, 5, 4.0)
    return Plan(given.accounts or accounts, given.rounds or rounds, given.seconds or seconds, given.output)


@contextmanager
def _server(folder: Path) -> Generator[EmbeddedPostgres]:
    """A PostgreSQL of its own, forced commits and all."""
    server = EmbeddedPostgres(folder / "postgres", orphaned=Shutdown.IMMEDIATE)
    server.start()
    try:
        yield server
    finally:
        server.stop(Shutdown.IMMEDIATE)


async def _measure(plan: Plan, server: EmbeddedPostgres, folder: Path, console: Console) -> list[str]:
    """Measure everything, show and write it; the failures found."""
    first, second, decisions = (server.create_database(f"limit_{name}") for name in ("a", "b", "log"))
    banks = Banks(first, second, decisions, plan.accounts)
    make_banks(banks)
    ledgers = (server.create_database("bookkeeper_a"), server.create_database("bookkeeper_b"))
    for dsn in ledgers:
        await make_ledger(dsn, plan.accounts)
    log = server.create_database("txlog")
    own = (server.create_database("limit_ledger_a"), server.create_database("limit_ledger_b"))
    for dsn in own:
        await make_ledger(dsn, plan.accounts)
    before = [await read_ledger(dsn) for dsn in ledgers]
    figures: list[Figure] = []
    async with (
        ledger_limit(own, decisions, plan.accounts) as ledger,
        product(ledgers, log, plan.accounts, folder) as running,
    ):
        running.pids["postgresql"] = server.pid
        subjects = _Subjects(banks, ledger, running)
        for number in range(1, plan.rounds + 1):
            async for figure in _round(plan, subjects, folder):
                console.print(
                    f"{number}/{plan.rounds} {figure.subject}, {figure.in_flight} in flight: "
                    f"{figure.per_second:,.0f}/s, p50 {figure.p50_ms:.1f} ms, p99 {figure.p99_ms:.1f} ms",
                    highlight=False,
                )
                figures.append(figure)
    after = [await read_ledger(dsn) for dsn in ledgers]
    failures = running.complaints + disagreements(before, after, running.told, await count_commits(log))
    for dsn in ledgers:
        failures += await violations(dsn)
    summaries = summarize(figures)
    report.show(summaries, console)
    report.write(plan.output, figures, summaries, report.settings(log), failures)
    return failures


async def _round(plan: Plan, subjects: _Subjects, folder: Path) -> AsyncGenerator[Figure]:
    """One measurement of everything, in turns."""
    yield await measure_l1(subjects.banks, plan.seconds, folder)
    yield await measure_l2(subjects.banks, plan.seconds)
    for in_flight in IN_FLIGHT:
        yield await subjects.with_postgresql(measure_l3(subjects.banks, plan.seconds, in_flight))
        yield await subjects.with_postgresql(subjects.ledger.measure(plan.seconds, in_flight))
        yield await subjects.product.measure(plan.seconds, in_flight)
    yield await subjects.product.measure(plan.seconds, UNARY_CLIENTS, unary=True)


def main() -> int:
    """Run the benchmark; the exit code."""
    plan = _plan()
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    folder = Path(tempfile.mkdtemp(prefix="pincex-bench-"))
    # PostgreSQL's account must reach its data, where it is another than ours.
    folder.chmod(0o711)
    try:
        with _server(folder) as server:
            failures = uvloop.run(_measure(plan, server, folder, console))
    finally:
        shutil.rmtree(folder)
    for failure in failures:
        console.print(f"failed: {failure}", style="red", markup=False)
    console.print(f"bench: {'failed' if failures else 'every invariant holds'}; figures in {plan.output}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
