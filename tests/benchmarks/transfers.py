"""Transfers between two bookkeepers, and the limits that they are measured against, in turns."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Final

from tests.benchmarks import processes
from tests.benchmarks.figures import Figure
from tests.benchmarks.ledgers import make_ledger, numbered
from tests.benchmarks.limit_ledger import LedgerLimit, ledger_limit
from tests.benchmarks.limit_reservation import SHAPES, measure_l3
from tests.benchmarks.limits import Banks, make_banks, measure_l1
from tests.benchmarks.loading import Load
from tests.benchmarks.product import CREDITED, DEBITED, Product, checked_product
from tests.benchmarks.run import Run
from tests.benchmarks.targets import APPLIED, DECIDED, UNARY

IN_FLIGHT: Final = (1, 16, 64, 256, 512, 1_024)
UNARY_CLIENTS: Final = 64
ROUNDS: Final = 5


def wanted(run: Run, in_flight: int, *, decided: bool = False, unary: bool = False) -> Load:
    """A closed loop of transfers."""
    return Load((DEBITED, CREDITED), run.plan.accounts, in_flight, run.plan.seconds, decided=decided, unary=unary)


def make_limits(run: Run) -> Banks:
    """Fresh databases for the limits."""
    first, second, log = (run.database(f"limit_{name}") for name in ("a", "b", "log"))
    banks = Banks(first, second, log, run.plan.accounts)
    make_banks(banks)
    return banks


async def own_ledger(run: Run, banks: Banks, stack: AsyncExitStack) -> LedgerLimit:
    """The limit over fresh ledgers, open until the stack ends."""
    first, second = run.database("limit_ledger_a"), run.database("limit_ledger_b")
    for dsn in (first, second):
        await make_ledger(dsn, numbered(run.plan.accounts))
    return await stack.enter_async_context(ledger_limit((first, second), banks.log, run.plan.accounts))


async def with_postgresql(run: Run, measurement: Awaitable[Figure]) -> Figure:
    """A limit's figure, with PostgreSQL's CPU added."""
    server = {"postgresql": run.server.pid}
    before_s = processes.cpu_s(server)
    figure = await measurement
    return figure.with_cpu({name: used_s - before_s[name] for name, used_s in processes.cpu_s(server).items()})


async def measure_transfers(run: Run) -> None:
    """L1, L3, the own ledger and the product, at every concurrency."""
    banks = make_limits(run)
    async with AsyncExitStack() as stack:
        ledger = await own_ledger(run, banks, stack)
        running = await stack.enter_async_context(checked_product(run))
        for _ in run.rounds(ROUNDS):
            run.record(await measure_l1(banks, run.plan.seconds, run.folder))
            for in_flight in IN_FLIGHT:
                await _turn(run, banks, ledger, running, in_flight)
            run.record(await running.measure(UNARY, wanted(run, UNARY_CLIENTS, unary=True)))


async def _turn(run: Run, banks: Banks, ledger: LedgerLimit, running: Product, in_flight: int) -> None:
    """Everything that is measured with so many in flight."""
    seconds = run.plan.seconds
    if in_flight in SHAPES:
        run.record(await with_postgresql(run, measure_l3(banks, seconds, in_flight)))
        run.record(await with_postgresql(run, ledger.measure(seconds, in_flight)))
    run.record(await running.measure(APPLIED, wanted(run, in_flight)))
    run.record(await running.measure(DECIDED, wanted(run, in_flight, decided=True)))
