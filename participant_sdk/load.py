"""The load generator: transactions in a closed loop, and what came of them.

So many are kept in flight, each followed by the next as soon as it has ended. That shows the
peak; latency here is what a caller in such a crowd sees. It is a program too, so that it can
have a process of its own: ``python -m participant_sdk.load --help``.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Final

import uvloop
from hdrh.histogram import HdrHistogram  # The library has no types; this module is its only user here.

from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import OutcomeUnknown
from participant_sdk.client_results import Committed, Ending
from participant_sdk.operations import OperationLike

LATENCY_MAX_US: Final = 10 * 60 * 1_000_000
SIGNIFICANT_DIGITS: Final = 3

Operations = Sequence[OperationLike]
Execute = Callable[[Operations], Awaitable[Ending]]


@dataclass(frozen=True, slots=True)
class Transfers:
    """One unit from an account at one participant to an account at another, both picked uniformly.

    Accounts are of users "0" to ``accounts`` - 1.
    """

    debited: str
    credited: str
    accounts: int
    currency: str = "USD"
    seed: int = 0

    def __iter__(self) -> Iterator[Operations]:
        picked = random.Random(self.seed).randrange  # noqa: S311  Load, not secrets.
        end = f'","currency":"{self.currency}","amount":"1"}}'
        while True:
            yield (
                (self.debited, "debit_account", f'{{"user_id":"{picked(self.accounts)}{end}'),
                (self.credited, "credit_account", f'{{"user_id":"{picked(self.accounts)}{end}'),
            )


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a load. Rates and latencies are of the time after the warm-up; counts are of all.

    ``unknown`` transactions may have committed or not. ``cpu_us`` is this process's, for one transaction.
    """

    in_flight: int
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_us: float
    committed: int
    rolled_back: dict[str, int]
    unknown: int
    not_applied: int


class ClosedLoop:
    """Keeps ``in_flight`` transactions of a workload under way for ``seconds``, after ``warm_up_s``."""

    def __init__(self, execute: Execute, workload: Iterator[Operations], in_flight: int) -> None:
        self._execute = execute
        self._workload = workload
        self._in_flight = in_flight
        # HdrHistogram's constant memory suits a soak of any length.
        self._latencies: Any = HdrHistogram(1, LATENCY_MAX_US, SIGNIFICANT_DIGITS)
        self._measured = 0
        self._committed = 0
        self._not_applied = 0
        self._unknown = 0
        self._rolled_back: Counter[str] = Counter()
        self._measure_from_s = 0.0
        self._until_s = 0.0

    async def run(self, seconds: float, warm_up_s: float) -> Report:
        """Run the load to its end; transactions in flight then are awaited and counted."""
        self._measure_from_s = time.monotonic() + warm_up_s
        self._until_s = self._measure_from_s + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(self._in_flight):
                group.create_task(self._client())
            await asyncio.sleep(warm_up_s)
            cpu_s, counted = time.process_time(), self._ended
            await asyncio.sleep(max(self._until_s - time.monotonic(), 0.0))
            cpu_s, counted = time.process_time() - cpu_s, self._ended - counted
        return self._report(seconds, cpu_s / max(counted, 1))

    @property
    def _ended(self) -> int:
        return self._committed + self._unknown + self._rolled_back.total()

    async def _client(self) -> None:
        """One caller: the next transaction begins when the last has ended."""
        while (began_s := time.monotonic()) < self._until_s:
            try:
                self._count(await self._execute(next(self._workload)))
            except OutcomeUnknown:
                self._unknown += 1
                continue
            ended_s = time.monotonic()
            if self._measure_from_s <= ended_s < self._until_s:
                self._measured += 1
                self._latencies.record_value(int((ended_s - began_s) * 1_000_000))

    def _count(self, ending: Ending) -> None:
        if isinstance(ending, Committed):
            self._committed += 1
            self._not_applied += not ending.applied
        else:
            self._rolled_back[ending.reason] += 1

    def _report(self, seconds: float, cpu_s: float) -> Report:
        return Report(
            in_flight=self._in_flight,
            seconds=seconds,
            per_second=self._measured / seconds,
            p50_ms=self._latencies.get_value_at_percentile(50) / 1000,
            p99_ms=self._latencies.get_value_at_percentile(99) / 1000,
            max_ms=self._latencies.get_max_value() / 1000,
            cpu_us=cpu_s * 1_000_000,
            committed=self._committed,
            rolled_back=dict(self._rolled_back),
            unknown=self._unknown,
            not_applied=self._not_applied,
        )


async def run_transfers(
    coordinators: Sequence[str], transfers: Transfers, *, in_flight: int, seconds: float, warm_up_s: float, unary: bool
) -> Report:
    """Load coordinators with transfers: over one ExecuteStream, or by unary calls."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(TransactionClient(coordinators))
        if unary:
            execute: Execute = client.execute
        else:
            execute = (await stack.enter_async_context(client.stream(in_flight=in_flight))).execute
        gc.collect()
        gc.freeze()
        return await ClosedLoop(execute, iter(transfers), in_flight).run(seconds, warm_up_s)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m participant_sdk.load", description="Load coordinators.")
    parser.add_argument("--coordinators", required=True, help="host:port of one or more, separated by commas")
    parser.add_argument("--debited", required=True, help="the participant whose accounts are debited")
    parser.add_argument("--credited", required=True, help="the participant whose accounts are credited")
    parser.add_argument("--accounts", type=int, required=True, help='accounts of users "0" to this, less one, at each')
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds")
    parser.add_argument("--unary", action="store_true", help="Execute calls instead of one ExecuteStream")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Run one load and write its report to standard output, as JSON."""
    arguments = _arguments()
    transfers = Transfers(arguments.debited, arguments.credited, arguments.accounts, seed=arguments.seed)
    report = uvloop.run(
        run_transfers(
            arguments.coordinators.split(","),
            transfers,
            in_flight=arguments.in_flight,
            seconds=arguments.seconds,
            warm_up_s=arguments.warm_up,
            unary=arguments.unary,
        )
    )
    sys.stdout.write(json.dumps(asdict(report)) + "\n")


if __name__ == "__main__":
    main()
