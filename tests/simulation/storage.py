"""Disks and the log's server under faults: what a flush waits for, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

from coordinator.log.decision_log import LogUnavailableError, LogUncertainError
from coordinator.log.memory import Moment, Statement
from tests.simulation.faults import Fault, Mix, Tally
from tests.simulation.loop import Process, SimulatedLoop, current_process
from tests.simulation.trace import Trace

SLOW_FLUSHES_S: Final = (0.3, 2.0)
TRAVEL_S: Final = (0.000_05, 0.001)
LATE_MAX_S: Final = 3.0
READS: Final = (
    "read",
    "read_requests",
    "list_decisions",
    "unfinished",
    "standing",
    "read_sequences",
    "read_applied",
    "commits_above",
    "read_heuristics",
    "list_heuristics",
)


def _nobody(_statement: str) -> None:
    """Tell nobody."""


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
        delay_s = self._flush_s(Fault.STORE_SLOW)
        self._maybe_kill(delay_s)
        await asyncio.sleep(delay_s)
        if self._strikes(Fault.STORE_FAILED):
            raise StoreFailedError("the local transaction failed")

    def _flush_s(self, slow: Fault) -> float:
        if self._strikes(slow):
            return self._rng.choice(SLOW_FLUSHES_S)
        return self._mix.flush_s * self._rng.uniform(0.5, 1.5)

    def _maybe_kill(self, within_s: float) -> None:
        if self._strikes(Fault.CRASH_IN_FLUSH):
            process, at_s = current_process(self._loop), self._rng.uniform(0, within_s)
            self._loop.call_later(at_s, self._kill, process, context=self._loop.world_context)

    def _strikes(self, fault: Fault) -> bool:
        chance = 0.0 if self._healed else self._mix.chance(fault)
        if chance and self._rng.random() < chance:
            self._tally[fault] += 1
            self._trace.note(f"fault {fault.name} {self._name}")
            return True
        return False


class LogServer(Disk):
    """The server under the decision log: statements travel to it, and it does them whatever becomes of their sender.

    ``is_out`` is true while the log cannot be reached; ``on_done`` is told the name of each statement done.
    """

    is_out = False
    on_done: Callable[[str], None] = staticmethod(_nobody)

    async def gate(self, moment: Moment, statement: Statement[object]) -> None:
        """What each statement of a ``MemoryLog`` passes."""
        await asyncio.sleep(self._rng.uniform(*TRAVEL_S))
        if moment is Moment.BEFORE:
            await self._serve(statement)
        elif self._strikes(Fault.LOG_ANSWER_LOST):
            raise _unknown(statement)

    async def _serve(self, statement: Statement[object]) -> None:
        if self.is_out or self._strikes(Fault.LOG_FAILED):
            raise LogUnavailableError("the simulated log cannot be reached")
        if statement.name not in READS and self._strikes(Fault.LOG_LATE):
            self._later(self._rng.uniform(0, LATE_MAX_S), statement, self._loop.create_future())
            raise _unknown(statement)
        delay_s = self._flush_s(Fault.LOG_SLOW)
        if statement.name == "append":
            self._maybe_kill(delay_s)
        done: asyncio.Future[None] = self._loop.create_future()
        self._later(delay_s, statement, done)
        await done

    def _later(self, delay_s: float, statement: Statement[object], done: asyncio.Future[None]) -> None:
        """Do the statement at the server, where no crash of its sender reaches."""

        def serve() -> None:
            answer = statement.apply()
            self._trace.note(f"log {statement.name}", lambda: f"{answer}")
            self.on_done(statement.name)
            if not done.done():
                done.set_result(None)

        self._loop.call_later(delay_s, serve, context=self._loop.world_context)


def _unknown(statement: Statement[object]) -> Exception:
    """The error of a statement whose answer is lost; a read that is lost has simply failed."""
    if statement.name in READS:
        return LogUnavailableError("the answer was lost")
    return LogUncertainError("the connection was lost")
