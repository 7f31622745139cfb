"""Simulated hosts: each has one process at a time, which is started, killed, and started again.

What is inside a process is the product's own code; what is here stands in for the machine, the
supervisor that restarts it, and the doors.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, NamedTuple, cast

from coordinator.log.ended import FencedError, LogTailLostError, SequenceBrokenError
from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Participant
from tests.simulation.clocks import SimulatedClock
from tests.simulation.faults import Fault, Mix, Tally
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Network
from tests.simulation.oracle import Oracle
from tests.simulation.trace import Trace

SKEW_MAX_MS: Final = 20_000
RESTART_BY_ITSELF_S: Final = 0.2


class Served(NamedTuple):
    """What a participant's process answers single calls with."""

    resource: Participant
    logs: KnownLogs


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What everything in one run shares. ``served`` is each participant's, by host, as its process made it."""

    mix: Mix
    loop: SimulatedLoop
    network: Network
    oracle: Oracle
    trace: Trace
    tally: Tally
    served: dict[str, Served] = field(default_factory=dict[str, Served])


class Host(ABC):
    """One machine. ``process`` is None while nothing runs on it."""

    crash_fault: Fault
    pause_fault: Fault

    def __init__(self, name: str, around: Surroundings) -> None:
        self.name = name
        self.process: Process | None = None
        self.lives = 0
        self.is_retired = False
        self.was_told_to_stop = False
        self._around = around

    @abstractmethod
    async def main(self, process: Process, clock: SimulatedClock, rng: Random) -> None:
        """Be the process; return or raise only if it ends by itself."""

    @abstractmethod
    def lose(self) -> None:
        """Lose what a kill loses."""

    def start(self) -> None:
        """Start the process, if none runs."""
        if self.process is not None or self.is_retired:
            return
        around = self._around
        self.lives += 1
        rng = Random(f"{around.mix.seed}:{self.name}:{self.lives}")
        self.process = process = around.loop.spawn(f"{self.name}.{self.lives}")
        around.trace.note(f"start {process.name}")
        task = around.loop.start(process, self.main(process, self._clock(rng), rng))
        process.keep.append(task)
        task.add_done_callback(partial(self._ended, process), context=around.loop.world_context)

    def start_later(self, delay_s: float) -> None:
        """Start the process in a while, if none runs then."""
        self._around.loop.call_later(delay_s, self.start, context=self._around.loop.world_context)

    def kill(self) -> None:
        """Kill the process with -9, if one runs."""
        process, self.process = self.process, None
        if process is not None:
            self._around.trace.note(f"kill {process.name}")
            self._around.loop.crash(process)
            self._around.network.process_died(process)
            self.lose()

    def retire(self) -> None:
        """Start no more: the run is over."""
        self.is_retired = True

    def _clock(self, rng: Random) -> SimulatedClock:
        skew_ms = 0
        if rng.random() < self._around.mix.chance(Fault.CLOCK_SKEW):
            skew_ms = rng.randint(-SKEW_MAX_MS, SKEW_MAX_MS)
            self._around.tally[Fault.CLOCK_SKEW] += 1
        return SimulatedClock(self._around.loop, skew_ms=skew_ms, offset_s=rng.uniform(0, 1000))

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        """Start again what ended by itself, unless it was killed in the step in which it ended."""
        if self.is_retired or self.process is not process:
            return
        error = None if task.cancelled() else task.exception()
        self._around.trace.note(f"ended {self.name} {error!r:.300}")
        for leaf in _leaves(error):
            if not self._may_end(leaf):
                self._around.oracle.violated(f"{self.name} ended by itself: {leaf!r}")
        self.kill()
        self.start_later(RESTART_BY_ITSELF_S)

    def _may_end(self, why: BaseException | None) -> bool:
        """A process may end that was told to, or was fenced, or found that the log lost what it had written."""
        if why is None:
            return self.was_told_to_stop
        losses = self._around.oracle.losses
        if isinstance(why, LogTailLostError):
            return losses.log_tails > 0
        if isinstance(why, SequenceBrokenError):
            # Another process writes under the same number, and each sees that it is not alone.
            return any(count > 1 for count in losses.drawn.values())
        return isinstance(why, FencedError)


def _leaves(error: BaseException | None) -> Iterator[BaseException | None]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error
