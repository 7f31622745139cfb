"""An open loop: transactions begin when they are due, however long the others take.

They are due at random moments (Poisson), at a given rate, as from many callers who do not know of
each other. Latency counts from the moment at which one was due, so that a stall is seen by all who
would have come in it, not by those alone who were there ("coordinated omission", Gil Tene).

The generator shares a machine with what it measures, and can itself be late. So it measures that
too, and says when its figures are not to be trusted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from participant_sdk.client_errors import OutcomeUnknown
from participant_sdk.load.latencies import Latencies
from participant_sdk.load.report import OpenReport
from participant_sdk.load.tally import Execute, Progress, Tally
from participant_sdk.load.transfers import Operations

IN_FLIGHT_MAX_DEFAULT: Final = 10_000
# Timers are a millisecond coarse. What is due within half of one begins now, and is measured from now.
TICK_S: Final = 0.001
EARLY_S: Final = TICK_S / 2
# How soon ``stop`` is seen where transactions are rare.
LOOK_S: Final = 0.1
# The generator's lag, p99, up to which its latencies are taken for true: so much, or so much of the p99 latency.
LAG_MAX_MS: Final = 2.0
LAG_MAX_SHARE: Final = 0.1


class OpenLoop:
    """Begins transactions of a workload at a rate, at most ``in_flight_max`` at once. Runs once.

    What is due while so many are under way is counted as not offered, and makes the report untrustworthy.
    """

    def __init__(
        self,
        execute: Execute,
        workload: Iterator[Operations],
        rate_per_s: float,
        in_flight_max: int = IN_FLIGHT_MAX_DEFAULT,
        seed: int = 0,
    ) -> None:
        self._execute = execute
        self._workload = workload
        self._rate_per_s = rate_per_s
        self._in_flight_max = in_flight_max
        self._random = random.Random(seed)  # noqa: S311  Load, not secrets.
        self._tally = Tally()
        self._lags = Latencies()
        self._in_flight = 0
        self._offered = 0

    async def run(self, seconds: float, warm_up_s: float) -> OpenReport:
        """Offer the load for ``seconds`` after ``warm_up_s``; what is in flight then is awaited and counted.

        Errors as for ``ClosedLoop.run``.
        """
        self._tally.begin(seconds, warm_up_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._arrivals(group))
            await self._tally.await_end()
        return self._report()

    def stop(self) -> None:
        """End the load before its time."""
        self._tally.stop()

    def progress(self) -> Progress:
        """What it has come to so far."""
        return self._tally.progress()

    async def _arrivals(self, group: asyncio.TaskGroup) -> None:
        """Begin each transaction when it is due."""
        tally = self._tally
        gap_s, rate_per_s = self._random.expovariate, self._rate_per_s
        due_s = time.monotonic() + gap_s(rate_per_s)
        while (now_s := time.monotonic()) < tally.until_s:
            while due_s <= now_s + EARLY_S and due_s < tally.until_s:
                self._arrive(min(due_s, now_s), group)
                due_s += gap_s(rate_per_s)
            await asyncio.sleep(min(max(due_s - now_s, TICK_S), LOOK_S, tally.until_s - now_s))
        while due_s < tally.until_s:
            self._arrive(due_s, group)
            due_s += gap_s(rate_per_s)

    def _arrive(self, due_s: float, group: asyncio.TaskGroup) -> None:
        if self._in_flight >= self._in_flight_max:
            self._tally.not_offered += 1
            return
        self._in_flight += 1
        group.create_task(self._transaction(due_s, next(self._workload)))

    async def _transaction(self, due_s: float, operations: Operations) -> None:
        tally = self._tally
        measured = tally.measures(due_s)
        if measured:
            self._offered += 1
            self._lags.record(time.monotonic() - due_s)
        try:
            ending = await self._execute(operations)
        except OutcomeUnknown:
            tally.unknown += 1
            return
        finally:
            self._in_flight -= 1
        tally.count(ending)
        ended_s = time.monotonic()
        tally.measured += tally.measures(ended_s)
        if measured:
            # However late it ended: what the end of the load cut off would be the slowest.
            tally.latencies.record(ended_s - due_s)

    def _report(self) -> OpenReport:
        tally = self._tally
        lag_p50_ms, lag_p99_ms, lag_max_ms = self._lags.percentiles_ms(50, 99, 100)
        report = tally.report(self._in_flight_max)
        distrust = _distrust(tally.not_offered, self._in_flight_max, lag_p99_ms, report.p99_ms)
        return OpenReport(
            **asdict(report),
            asked_per_second=self._rate_per_s,
            offered_per_second=self._offered / report.seconds if report.seconds else 0.0,
            not_offered=tally.not_offered,
            lag_p50_ms=lag_p50_ms,
            lag_p99_ms=lag_p99_ms,
            lag_max_ms=lag_max_ms,
            trustworthy=not distrust,
            distrust=distrust,
        )


def _distrust(not_offered: int, in_flight_max: int, lag_p99_ms: float, p99_ms: float) -> str:
    """Why the latencies are not true; empty where they are."""
    if not_offered:
        return f"{not_offered} transactions were due while {in_flight_max} were under way, and were not offered"
    bound_ms = max(LAG_MAX_MS, LAG_MAX_SHARE * p99_ms)
    if lag_p99_ms > bound_ms:
        return f"the generator itself was late: {lag_p99_ms:.1f} ms (p99), of {bound_ms:.1f} ms allowed"
    return ""
