"""A simulated participant: the SDK's own sessions, workers and inquiries above a store that outlives them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Final

from coordinator.errors import TransactionError
from coordinator.requests import Enlisted
from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.frames import BadFrameError
from participant_sdk.ids import Xid
from participant_sdk.inquiry import Inquiry, NoAnswerError
from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Operation
from participant_sdk.pruning import Pruning
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.session import SessionServer
from participant_sdk.worker import Workers
from tests.simulation.business import opening
from tests.simulation.clocks import SimulatedClock
from tests.simulation.coordinators import CoordinatorHost
from tests.simulation.faults import Fault
from tests.simulation.hosts import Host, Served, Surroundings
from tests.simulation.loop import Process
from tests.simulation.network import CallFailedError, ServerSide
from tests.simulation.storage import Disk, StoreFailedError

EXPIRE_EVERY_S: Final = 1.0
ASK_TIMEOUT_S: Final = 2.0
INQUIRY_PATIENCE_S: Final = 2.0
INQUIRY_BACKOFF_CAP_S: Final = 8.0


class ParticipantHost(Host):
    """One participant's machine, with its disk."""

    crash_fault = Fault.CRASH_PARTICIPANT
    pause_fault = Fault.PAUSE_PARTICIPANT

    def __init__(self, name: str, around: Surroundings, disk: Disk) -> None:
        super().__init__(name, around)
        self.store = MemoryStore(opening(), gate=disk.store_gate)
        # Set before the first start.
        self.coordinators: Sequence[CoordinatorHost] = ()
        self._rng = Random(f"{around.mix.seed}:{name}:power")

    async def main(self, process: Process, clock: SimulatedClock, rng: Random) -> None:
        """Serve sessions, and ask about what is in doubt."""
        resource = MemoryResource(self.name, self.store, clock)
        workers = Workers(resource, clock=clock)
        logs = KnownLogs(resource, clock=clock)
        self._around.served[self.name] = Served(resource, logs)
        self._resource, self._clock_of_life = resource, clock
        sessions = SessionServer(resource, workers, logs, clock=clock)
        inquiry = Inquiry(
            resource,
            workers,
            logs,
            self,
            clock=clock,
            jitter=rng,
            addresses=[host.name for host in self.coordinators],
            patience_s=INQUIRY_PATIENCE_S,
            backoff_cap_s=INQUIRY_BACKOFF_CAP_S,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(workers.run())
            tasks.create_task(inquiry.run())
            tasks.create_task(Pruning(resource, logs, clock=clock, jitter=rng).run())
            tasks.create_task(self._expire(resource))

            def accept(stream: ServerSide) -> None:
                if not self.is_retired:
                    tasks.create_task(self._serve(sessions, stream))

            self._around.network.listen(self.name, process, accept)

    async def _expire(self, resource: MemoryResource) -> None:
        """Let work go whose transaction's time has passed (R13)."""
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            # The work is gone; that its end is not on disk yet loses nothing.
            with suppress(StoreFailedError):
                await resource.expire()

    async def work(self, xid: Xid, enlisted: Enlisted, operations: Sequence[Operation]) -> bool:
        """Do work under an xid at once, as an embedded service does; whether all of it was done."""
        resource, deadline_s = self._resource, self._clock_of_life.monotonic_s() + enlisted.remaining_s
        log_id = self._around.oracle.losses.log_id
        if not resource.begin(log_id, xid, enlisted.branch_number, deadline_s):
            return False
        return sum(resource.do(log_id, xid, operation) for operation in operations) == len(operations)

    def lose(self) -> None:
        """Lose what was not flushed, but for what the disk happened to have written."""
        self.store.crash(survivors=self._rng.randint(0, self.store.unflushed))

    async def decision(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        """Ask a coordinator, as a participant in doubt does."""
        host = next(host for host in self.coordinators if host.name == address)
        self._around.trace.note(f"ask {self.name} {address} {query.xid.sequence}")
        try:
            answer = await self._around.network.call(
                self.name, address, lambda: host.decision(query), timeout_s=ASK_TIMEOUT_S
            )
        except (CallFailedError, TransactionError) as error:
            raise NoAnswerError(str(error)) from error
        self._around.trace.note(f"answer {self.name} {query.xid.sequence} {answer.state.name}")
        return answer

    async def _serve(self, sessions: SessionServer, stream: ServerSide) -> None:
        try:
            await sessions.serve(stream)
        except BadFrameError as error:
            self._around.oracle.violated(f"{self.name} cannot read a frame: {error}")
        finally:
            await stream.close()
