"""The server under the decision log: statements travel to it, and it does them whatever becomes of their sender.

It fails over and is restored, too. With a synchronous standby a write is answered once the standby has
it; what was not answered by then may be gone with the old server, though others have read it. A copy
that is older loses what was confirmed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from coordinator.log.decision_log import LogUnavailableError, LogUncertainError
from coordinator.log.memory import Moment, Statement
from coordinator.log.memory_store import MemoryLogStore
from coordinator.log.memory_tables import Tables
from tests.simulation.clocks import SimulatedClock
from tests.simulation.faults import Fault, Mix, Sight, Tally
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.machines.copying import copy_tables
from tests.simulation.storage import Disk
from tests.simulation.trace import Trace

TRAVEL_S: Final = (0.000_05, 0.001)
LATE_MAX_S: Final = 3.0
COPY_EVERY_S: Final = 0.5
COPIES_MAX: Final = 12
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
    "workflow_read",
    "workflow_list",
)


def _nobody(_statements: Sequence[str]) -> None:
    """Tell nobody."""


class LogServer(Disk):
    """``is_out`` is true while the log cannot be reached.

    ``on_done`` is told the names of statements as they become durable: one, or all that the standby caught up with.
    """

    is_out = False
    on_done: Callable[[Sequence[str]], None] = staticmethod(_nobody)

    def __init__(
        self,
        store: MemoryLogStore,
        clock: SimulatedClock,
        loop: SimulatedLoop,
        mix: Mix,
        trace: Trace,
        tally: Tally,
        kill: Callable[[Process], None],
    ) -> None:
        super().__init__("log", loop, mix, trace, tally, kill)
        self.store = store
        self.clock = clock
        self._standby: Tables | None = None
        # The statements that the standby lags behind with.
        self._lagging: list[str] = []
        self._over: asyncio.Future[None] = loop.create_future()
        self._copies: deque[Tables] = deque(maxlen=COPIES_MAX)

    @property
    def durable(self) -> Tables:
        """What is left if the server goes now: the standby's rows, while it lags behind."""
        return self.store.tables if self._standby is None else self._standby

    async def gate(self, moment: Moment, statement: Statement[object]) -> None:
        """What each statement of a ``MemoryLog`` passes."""
        if moment is Moment.BEFORE:
            await self._serve(statement)
            return
        await asyncio.sleep(self._rng.uniform(*TRAVEL_S))
        if self._standby is not None and statement.name not in READS:
            # The standby does not answer, so neither does this server.
            await asyncio.shield(self._over)
        if self.strikes(Fault.LOG_ANSWER_LOST):
            raise _unknown(statement)

    async def _serve(self, statement: Statement[object]) -> None:
        if self.is_out or self.strikes(Fault.LOG_FAILED):
            await asyncio.sleep(self._rng.uniform(*TRAVEL_S))
            raise LogUnavailableError("the simulated log cannot be reached")
        if statement.name not in READS and self.strikes(Fault.LOG_LATE):
            self._later(self._rng.uniform(0, LATE_MAX_S), statement, None)
            await asyncio.sleep(self._rng.uniform(*TRAVEL_S))
            raise _unknown(statement)
        delay_s = self._rng.uniform(*TRAVEL_S) + self.flush_s(Fault.LOG_SLOW)
        if statement.name == "append":
            self.maybe_kill(delay_s)
        done: asyncio.Future[None] = self._loop.create_future()
        self._later(delay_s, statement, done)
        await done

    def _later(self, delay_s: float, statement: Statement[object], done: asyncio.Future[None] | None) -> None:
        """Do the statement at the server, where no crash of its sender reaches."""

        def serve() -> None:
            try:
                answer = statement.apply()
            except Exception as error:  # noqa: BLE001 - whatever the statement raises is its sender's to judge
                self._trace.note(f"log {statement.name} refused", partial(str, error))
                if done is not None and not done.done():
                    done.set_exception(error)
                return
            self._trace.note(f"log {statement.name}", lambda: f"{answer}")
            if self._standby is None:
                self.on_done((statement.name,))
            else:
                self._lagging.append(statement.name)
            if done is not None and not done.done():
                done.set_result(None)

        self._loop.call_later(delay_s, serve, context=self._loop.world_context)

    # -- Failing over, and being restored

    async def keep_copies(self) -> None:
        """Take a copy every half a second, for a restore to go back to, until cancelled."""
        while True:
            self._copies.append(copy_tables(self.durable))
            await asyncio.sleep(COPY_EVERY_S)

    async def fail_over(self, lag_s: float, *, is_promoted: bool) -> None:
        """Let the synchronous standby lag for a while, then be promoted, or catch up; cancelled, it catches up."""
        if self._standby is not None:
            return
        self._standby = copy_tables(self.store.tables)
        try:
            await asyncio.sleep(lag_s)
            if is_promoted:
                lost = len(self.store.tables.decisions) - len(self._standby.decisions)
                self._tally[Sight.UNCONFIRMED_LOST] += lost
                self.store.restore(self._standby, new_timeline=True)
        finally:
            self._standby = None
            over, self._over = self._over, self._loop.create_future()
            over.set_result(None)
            lagging, self._lagging = self._lagging, []
            self.on_done(lagging)

    def restore(self, rng: Random, *, new_timeline: bool, held: bool) -> bool:
        """Go back to a copy that is up to six seconds old; False where there is none, or a failover is under way."""
        if not self._copies or self._standby is not None:
            return False
        copy = rng.choice(list(self._copies))
        self._copies.clear()
        self.store.restore(copy, new_timeline=new_timeline)
        if held:
            self.store.hold("restored from a copy")
        return True


def _unknown(statement: Statement[object]) -> Exception:
    """The error of a statement whose answer is lost; a read that is lost has simply failed."""
    if statement.name in READS:
        return LogUnavailableError("the answer was lost")
    return LogUncertainError("the connection was lost")
