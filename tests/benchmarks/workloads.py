"""What else the product carries: empty transactions, SmallBank, many participants, XA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from participant_sdk.load import SmallBank
from tests.benchmarks.ledgers import Kind
from tests.benchmarks.limits import measure_l2
from tests.benchmarks.loading import Load
from tests.benchmarks.product import CREDITED, DEBITED, checked_product
from tests.benchmarks.run import Run
from tests.benchmarks.targets import SPREAD, XA
from tests.benchmarks.transfers import make_limits

ROUNDS: Final = 2
# Of those that are compared with each other.
COMPARED_ROUNDS: Final = 3
EMPTY_IN_FLIGHT: Final = (1, 64)
SMALLBANK_IN_FLIGHT: Final = (64, 512)
HOT_CUSTOMERS: Final = 100
PARTICIPANTS: Final = (2, 4, 8)
SPREAD_IN_FLIGHT: Final = 256
L2_CLIENTS: Final = (16, 32, 64)
XA_IN_FLIGHT: Final = (1, 16, 64, 128, 256)


async def measure_xa(run: Run) -> None:
    """L2, and the product over two banks on XA, each at several concurrencies."""
    banks = make_limits(run)
    async with checked_product(run, ("xa-payer", "xa-payee"), kind=Kind.XA) as running:
        for _ in run.rounds(COMPARED_ROUNDS):
            for clients in L2_CLIENTS:
                run.record(await measure_l2(banks, run.plan.seconds, clients))
            for in_flight in XA_IN_FLIGHT:
                load = Load(("xa-payer", "xa-payee"), run.plan.accounts, in_flight, run.plan.seconds)
                run.record(await running.measure(XA, load))


async def measure_empty(run: Run) -> None:
    """Transactions that are begun and committed, without any participant."""
    async with checked_product(run, users=_users(2)) as running:
        for _ in run.rounds(ROUNDS):
            for in_flight in EMPTY_IN_FLIGHT:
                load = Load((DEBITED,), 2, in_flight, run.plan.seconds, workload="empty", unary=True)
                run.record(await running.measure("empty", load))


async def measure_smallbank(run: Run) -> None:
    """SmallBank over two databases, its customers picked uniformly and from a hot spot."""
    customers = run.plan.accounts // 2
    users: dict[str, list[str]] = {DEBITED: ["0"], CREDITED: ["0"]}
    for name, user in SmallBank((DEBITED, CREDITED), customers).holders():
        users[name].append(user)
    async with checked_product(run, users=users, closed=False) as running:
        for _ in run.rounds(ROUNDS):
            for in_flight in SMALLBANK_IN_FLIGHT:
                for subject, hot_spot in (("SmallBank, uniform", 0), ("SmallBank, hot spot", HOT_CUSTOMERS)):
                    load = Load(
                        (DEBITED, CREDITED),
                        customers,
                        in_flight,
                        run.plan.seconds,
                        workload="smallbank",
                        hot_spot=hot_spot,
                        may_refuse=True,
                    )
                    run.record(await running.measure(subject, load))


async def measure_participants(run: Run) -> None:
    """Transfers from one participant to several others, in one system of eight."""
    accounts = min(run.plan.accounts, 20_000)
    names = [f"p{number}" for number in range(1, max(PARTICIPANTS) + 1)]
    async with checked_product(run, names, users=_users(accounts, names)) as running:
        for _ in run.rounds(COMPARED_ROUNDS):
            for several in PARTICIPANTS:
                load = Load(tuple(names[:several]), accounts, SPREAD_IN_FLIGHT, run.plan.seconds)
                run.record(await running.measure(SPREAD.format(several), load))


def _users(accounts: int, names: Sequence[str] = (DEBITED, CREDITED)) -> dict[str, list[str]]:
    return {name: [str(number) for number in range(accounts)] for name in names}
