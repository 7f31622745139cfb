"""Group commits on a log in memory, in virtual time, with a script for what each statement meets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from random import Random
from typing import Any

from coordinator.incarnation import IncarnationLife
from coordinator.log.decision_log import LogUnavailableError, LogUncertainError, Standing
from coordinator.log.ended import IncarnationEndedError
from coordinator.log.group_commit import GroupCommit
from coordinator.log.memory import MemoryLog, Moment, Statement
from coordinator.log.memory_store import MemoryLogStore
from coordinator.log.reported import Reported
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from coordinator.protocol.events import Recorded
from participant_sdk.ids import RequestId, Xid, XidSource
from participant_sdk.xa import Decision
from tests.simulation.clocks import SimulatedClock
from tests.simulation.loop import SimulatedLoop

LEASE_S = 3.0
STATEMENT_S = 0.001


class Fate(Enum):
    """What becomes of a statement."""

    DONE = auto()
    UNAVAILABLE = auto()
    LOST_BEFORE = auto()
    LOST_AFTER = auto()


@dataclass(frozen=True, slots=True)
class Late:
    """The answer is lost at once, and the statement takes effect this much later."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Slow:
    """The statement takes effect after this time, and is answered after the second."""

    before_s: float
    after_s: float = 0.0


class ScriptedGate:
    """Each statement meets the next fate in its script; without one it is done after a millisecond."""

    def __init__(self) -> None:
        self.scripts: dict[str, deque[Fate | Late | Slow]] = {}
        self.done: list[str] = []
        self.is_out = False
        self._slow_after: dict[Statement[object], float] = {}

    def script(self, name: str, *fates: Fate | Late | Slow) -> None:
        self.scripts[name] = deque(fates)

    async def __call__(self, moment: Moment, statement: Statement[object], /) -> None:
        if moment is Moment.BEFORE:
            await self._before(statement)
        else:
            self.done.append(statement.name)
            await asyncio.sleep(self._slow_after.pop(statement, 0.0))
            script = self.scripts.get(statement.name)
            if script and script[0] is Fate.LOST_AFTER:
                script.popleft()
                raise LogUncertainError("scripted: done, and the answer lost")

    async def _before(self, statement: Statement[object]) -> None:
        script = self.scripts.get(statement.name)
        fate = script[0] if script else Fate.DONE
        if script and fate is not Fate.LOST_AFTER:
            script.popleft()
        await asyncio.sleep(fate.before_s if isinstance(fate, Slow) else STATEMENT_S)
        if self.is_out or fate is Fate.UNAVAILABLE:
            raise LogUnavailableError("scripted")
        if fate is Fate.LOST_BEFORE:
            raise LogUncertainError("scripted: lost, and never done")
        if isinstance(fate, Late):
            asyncio.get_running_loop().call_later(fate.after_s, statement.apply)
            raise LogUncertainError("scripted: lost, and done later")
        if isinstance(fate, Slow):
            self._slow_after[statement] = fate.after_s


class Coordinator:
    """One incarnation with its group commit, whose answers it collects."""

    def __init__(self, bench: Bench, log: MemoryLog, gate: ScriptedGate) -> None:
        self.bench = bench
        self.log = log
        self.gate = gate
        self.recorded: list[tuple[DecisionRecord, Recorded]] = []
        self.flushes: list[int] = []
        self.looked_up: list[tuple[RequestId, StoredDecision | None]] = []
        self.adopted: list[tuple[int, Sequence[StoredDecision]]] = []
        self.standings: list[Standing] = []
        self.ended: IncarnationEndedError | None = None

    async def start(self, name: str, batch_size: int, queue_bound: int) -> None:
        incarnation = await self.log.open(name, f"{name}:50051", LEASE_S)
        self.reported = Reported(self.log, self.bench.participants)
        self.number = incarnation.number
        self.commit = GroupCommit(
            self.log,
            incarnation,
            clock=self.bench.clock,
            random=Random(7),
            reported=self.reported,
            participants_of=lambda record: record.prepared,
            on_recorded=self._on_recorded,
            on_looked_up=self.looked_up.extend,
            batch_size=batch_size,
            queue_bound=queue_bound,
        )
        self.life = IncarnationLife(
            self.log,
            self.commit,
            clock=self.bench.clock,
            on_adopted=lambda number, rows: self.adopted.append((number, rows)),
            on_standing=self.standings.append,
        )
        self._xids = XidSource(self.number)
        self.running = asyncio.get_running_loop().create_task(self._run())
        self.bench.tasks.append(self.running)

    def live(self) -> asyncio.Task[None]:
        """Start renewing, fencing and checkpointing."""
        living = asyncio.get_running_loop().create_task(self.life.run())
        self.bench.tasks.append(living)
        return living

    def record(self, request: str = "", *, decision: Decision = Decision.COMMIT) -> DecisionRecord:
        bound = RequestId("default", request) if request else None
        return DecisionRecord(self._xids.next(self.bench.clock.unix_ms()), decision, ("bookkeeper",), bound, b"digest")

    def append(self, *records: DecisionRecord) -> None:
        for record in records:
            self.commit.append(record)

    @property
    def told(self) -> list[Xid]:
        """The xids told, in order."""
        return [record.xid for record, _ in self.recorded]

    def answer(self, record: DecisionRecord) -> Recorded:
        """The one answer to a record."""
        (recorded,) = [recorded for row, recorded in self.recorded if row.xid == record.xid]
        return recorded

    def _on_recorded(self, batch: list[tuple[DecisionRecord, Recorded]]) -> None:
        self.flushes.append(len(batch))
        self.recorded.extend(batch)

    async def _run(self) -> None:
        try:
            await self.commit.run()
        except IncarnationEndedError as error:
            self.ended = error


class Bench:
    """One store, one virtual clock, and the coordinators on them."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.clock = SimulatedClock(loop)
        self.store = MemoryLogStore(self.clock, "0123456789abcdef")
        self.tasks: list[asyncio.Task[None]] = []
        # Those whose reports the next coordinators wait for.
        self.participants: tuple[str, ...] = ()

    async def coordinator(self, name: str = "one", *, batch_size: int = 512, queue_bound: int = 10_000) -> Coordinator:
        gate = ScriptedGate()
        coordinator = Coordinator(self, MemoryLog(self.store, gate), gate)
        await coordinator.start(name, batch_size, queue_bound)
        return coordinator

    def stored(self, record: DecisionRecord) -> StoredDecision:
        return self.store.tables.decisions[record.xid]

    def is_stored(self, record: DecisionRecord) -> bool:
        return record.xid in self.store.tables.decisions

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def virtual_time(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on virtual time, where a sleep is only a moment in the story. It ends within 1,000 s of it."""

    def run() -> None:
        loop = SimulatedLoop(Random(1))

        async def main() -> None:
            bench = Bench(loop)
            try:
                async with asyncio.timeout(1_000):
                    await test(bench)
            finally:
                await bench.close()

        try:
            loop.run_until_complete(main())
        finally:
            left = loop.bury()
        assert left == 0
        assert not loop.failures

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return run
