"""A long load, with the memory and the descriptors of every process over time: flat, or not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import psutil

from tests.benchmarks.loading import WARM_UP_S, Load
from tests.benchmarks.product import CREDITED, DEBITED, checked_product
from tests.benchmarks.run import Run
from tests.benchmarks.targets import SOAK

IN_FLIGHT: Final = 64
LOOKS: Final = 120
# PostgreSQL fills its shared buffers, which every one of its processes counts as its own.
NOT_JUDGED: Final = "postgresql"
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """What one process held at one moment, its children with it."""

    memory_bytes: int
    descriptors: int


async def measure_soak(run: Run) -> None:
    """Load it for the soak's time, and look at every process again and again."""
    seconds = run.plan.soak_s
    async with checked_product(run) as running:
        load = Load((DEBITED, CREDITED), run.plan.accounts, IN_FLIGHT, seconds)
        async with asyncio.TaskGroup() as group:
            measuring = group.create_task(running.measure(SOAK, load))
            # The generator's start and its warm-up come first.
            await asyncio.sleep(2 * WARM_UP_S)
            samples: dict[str, list[Sample]] = {name: [] for name in running.pids}
            for _ in range(LOOKS):
                for name, pid in running.pids.items():
                    samples[name].append(_sample(psutil.Process(pid)))
                await asyncio.sleep(seconds / (LOOKS + 1))
    figure = measuring.result()
    run.record(replace(figure, values=values(samples)))
    run.series = {
        name: [[sample.memory_bytes, sample.descriptors] for sample in several] for name, several in samples.items()
    }


def values(samples: Mapping[str, Sequence[Sample]]) -> dict[str, float]:
    """How much each process grew from the second fifth of the soak to its last, and the worst of our own."""
    found: dict[str, float] = {}
    for name, several in samples.items():
        early, late = fifth(several, 1), fifth(several, 4)
        found[f"{name} MiB"] = median(sample.memory_bytes for sample in late) / _MIB
        found[f"{name} growth"] = _growth([sample.memory_bytes for sample in early], [s.memory_bytes for s in late])
        found[f"{name} descriptors growth"] = _growth(
            [sample.descriptors for sample in early], [sample.descriptors for sample in late]
        )
    growths = [value for name, value in found.items() if name.endswith("growth") and not name.startswith(NOT_JUDGED)]
    return {"growth": max(growths, default=0.0), **found}


def fifth(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    """The samples of one fifth of the time, from 0."""
    size = max(len(samples) // 5, 1)
    return samples[number * size : (number + 1) * size] or samples[-1:]


def _growth(early: Sequence[int], late: Sequence[int]) -> float:
    before = median(early)
    return (median(late) - before) / before if before else 0.0


def _sample(process: psutil.Process) -> Sample:
    memory_bytes = descriptors = 0
    for member in (process, *process.children(recursive=True)):
        try:
            memory_bytes += member.memory_info().rss
            descriptors += member.num_fds()
        except psutil.NoSuchProcess:
            continue
    return Sample(memory_bytes, descriptors)
