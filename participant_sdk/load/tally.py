"""What a running load has come to so far."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf

from participant_sdk.client_results import Committed, Ending
from participant_sdk.load.latencies import Latencies
from participant_sdk.load.report import Report
from participant_sdk.load.transfers import Operations

Execute = Callable[[Operations], Awaitable[Ending]]


@dataclass(frozen=True, slots=True)
class Progress:
    """A running load, looked at. Latencies are of all so far after the warm-up, zero before its end."""

    elapsed_s: float
    committed: int
    rolled_back: int
    unknown: int
    not_offered: int
    p50_ms: float
    p99_ms: float


class Tally:
    """Counts endings, and measures those that came between the warm-up and the end. Mutable: it is the hot path."""

    __slots__ = (
        "_began_s",
        "_stopping",
        "committed",
        "cpu_us",
        "latencies",
        "measure_from_s",
        "measured",
        "not_applied",
        "not_offered",
        "rolled_back",
        "unknown",
        "until_s",
    )

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.measured = 0
        self.committed = 0
        self.not_applied = 0
        self.unknown = 0
        self.not_offered = 0
        self.rolled_back: Counter[str] = Counter()
        self.cpu_us = 0.0
        self._began_s = time.monotonic()
        self.measure_from_s = self.until_s = self._began_s
        self._stopping = asyncio.Event()

    @property
    def ended(self) -> int:
        """Transactions that ended, in whichever way."""
        return self.committed + self.unknown + self.rolled_back.total()

    @property
    def seconds(self) -> float:
        """How long it measured, or is to measure."""
        return max(self.until_s - self.measure_from_s, 0.0)

    def begin(self, seconds: float, warm_up_s: float) -> None:
        """Measure for so long, after a warm-up, from now on."""
        self._began_s = time.monotonic()
        self.measure_from_s = self._began_s + warm_up_s
        self.until_s = self.measure_from_s + seconds

    async def await_end(self) -> None:
        """Return when the time is over, or at ``stop``, having taken the CPU that it cost."""
        await self._sleep_until(self.measure_from_s)
        cpu_s, counted = time.process_time(), self.ended
        await self._sleep_until(self.until_s)
        self.cpu_us = (time.process_time() - cpu_s) * 1_000_000 / max(self.ended - counted, 1)

    def stop(self) -> None:
        """End the load now: nothing more begins, and what was measured so far is what there is."""
        self.until_s = min(self.until_s, time.monotonic())
        if self.until_s <= self.measure_from_s:
            # Ended in its warm-up: there is nothing to measure any more.
            self.measure_from_s = inf
        self._stopping.set()

    def count(self, ending: Ending) -> None:
        """Count how a transaction ended."""
        if isinstance(ending, Committed):
            self.committed += 1
            if not ending.applied:
                self.not_applied += 1
        else:
            self.rolled_back[ending.reason] += 1

    def measures(self, moment_s: float) -> bool:
        """Whether the moment lies between the warm-up and the end."""
        return self.measure_from_s <= moment_s < self.until_s

    def progress(self) -> Progress:
        """Look at it. Costs under a millisecond, in which nothing else goes on."""
        p50_ms, p99_ms = self.latencies.percentiles_ms(50, 99)
        return Progress(
            elapsed_s=time.monotonic() - self._began_s,
            committed=self.committed,
            rolled_back=self.rolled_back.total(),
            unknown=self.unknown,
            not_offered=self.not_offered,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
        )

    def report(self, in_flight: int) -> Report:
        """What the load has come to, once it has ended."""
        p50_ms, p90_ms, p99_ms, p999_ms, max_ms = self.latencies.percentiles_ms(50, 90, 99, 99.9, 100)
        return Report(
            in_flight=in_flight,
            seconds=self.seconds,
            per_second=self.measured / self.seconds if self.seconds else 0.0,
            p50_ms=p50_ms,
            p90_ms=p90_ms,
            p99_ms=p99_ms,
            p999_ms=p999_ms,
            max_ms=max_ms,
            cpu_us=self.cpu_us,
            committed=self.committed,
            rolled_back=dict(self.rolled_back),
            unknown=self.unknown,
            not_applied=self.not_applied,
        )

    async def _sleep_until(self, moment_s: float) -> None:
        try:
            async with asyncio.timeout(max(moment_s - time.monotonic(), 0.0)):
                await self._stopping.wait()
        except TimeoutError:
            return
