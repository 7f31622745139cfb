"""What a load is to be: which workload, at which coordinators, closed or open, for how long."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import ceil, isfinite
from typing import Final

from participant_sdk import collector
from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Wait
from participant_sdk.load.closed_loop import ClosedLoop
from participant_sdk.load.empty import Empty
from participant_sdk.load.mixed import ALL, BANK_DEPOSITS, SHIPPED, Mixed, Names
from participant_sdk.load.money import Inflow
from participant_sdk.load.open_loop import IN_FLIGHT_MAX_DEFAULT, OpenLoop
from participant_sdk.load.smallbank import SmallBank
from participant_sdk.load.tally import Execute
from participant_sdk.load.transfers import Operations, SplitTransfers, Transfers
from participant_sdk.participant import OPERATIONS_MAX

CONCURRENCY_DEFAULT: Final = 64
CONCURRENCY_MAX: Final = 100_000
RATE_MAX_PER_S: Final = 100_000.0
SECONDS_MAX: Final = 7 * 24 * 3600.0
ACCOUNTS_MAX: Final = 100_000_000
_RUN: Final = re.compile("[0-9A-Za-z]{0,32}")

# How many bank transfers are told of in advance: as for this rate, where a closed loop does not say its own, and never
# more than the bank, which flushes each, takes in less than a minute.
CLOSED_RATE_PER_S: Final = 1_000.0
TRANSFERS_MAX: Final = 10_000

Workload = Transfers | SplitTransfers | SmallBank | Mixed | Empty


class InvalidOrderError(ValueError):
    """The load cannot be as asked for. ``option`` names what is wrong, as the command line spells it."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{option}: {message}")
        self.option = option


@dataclass(frozen=True, slots=True)
class Ready:
    """A loop that is ready to run, and the money that it moves, where that is followed."""

    loop: ClosedLoop | OpenLoop
    inflow: Inflow | None


@dataclass(frozen=True, slots=True)
class Order:
    """A load as ordered. InvalidOrderError for what cannot be.

    ``rate_per_s`` above zero makes an open loop, and ``in_flight`` its cap; otherwise it is a closed loop of so
    many callers; 0 takes the default. ``accounts``: so many at each participant; SmallBank's are so many
    customers over all, of which ``hot_spot`` are picked nine times of ten, unless it is 0. ``unary``: by
    ``Execute`` calls in place of one stream. ``follow_money`` adds up what comes into the ledgers, for a few
    microseconds a transaction. ``run`` and ``transfers`` are of the mixed workload; see ``Mixed``.
    """

    coordinators: tuple[str, ...]
    workload: str
    participants: tuple[str, ...]
    accounts: int
    seconds: float
    hot_spot: int = 0
    currency: str = "USD"
    rate_per_s: float = 0.0
    in_flight: int = 0
    warm_up_s: float = 1.0
    wait: Wait = Wait.APPLIED
    unary: bool = False
    follow_money: bool = False
    seed: int = 0
    run: str = ""
    transfers: int = 0

    def __post_init__(self) -> None:
        if self.workload not in WORKLOADS:
            raise InvalidOrderError("--workload", f"{self.workload!r} is none; there are {', '.join(WORKLOADS)}")
        if not 1 <= len(self.participants) <= OPERATIONS_MAX or not all(self.participants):
            raise InvalidOrderError("--participants", f"1 to {OPERATIONS_MAX} names, separated by commas")
        if len(set(self.participants)) != len(self.participants):
            raise InvalidOrderError("--participants", "names one of them twice")
        if self.workload == MIXED and len(self.participants) != len(SHIPPED):
            raise InvalidOrderError("--participants", f"{MIXED} is of five: those that are {', '.join(SHIPPED)}")
        _within("--accounts", self.accounts, 2, ACCOUNTS_MAX)
        if self.hot_spot and self.workload != SMALLBANK:
            raise InvalidOrderError("--hot-spot", f"is of the workload {SMALLBANK}")
        if self.hot_spot:
            _within("--hot-spot", self.hot_spot, 2, self.accounts)
        if self.rate_per_s:
            _within("--rate", self.rate_per_s, 0.01, RATE_MAX_PER_S)
        if self.in_flight:
            _within("--concurrency", self.in_flight, 1, CONCURRENCY_MAX)
        _within("--duration", self.seconds, 0.001, SECONDS_MAX)
        _within("--warm-up", self.warm_up_s, 0.0, SECONDS_MAX)
        _within("--transfers", self.transfers, 0, TRANSFERS_MAX)
        if not _RUN.fullmatch(self.run):
            raise InvalidOrderError("--run", "at most 32 ASCII letters and digits")

    def make_workload(self) -> Workload:
        """The workload itself."""
        return WORKLOADS[self.workload](self)

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Ready]:
        """The loop, ready to run, with clients that live as long as the block."""
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(TransactionClient(self.coordinators))
            workload = self.make_workload()
            execute: Execute
            if isinstance(workload, Empty):
                execute = partial(workload.execute_with, client)
            elif self.unary:
                execute = partial(client.execute, wait=self.wait)
            else:
                stream = await stack.enter_async_context(client.stream(in_flight=self.places))
                execute = partial(stream.execute, wait=self.wait)
            inflow = Inflow(execute, self.currency) if self.follow_money else None
            collector.settle()
            yield Ready(self._loop(inflow.execute if inflow else execute, iter(workload)), inflow)

    @property
    def places(self) -> int:
        """How many may be under way at once."""
        return self.in_flight or (IN_FLIGHT_MAX_DEFAULT if self.rate_per_s else CONCURRENCY_DEFAULT)

    @property
    def services(self) -> tuple[str, ...]:
        """Which of the shipped participants each of this load's is."""
        return SHIPPED if self.workload == MIXED else (SHIPPED.bookkeeper,) * len(self.participants)

    @property
    def transfers_wanted(self) -> int:
        """How many bank transfers a mixed load of this length may record."""
        if self.workload != MIXED:
            return 0
        transactions = (self.rate_per_s or CLOSED_RATE_PER_S) * (self.warm_up_s + self.seconds)
        return min(ceil(BANK_DEPOSITS * transactions / ALL), TRANSFERS_MAX)

    def _loop(self, execute: Execute, operations: Iterator[Operations]) -> ClosedLoop | OpenLoop:
        if self.rate_per_s:
            return OpenLoop(execute, operations, self.rate_per_s, self.places, self.seed)
        return ClosedLoop(execute, operations, self.places)


def _within(option: str, number: float, low: float, high: float) -> None:
    if not isfinite(number) or not low <= number <= high:
        raise InvalidOrderError(option, f"must be {low:g} to {high:,.0f}, not {number:g}")


def _transfer(order: Order) -> Workload:
    match order.participants:
        case (debited,):
            return Transfers(debited, debited, order.accounts, order.currency, order.seed)
        case (debited, credited):
            return Transfers(debited, credited, order.accounts, order.currency, order.seed)
        case _:
            return SplitTransfers(order.participants, order.accounts, order.currency, order.seed)


def _smallbank(order: Order) -> Workload:
    return SmallBank(order.participants, order.accounts, order.hot_spot, order.currency, order.seed)


def _mixed(order: Order) -> Workload:
    names = Names(*order.participants)
    return Mixed(names, order.accounts, order.transfers, order.currency, order.seed, order.run)


def new_run() -> str:
    """A name that no run has had."""
    return f"{time.time_ns():x}"


def participants_of(workload: str) -> tuple[str, ...]:
    """The participants of a load that names none."""
    return SHIPPED if workload == MIXED else (SHIPPED.bookkeeper,)


TRANSFER: Final = "transfer"
MIXED: Final = "mixed"
SMALLBANK: Final = "smallbank"
EMPTY: Final = "empty"
WORKLOADS: Final[Mapping[str, Callable[[Order], Workload]]] = {
    TRANSFER: _transfer,
    SMALLBANK: _smallbank,
    MIXED: _mixed,
    EMPTY: lambda _: Empty(),
}
