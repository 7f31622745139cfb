"""One run of one seed: hosts, clients, a bad time, healing, rest, and the verdict."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from coordinator.log.memory_store import MemoryLogStore
from participant_sdk.xa import Decision
from tests.simulation.chaos import Chaos
from tests.simulation.clients import Client
from tests.simulation.clocks import SimulatedClock
from tests.simulation.coordinators import CoordinatorHost
from tests.simulation.faults import Mix, Tally
from tests.simulation.hosts import Surroundings
from tests.simulation.loop import Process, SimulatedLoop, StuckError
from tests.simulation.network import FRAME_MAX_BYTES, Network, Weather
from tests.simulation.oracle import Oracle
from tests.simulation.participants import ParticipantHost
from tests.simulation.rest import in_doubt, judge
from tests.simulation.storage import Disk, LogServer
from tests.simulation.trace import Trace

LOG_ID: Final = "5eed5eed5eed5eed"
LOOK_EVERY_S: Final = 0.25
BAD_TIME_MAX_S: Final = 240.0
REST_WITHIN_S: Final = 120.0
AFTER_SECOND_RECOVERY_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a run showed."""

    mix: Mix
    digest: str
    violations: tuple[str, ...]
    lines: tuple[str, ...]
    tally: Tally
    transactions: int
    committed: int
    rolled_back: int
    crashes: int
    steps: int
    virtual_s: float
    steps_of: Mapping[str, int]


class World:
    """Everything of one run."""

    def __init__(self, mix: Mix, *, detailed: bool = False) -> None:
        self.mix = mix
        self.loop = SimulatedLoop(Random(f"{mix.seed}:loop"), shuffled=mix.shuffled, step_max_s=mix.step_max_s)
        self.trace = Trace(self.loop, detailed=detailed)
        self.tally: Tally = Tally()
        self.network = Network(self.loop, Random(f"{mix.seed}:network"), self.trace, self.tally)
        self.log_store = MemoryLogStore(SimulatedClock(self.loop), LOG_ID)
        names = [f"p{number}" for number in range(mix.participants)]
        self.oracle = Oracle(self.log_store, {}, self.trace.note, self.loop.time)
        around = Surroundings(mix, self.loop, self.network, self.oracle, self.trace, self.tally)
        self.log_server = LogServer("log", self.loop, mix, self.trace, self.tally, self._kill)
        self.log_server.on_done = self._log_did
        self.disks = [Disk(name, self.loop, mix, self.trace, self.tally, self._kill) for name in names]
        self.participants = [ParticipantHost(name, around, disk) for name, disk in zip(names, self.disks, strict=True)]
        self.oracle.stores = {host.name: host.store for host in self.participants}
        self.coordinators = [
            CoordinatorHost(f"c{number}", around, self.log_store, self.log_server, names)
            for number in range(mix.coordinators)
        ]
        for participant in self.participants:
            participant.coordinators = self.coordinators
        self.hosts = [*self.coordinators, *self.participants]
        self.chaos = Chaos(around, self.hosts, self.log_server)
        self.clients = [Client(f"client{number}", around, self.coordinators) for number in range(mix.clients)]
        self.network.watchers.append(self.oracle.saw)
        self.loop.after_step = self.chaos.stepped
        # How many steps each host's process had made when the bad time ended.
        self.steps_of: dict[str, int] = {}
        self._kills = Random(f"{mix.seed}:kills")

    def run(self) -> Result:
        """Run to the verdict. Whatever goes wrong is a violation in the result, never an exception."""
        try:
            self.loop.run_until_complete(self._live())
        except StuckError as error:
            self.oracle.violated(f"the run is stuck: {error}")
        digest = self.trace.digest()
        steps, virtual_s = self.loop.steps, self.loop.time()
        for host in self.hosts:
            host.retire()
        left = self.loop.bury()
        if left:
            self.oracle.violated(f"{left} tasks could not be cancelled")
        rows = self.log_store.tables.decisions.values()
        return Result(
            self.mix,
            digest,
            tuple(self.oracle.violations),
            tuple(self.trace.lines),
            self.tally,
            transactions=sum(client.sent for client in self.clients),
            committed=sum(row.record.decision is Decision.COMMIT for row in rows),
            rolled_back=sum(told.decision is Decision.ROLLBACK for told in self.oracle.told.values()),
            crashes=self.chaos.crashes,
            steps=steps,
            virtual_s=virtual_s,
            steps_of=self.steps_of,
        )

    async def _live(self) -> None:
        for host in self.hosts:
            host.start()
        for name, step in self.mix.kills:
            self.chaos.crash_in(next(host for host in self.hosts if host.name == name), step)
        self.network.weather = Weather(self.mix.chances)
        await self._until_violated(self._bad_time())
        self._heal()
        await self._until_violated(self._settle())
        await self._rest("the faults healed")
        if self.oracle.violations:
            return
        judge(self.oracle)
        before = self._left()
        for host in self.hosts:
            host.kill()
            host.start()
        await asyncio.sleep(AFTER_SECOND_RECOVERY_S)
        await self._rest("the second recovery")
        judge(self.oracle)
        if self._left() != before:
            self.oracle.violated("invariant 8: a second recovery changed something")
        self._judge_process()

    async def _bad_time(self) -> None:
        """Let the clients work while the chaos strikes."""
        numbers = range(self.mix.transactions)
        names = [host.name for host in self.participants]
        async with asyncio.TaskGroup() as tasks:
            chaos = tasks.create_task(self.chaos.run())
            try:
                async with asyncio.timeout(BAD_TIME_MAX_S), asyncio.TaskGroup() as working:
                    for at, client in enumerate(self.clients):
                        working.create_task(client.run(numbers[at :: len(self.clients)], names))
            except TimeoutError:
                self.trace.note("the clients did not finish")
            chaos.cancel()

    def _heal(self) -> None:
        self.trace.note("heal")
        self.steps_of = {host.name: host.process.steps for host in self.hosts if host.process}
        self.network.heal_all()
        for disk in (*self.disks, self.log_server):
            disk.heal()
        self.chaos.heal()

    async def _settle(self) -> None:
        """Let every client learn the end of each of its named intents."""
        try:
            async with asyncio.timeout(REST_WITHIN_S), asyncio.TaskGroup() as tasks:
                for client in self.clients:
                    for intent in client.unsettled:
                        tasks.create_task(client.settle(intent))
        except TimeoutError:
            self.oracle.violated(f"invariant 8: an intent has no end {REST_WITHIN_S} s after the faults healed")

    async def _rest(self, after: str) -> None:
        """Wait until nothing is in doubt and nothing unfinished; a violation if that takes too long."""
        deadline_s = self.loop.time() + REST_WITHIN_S
        while busy := [*in_doubt(self.oracle), *self._unfinished()]:
            if self.oracle.violations:
                return
            if self.loop.time() > deadline_s:
                self.oracle.violated(f"invariant 8: {REST_WITHIN_S} s after {after}: {'; '.join(busy[:5])}")
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def _unfinished(self) -> Iterator[str]:
        for host in self.coordinators:
            if host.engine is None:
                yield f"{host.name} is not up"
            elif host.engine.unfinished or host.engine.in_flight:
                yield f"{host.name} holds {host.engine.unfinished} transactions, {host.engine.in_flight} in flight"
        for host in self.participants:
            if host.store.unflushed:
                yield f"{host.name} has not flushed"
        for number, row in self.log_store.tables.incarnations.items():
            # A living one's checkpoint may be lost until its next one.
            if row.fenced_by is not None and (left := len(self.log_store.unfinished(number))):
                yield f"incarnation {number} has {left} decisions that the log does not call finished"

    async def _until_violated(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work; give it up at the first violation."""
        task = self.loop.start(self.loop.world, work)
        while not task.done() and not self.oracle.violations:
            await asyncio.wait((task,), timeout=LOOK_EVERY_S)
        if self.oracle.violations:
            task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.result()

    def _left(self) -> object:
        """All that a second recovery must not change."""
        decisions = {xid: stored.record.decision for xid, stored in self.log_store.tables.decisions.items()}
        states = {
            host.name: (
                dict(host.store.durable.accounts),
                {key: stored.branch.phase for key, stored in host.store.durable.branches.items()},
                len(host.store.durable.effects),
            )
            for host in self.participants
        }
        return decisions, states

    def _judge_process(self) -> None:
        for failure in self.loop.failures:
            self.oracle.violated(f"nobody caught in {failure.process}: {failure.message}: {failure.exception!r}")
        if self.network.largest_frame_bytes > FRAME_MAX_BYTES:
            self.oracle.violated(f"a frame had {self.network.largest_frame_bytes} bytes")
        if self.log_store.tables.heuristics:
            self.oracle.violated("invariant 10: heuristics are recorded, and no operator was there")

    def _log_did(self, statement: str) -> None:
        self.oracle.check_log()
        if statement == "checkpoint":
            self.oracle.check_finished()

    def _kill(self, process: Process) -> None:
        self.chaos.kill(process, self._kills)
