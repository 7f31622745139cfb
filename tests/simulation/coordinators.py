"""A simulated coordinator: the engine, its links and its half of the log, composed by the daemon's own assembly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import StringIO
from random import Random
from typing import Final

from coordinator import canonical
from coordinator.admission import Limits
from coordinator.assembly import Assembly, Settings, assemble
from coordinator.engine import Engine
from coordinator.errors import UnavailableError
from coordinator.log.decision_log import (
    BACKOFF_CAP_S,
    BACKOFF_FIRST_S,
    Incarnation,
    LogUnavailableError,
    LogUncertainError,
)
from coordinator.log.ended import IncarnationEndedError
from coordinator.log.memory import MemoryLog
from coordinator.log.memory_store import MemoryLogStore
from coordinator.passes import PassSettings
from coordinator.protocol.timing import Timing
from coordinator.requests import TENANT_DEFAULT, Ended, Enlisted, ExecuteCall
from coordinator.running import Finished
from coordinator.telemetry import Telemetry
from participant_sdk.backoff import Backoff
from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation
from participant_sdk.resource_calls import Access
from tests.simulation.calls import SimulatedCalls
from tests.simulation.clocks import SimulatedClock
from tests.simulation.faults import Fault
from tests.simulation.hosts import Host, Surroundings
from tests.simulation.log_server import LogServer
from tests.simulation.loop import Process
from tests.simulation.oracle import Intent

LEASE_S: Final = 3.0
RESIGN_WITHIN_S: Final = 5.0
PASS_EVERY_S: Final = 10.0
TIMING: Final = Timing(
    prepare_timeout_s=5.0, commit_timeout_s=5.0, rollback_timeout_s=5.0, retry_initial_s=0.5, retry_max_s=8.0
)


class CoordinatorHost(Host):
    """One coordinator's machine, with its doors: what a client or a participant may ask of it."""

    crash_fault = Fault.CRASH_COORDINATOR
    pause_fault = Fault.PAUSE_COORDINATOR

    def __init__(
        self, name: str, around: Surroundings, store: MemoryLogStore, server: LogServer, participants: Sequence[str]
    ) -> None:
        super().__init__(name, around)
        self.assembly: Assembly | None = None
        self.finished = 0
        self._stop = asyncio.Event()
        self._store = store
        self._server = server
        self._participants = participants

    async def main(self, process: Process, clock: SimulatedClock, rng: Random) -> None:
        """Draw an incarnation and serve until it ends."""
        log = MemoryLog(self._store, self._server.gate)
        around = self._around
        network = around.network
        assembly = assemble(
            log,
            await self._draw(log, rng),
            {
                name: Access(network.transport(self.name, name), SimulatedCalls(self.name, name, around, clock))
                for name in self._participants
            },
            Settings(TIMING, Limits(), self._around.mix.batch_size, self._passes),
            clock=clock,
            random=rng,
            telemetry=Telemetry("error", StringIO()),
            on_finished=self._count,
        )
        self.assembly = assembly
        network.listen(self.name, process)
        try:
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(assembly.run())
                await self._stop.wait()
                working.cancel()
        except* IncarnationEndedError as ended:
            assembly.engine.stop(str(ended.exceptions[0]))
            raise
        await self._resign(assembly)

    async def _resign(self, assembly: Assembly) -> None:
        """End as the daemon does that was told to stop."""
        assembly.engine.stop("the coordinator stopped")
        with suppress(LogUnavailableError, LogUncertainError, TimeoutError):
            async with asyncio.timeout(RESIGN_WITHIN_S):
                await assembly.life.resign()

    def stop(self) -> bool:
        """Tell the process to stop, if it is open."""
        if self.process is None or self.assembly is None or self.was_told_to_stop:
            return False
        self.was_told_to_stop = True
        self._around.loop.call_in(self.process, self._stop.set)
        return True

    def lose(self) -> None:
        """Lose all: a coordinator keeps nothing of its own."""
        self.assembly = None
        self.was_told_to_stop = False
        self._stop = asyncio.Event()

    @property
    def engine(self) -> Engine | None:
        """The open incarnation's, if there is one."""
        return None if self.assembly is None else self.assembly.engine

    @property
    def is_fenced(self) -> bool:
        """The log says that this incarnation is over, whether it knows or not."""
        if self.assembly is None:
            return False
        row = self._store.tables.incarnations.get(self.assembly.engine.incarnation.number)
        return row is None or not row.is_live

    @property
    def _passes(self) -> PassSettings:
        return PassSettings(interval_s=PASS_EVERY_S, retention_s=self._around.mix.retention_s)

    def opened(self) -> Assembly:
        """The parts of the open incarnation. UnavailableError before it is open."""
        if self.assembly is None:
            raise UnavailableError("not open yet")
        return self.assembly

    # -- The doors; each runs within the process.

    async def execute(self, intent: Intent, *, timeout_s: float, wait_applied: bool) -> Ended:
        """Run a whole transaction."""
        digest = canonical.digest(intent.operations) if intent.request_id else b""
        call = ExecuteCall(
            intent.operations, timeout_s, TENANT_DEFAULT, intent.request_id, digest, wait_applied=wait_applied
        )
        return await self._tell(intent, lambda engine: engine.execute(call))

    async def begin(self, intent: Intent, timeout_s: float) -> Xid:
        """Begin an interactive transaction."""
        xid = self._engine().begin(timeout_s, TENANT_DEFAULT, intent.request_id)
        self._around.oracle.begun_by_call[xid] = None
        return xid

    async def enlist(self, xid: Xid, operation: Operation) -> None:
        """Add one operation to it."""
        self._engine().enlist(xid, operation.service, [operation], 0)

    async def enlist_embedded(self, xid: Xid, participant: str, count: int) -> Enlisted:
        """Announce work that the participant itself is about to do under the xid."""
        return self._engine().enlist(xid, participant, [], count)

    async def set_rollback_only(self, xid: Xid) -> None:
        """Leave it no end but rollback."""
        self._engine().set_rollback_only(xid, "the client changed its mind")

    async def commit(self, intent: Intent, xid: Xid) -> Ended:
        """Commit it."""
        return await self._tell(intent, lambda engine: engine.commit(xid))

    async def rollback(self, intent: Intent, xid: Xid) -> Ended:
        """Roll it back."""
        return await self._tell(intent, lambda engine: engine.rollback(xid, "the client gave up"))

    async def close_intent(self, intent: Intent) -> Ended:
        """Bind ROLLBACK to the intent, unless it is bound."""
        return await self._tell(
            intent, lambda engine: engine.close_intent(TENANT_DEFAULT, intent.request_id, "the client gave up")
        )

    async def decision(self, query: DecisionQuery) -> DecisionAnswer:
        """Answer a participant in doubt."""
        return await self.opened().inquiries.decision(query.xid, query.participants)

    async def _tell(self, intent: Intent, ask: Callable[[Engine], asyncio.Future[Ended]]) -> Ended:
        asked_s = self._around.loop.time()
        ended = await ask(self._engine())
        self._around.oracle.was_told(intent, ended.outcome, asked_s)
        return ended

    def _engine(self) -> Engine:
        return self.opened().engine

    async def _draw(self, log: MemoryLog, rng: Random) -> Incarnation:
        backoff = Backoff(rng, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
        while True:
            try:
                incarnation = await log.open(self.name, self.name, LEASE_S)
            except (LogUnavailableError, LogUncertainError):
                await backoff.wait()
            else:
                self._around.oracle.losses.drew(incarnation.number)
                return incarnation

    def _count(self, _: Finished) -> None:
        self.finished += 1
