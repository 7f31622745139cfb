"""One run of one seed: hosts, clients, a bad time, healing, rest, and the verdict."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from coordinator.log.memory_store import MemoryLogStore
from participant_sdk.xa import Decision
from tests.simulation.chaos import Chaos, Strike
from tests.simulation.clients import Client
from tests.simulation.clocks import SimulatedClock
from tests.simulation.coordinators import CoordinatorHost
from tests.simulation.disasters import Disasters
from tests.simulation.faults import Fault, Mix, Sight, Tally
from tests.simulation.hosts import Surroundings
from tests.simulation.log_server import LogServer
from tests.simulation.loop import Process, SimulatedLoop, StuckError
from tests.simulation.losses import Losses
from tests.simulation.network import FRAME_MAX_BYTES, Network, Weather
from tests.simulation.observation import Pairs
from tests.simulation.operators import Operators
from tests.simulation.oracle import Oracle
from tests.simulation.participants import ParticipantHost
from tests.simulation.rest import in_doubt, judge, unreported
from tests.simulation.storage import Disk
from tests.simulation.trace import Trace

LOG_ID: Final = "5eed5eed5eed5eed"
LOOK_EVERY_S: Final = 0.25
# Clients begin nothing more after the first, unless too little was begun; and do nothing more after the second.
BAD_TIME_S: Final = 90.0
BAD_TIME_MAX_S: Final = 240.0
REST_WITHIN_S: Final = 120.0
AFTER_SECOND_RECOVERY_S: Final = 20.0
# A run begins at least so many transactions; faults keep some clients from beginning theirs.
BEGUN_MIN: Final = 50
NUMBERS_MAX: Final = 400
TOLD_LESS_MAX: Final = 2

Heard = Counter[tuple[str, str]]


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
    pairs: Pairs = field(default_factory=Pairs)


class World:
    """Everything of one run."""

    def __init__(self, mix: Mix, *, heard: Heard | None = None, detailed: bool = False) -> None:
        self.mix = mix
        self.loop = SimulatedLoop(Random(f"{mix.seed}:loop"), shuffled=mix.shuffled, step_max_s=mix.step_max_s)
        self.trace = Trace(self.loop, detailed=detailed)
        self.tally: Tally = Tally()
        # What the product said in its logs, by event and participant.
        self.heard: Heard = Heard() if heard is None else heard
        self.network = Network(self.loop, Random(f"{mix.seed}:network"), self.trace, self.tally)
        clock = SimulatedClock(self.loop)
        self.log_store = MemoryLogStore(clock, LOG_ID)
        names = [f"p{number}" for number in range(mix.participants)]
        self.log_server = LogServer(self.log_store, clock, self.loop, mix, self.trace, self.tally, self._kill)
        self.log_server.on_done = self._log_did
        losses = Losses(LOG_ID, self.tally)
        self.oracle = Oracle(lambda: self.log_server.durable, losses, {}, self.trace.note, self.loop.time)
        around = Surroundings(mix, self.loop, self.network, self.oracle, self.trace, self.tally)
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
        self.operators = Operators(around, self.coordinators, self.participants)
        self.disasters = Disasters(around, self.log_server, self.participants)
        self.chaos = Chaos(around, self.hosts, self.log_server, self._strikes())
        self.clients = [
            Client(f"client{number}", around, self.coordinators, self.participants) for number in range(mix.clients)
        ]
        self.network.watchers.append(self.oracle.saw)
        self.loop.after_step = self.chaos.stepped
        # How many steps each host's process had made when the bad time ended.
        self.steps_of: dict[str, int] = {}
        self._kills = Random(f"{mix.seed}:kills")

    def _strikes(self) -> dict[Fault, Strike]:
        """What operators do, and what happens to databases, by the fault that brings it."""
        operators, disasters = self.operators, self.disasters
        return {
            Fault.OPERATOR_HOLDS: operators.hold,
            Fault.OPERATOR_RESOLVES: operators.resolve,
            Fault.OPERATOR_FORCES: operators.force,
            Fault.OPERATOR_FORGETS: operators.forget,
            Fault.OPERATOR_RETRIES: operators.retry,
            Fault.OPERATOR_RECOVERS: operators.recover,
            Fault.SLEEP: disasters.sleep,
            Fault.LOG_RECONNECT: disasters.reconnect,
            Fault.LOG_CLOCK: disasters.skew_log,
            Fault.LOG_FAILOVER: disasters.fail_over,
            Fault.LOG_PROMOTED: lambda rng: disasters.restore_log(rng, Fault.LOG_PROMOTED),
            Fault.LOG_RESTORED: lambda rng: disasters.restore_log(rng, Fault.LOG_RESTORED),
            Fault.LOG_RESTORED_HELD: lambda rng: disasters.restore_log(rng, Fault.LOG_RESTORED_HELD),
            Fault.STORE_RESTORED: disasters.restore_store,
        }

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
        self._count_sights()
        return Result(
            self.mix,
            digest,
            tuple(self.oracle.violations),
            tuple(self.trace.lines),
            self.tally,
            transactions=self.oracle.begun,
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
        duty = self.loop.start(self.loop.world, self.operators.watch())
        try:
            await self._live_through()
        finally:
            duty.cancel()

    async def _live_through(self) -> None:
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
        numbers = self._numbers()
        async with asyncio.TaskGroup() as tasks:
            chaos = [tasks.create_task(self.chaos.run()), tasks.create_task(self.disasters.keep_copies())]
            try:
                async with asyncio.timeout(BAD_TIME_MAX_S), asyncio.TaskGroup() as working:
                    for client in self.clients:
                        working.create_task(client.run(numbers))
            except TimeoutError:
                self.trace.note("the clients did not finish")
            for task in chaos:
                task.cancel()

    def _numbers(self) -> Iterator[int]:
        """A number for each intent: as many as the mix says, and more while too few transactions were begun."""
        for number in range(NUMBERS_MAX):
            is_late = self.loop.time() > BAD_TIME_S
            if (is_late or number >= self.mix.transactions) and self.oracle.begun >= min(
                BEGUN_MIN, self.mix.transactions
            ):
                return
            yield number

    def _heal(self) -> None:
        self.trace.note("heal")
        self.steps_of = {host.name: host.process.steps for host in self.hosts if host.process}
        self.network.heal_all()
        for disk in (*self.disks, self.log_server):
            disk.heal()
        self.chaos.heal()

    async def _settle(self) -> None:
        """Let every client learn the end of each of its named intents."""
        settling: dict[str, asyncio.Task[None]] = {}
        try:
            async with asyncio.timeout(REST_WITHIN_S), asyncio.TaskGroup() as tasks:
                for client in self.clients:
                    for intent in client.unsettled:
                        settling[intent.request_id] = tasks.create_task(client.settle(intent))
        except TimeoutError:
            left = ", ".join(name for name, task in settling.items() if task.cancelled())
            self.oracle.violated(f"invariant 8: no end {REST_WITHIN_S} s after the faults healed: {left}")

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
        if self.log_store.tables.held:
            yield f"the log is in HOLD: {self.log_store.tables.held}"
        if self.log_server.durable is not self.log_store.tables:
            yield "the log's standby lags"
        yield from unreported(self.oracle)
        for host in self.participants:
            if host.store.unflushed:
                yield f"{host.name} has not flushed"
        for number, row in self.log_store.tables.incarnations.items():
            # A living one's checkpoint may be lost until its next one.
            if not row.is_live and (left := len(self.log_store.unfinished(number))):
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
        # What is dropped by right in between is no change.
        decisions = {
            xid: stored.record.decision
            for xid, stored in {**self.oracle.losses.decisions, **self.log_store.tables.decisions}.items()
        }
        states = {
            host.name: (dict(host.store.durable.accounts), len(host.store.durable.effects))
            for host in self.participants
        }
        return decisions, states

    def _judge_process(self) -> None:
        for failure in self.loop.failures:
            self.oracle.violated(f"nobody caught in {failure.process}: {failure.message}: {failure.exception!r}")
        if self.network.largest_frame_bytes > FRAME_MAX_BYTES:
            self.oracle.violated(f"a frame had {self.network.largest_frame_bytes} bytes")
        for (name, _), times in self.oracle.losses.told_less.items():
            # Once may be old news, twice an answer that was outdated.
            if times > TOLD_LESS_MAX and not self.heard["participant_behind", name]:
                self.oracle.violated(f"R15: {name} is behind what it acknowledged, and nobody was alerted")

    def _count_sights(self) -> None:
        """Count what came about, at the end of a run."""
        tables, tally = self.log_store.tables, self.tally
        tally[Sight.BEHIND_ALERTED] += sum(self.heard["participant_behind", name] for name in self.oracle.stores)
        tally[Sight.BRANCH_PRUNED] += sum(len(host.store.durable.pruned) for host in self.participants)
        tally[Sight.EMBEDDED] += sum(
            xid in tables.decisions and tables.decisions[xid].record.decision is Decision.COMMIT
            for xid in self.oracle.embedded
        )

    def _log_did(self, statements: Sequence[str]) -> None:
        self.oracle.check_log(statements)
        if "checkpoint" in statements:
            self.oracle.check_finished()
        if "record_heuristics" in statements:
            self.oracle.see_hands()
        self.tally[Sight.RESIGNED] += statements.count("resign")
        self.tally[Sight.HELD] += statements.count("hold")

    def _kill(self, process: Process) -> None:
        self.chaos.kill(process, self._kills)
