"""Disks under faults: what a flush waits for, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

from tests.simulation.faults import Fault, Mix, Tally
from tests.simulation.loop import Process, SimulatedLoop, current_process
from tests.simulation.trace import Trace

SLOW_FLUSHES_S: Final = (0.3, 2.0)


class StoreFailedError(Exception):
    """A local transaction failed, as a database fails one: nothing of it is durable now."""


class Disk:
    """How long a flush takes and whether it fails, by the seed's mix; ``heal`` ends all faults."""

    def __init__(
        self, name: str, loop: SimulatedLoop, mix: Mix, trace: Trace, tally: Tally, kill: Callable[[Process], None]
    ) -> None:
        self._name = name
        self._loop = loop
        self._mix = mix
        self._trace = trace
        self._tally = tally
        self._rng = Random(f"{mix.seed}:disk:{name}")
        self._healed = False
        # The world kills whom it is given.
        self._kill = kill

    def heal(self) -> None:
        """Be quick and sound from now on."""
        self._healed = True

    async def store_gate(self) -> None:
        """The gate of a participant's store: awaited before anything of a flush is durable."""
        delay_s = self.flush_s(Fault.STORE_SLOW)
        self.maybe_kill(delay_s)
        await asyncio.sleep(delay_s)
        if self.strikes(Fault.STORE_FAILED):
            raise StoreFailedError("the local transaction failed")

    def flush_s(self, slow: Fault) -> float:
        """Draw how long one flush takes."""
        if self.strikes(slow):
            return self._rng.choice(SLOW_FLUSHES_S)
        return self._mix.flush_s * self._rng.uniform(0.5, 1.5)

    def maybe_kill(self, within_s: float) -> None:
        """Have the process that flushes killed before it is done, if that strikes."""
        if self.strikes(Fault.CRASH_IN_FLUSH):
            process, at_s = current_process(self._loop), self._rng.uniform(0, within_s)
            self._loop.call_later(at_s, self._kill, process, context=self._loop.world_context)

    def strikes(self, fault: Fault) -> bool:
        """Draw whether this fault happens now, and count it."""
        chance = 0.0 if self._healed else self._mix.chance(fault)
        if chance and self._rng.random() < chance:
            self._tally[fault] += 1
            self._trace.note(f"fault {fault.name} {self._name}")
            return True
        return False
