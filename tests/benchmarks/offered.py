"""Latency against offered load: an open loop at shares of the peak, and beside a participant that is slow."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from participant_sdk.faults import Way
from tests.benchmarks.figures import Figure
from tests.benchmarks.loading import Load
from tests.benchmarks.product import CREDITED, DEBITED, Product, checked_product
from tests.benchmarks.run import Run
from tests.benchmarks.targets import APPLIED, SLOWED, UNSLOWED
from tests.benchmarks.transfers import wanted

PEAK_IN_FLIGHT: Final = 512
SHARES_PERCENT: Final = (10, 30, 50, 70, 80, 90, 100, 110)
# Past the peak a queue grows for as long as the load lasts; it is bounded here.
OPEN_IN_FLIGHT_MAX: Final = 8_192
ROUNDS: Final = 3
SLOW: Final = "slow"
SLOWED_BY_S: Final = 0.02
# Of the peak: well below it, so that what is seen is the participant and not the machine.
WITHOUT_PERCENT: Final = 30
WITH_PERCENT: Final = 10
# A ninety-ninth percentile at low load wants more time than a rate.
SLOWED_TIMES_AS_LONG: Final = 2


async def measure_offered(run: Run) -> None:
    """The peak by a closed loop, then latency from the intended start at 10 to 110 % of it."""
    async with checked_product(run) as running:
        peak = await running.measure(APPLIED, wanted(run, PEAK_IN_FLIGHT))
        run.record(peak)
        for percent in SHARES_PERCENT:
            load = _open(run, CREDITED, peak.per_second * percent / 100)
            run.record(await running.measure(f"offered {percent} % of the peak", load))


async def measure_slowed(run: Run) -> None:
    """The latency of transactions without a third participant that takes part in others, prompt and slowed."""
    async with checked_product(run, (DEBITED, CREDITED, SLOW), proxied=(SLOW,)) as running:
        peak = await running.measure(APPLIED, wanted(run, PEAK_IN_FLIGHT))
        run.record(peak)
        turns = [
            (UNSLOWED, "transfers with it, prompt", 0.0),
            (SLOWED, "transfers with it, slowed by 20 ms", SLOWED_BY_S),
        ]
        for _ in run.rounds(ROUNDS):
            # Each goes first in turn, as what came before may still be felt.
            turns.reverse()
            for without, with_, delay_s in turns:
                running.proxies[SLOW].slow(Way.UP, delay_s)
                for figure in await _both(run, running, peak.per_second, (without, with_)):
                    run.record(figure)
        running.proxies[SLOW].restore()


async def _both(run: Run, running: Product, peak: float, subjects: tuple[str, str]) -> tuple[Figure, Figure]:
    """Two loads at once: without the third participant, and with it."""
    loads = (
        _open(run, CREDITED, peak * WITHOUT_PERCENT / 100, SLOWED_TIMES_AS_LONG),
        _open(run, SLOW, peak * WITH_PERCENT / 100, SLOWED_TIMES_AS_LONG),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(running.measure(subject, load)) for subject, load in zip(subjects, loads, strict=True)
        ]
    # Each counts what the processes used for both.
    first, second = (replace(task.result(), cpu_us={}) for task in tasks)
    return first, second


def _open(run: Run, credited: str, per_second: float, times_as_long: int = 1) -> Load:
    seconds = run.plan.seconds * times_as_long
    names = (DEBITED, credited)
    return Load(names, run.plan.accounts, OPEN_IN_FLIGHT_MAX, seconds, per_second=round(per_second, 1))
