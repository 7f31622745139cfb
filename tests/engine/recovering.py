"""A coordinator's parts over a log in memory and two participants that never ask for themselves.

Over real gRPC; a participant's single calls pass a wire that tests cut, hold up, and make lie.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

from coordinator.admission import Limits
from coordinator.assembly import Assembly, Settings, assemble
from coordinator.log.decision_log import Incarnation, LogUnavailableError
from coordinator.log.memory import MemoryLog, Moment, Statement
from coordinator.log.memory_store import MemoryLogStore
from coordinator.passes import PassSettings
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.timing import Timing
from coordinator.telemetry import Telemetry
from coordinator.workflows.workflows import WorkflowSettings
from participant_sdk.branch import BranchPhase
from participant_sdk.clock import SystemClock
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, Operation, Prepare, RecoverQuery
from participant_sdk.resource_calls import Access, CallFailedError, Listing, Page, Resolved
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import BranchKey, MemoryStore
from participant_sdk.server import serving
from participant_sdk.xa import Ack, Decision, VoteKind

LOG_ID: Final = "00000000000000aa"
LEFT: Final = "left"
RIGHT: Final = "right"
OPENING: Final = Decimal(1_000_000)
# Short, so that a dead coordinator is soon adopted.
LEASE_S: Final = 0.3
CLOCK: Final = SystemClock()
# By hand alone: what comes by itself would come in between.
BY_HAND: Final = PassSettings(is_enabled=False)
SOON: Final = Timing(retry_initial_s=0.02, retry_max_s=0.05)


class Wire:
    """What a participant's single calls pass. It can be cut, lose replies, and list what is not so."""

    def __init__(self, calls: GrpcResourceCalls) -> None:
        self.is_cut = False
        self.loses_replies = False
        self.adds: list[Branch] = []
        # So many at most it lists on a page; and, if it lies altogether, what it lists by the token.
        self.page_max = 1_000
        self.tells: Callable[[str], Page] | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.reached = asyncio.Event()
        self.forgotten: list[Xid] = []
        self.forget_says: Ack | None = None
        # Who says to be there, if it is another.
        self.speaks_for = ""
        self._calls = calls

    async def hello(self, introduction: Introduction) -> Welcome:
        welcome = await self._calls.hello(introduction)
        return replace(welcome, participant=self.speaks_for or welcome.participant)

    async def recover(self, query: RecoverQuery, token: str = "") -> Page:
        await self._pass()
        if self.tells is not None:
            return self.tells(token)
        listing, listed = Listing(self._calls, query), [*self.adds]
        while not listing.is_over:
            listed += await listing.page()
        # Nobody but this wire reads its tokens.
        after = Xid.parse(token[::-1]) if token else None
        listed = sorted((each for each in listed if after is None or each.xid > after), key=lambda each: each.xid)
        page = listed[: min(query.limit, self.page_max)]
        return Page(page, str(page[-1].xid)[::-1] if len(page) < len(listed) else "")

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        await self._pass()
        return await self._calls.branch(log_id, xid)

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str, *, preview: bool) -> Resolved:
        await self._pass()
        resolved = await self._calls.resolve(log_id, xid, outcome, reason, preview=preview)
        if self.loses_replies and not preview:
            raise CallFailedError("the reply was lost")
        return resolved

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        await self._pass()
        if self.forget_says is not None:
            return self.forget_says
        self.forgotten.append(xid)
        return await self._calls.forget(log_id, xid)

    async def _pass(self) -> None:
        self.reached.set()
        await self.open.wait()
        if self.is_cut:
            raise CallFailedError("the wire is cut")


class Tap:
    """A log's gate, and a participant's flush: shut, the first fails and the second waits."""

    def __init__(self) -> None:
        self.fails: Callable[[str], bool] = lambda _: False
        self.before: Callable[[str], Awaitable[object] | None] = lambda _: None
        # So many flushes fail, the next ones.
        self.failures = 0
        self._open = asyncio.Event()
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def flush(self) -> None:
        await self._open.wait()
        if self.failures:
            self.failures -= 1
            raise OSError("the disk is gone for a moment")

    async def statement(self, moment: Moment, statement: Statement[object]) -> None:
        if moment is Moment.BEFORE and self.fails(statement.name):
            raise LogUnavailableError("the log is cut off")
        if moment is Moment.BEFORE and (first := self.before(statement.name)) is not None:
            await first


class Host:
    """Serves one participant; it can be stopped and started, at the same port."""

    def __init__(self, resource: MemoryResource, tasks: asyncio.TaskGroup) -> None:
        self.address = "127.0.0.1:0"
        self._resource = resource
        self._tasks = tasks
        self._up = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._stopping.clear()
        self._task = self._tasks.create_task(self._serve())
        await self._up.wait()

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _serve(self) -> None:
        async with serving(self._resource, self.address, patience_s=3600, grace_s=0.0) as served:
            self.address = f"127.0.0.1:{served.port}"
            self._up.set()
            await self._stopping.wait()
        self._up.clear()


@dataclass(frozen=True, slots=True)
class World:
    """What outlives coordinators. ``log_tap`` fails the log's statements, ``taps`` hold up participants' flushes."""

    log: MemoryLogStore
    log_tap: Tap
    stores: Mapping[str, MemoryStore]
    taps: Mapping[str, Tap]
    wires: Mapping[str, Wire]
    hosts: Mapping[str, Host]

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where the participants are served."""
        return {name: host.address for name, host in self.hosts.items()}

    def phase(self, participant: str, xid: Xid) -> BranchPhase:
        """Where a branch stands, durably."""
        stored = self.stores[participant].durable.branches.get(BranchKey(LOG_ID, xid))
        return BranchPhase.NONE if stored is None else stored.branch.phase

    def effects(self, participant: str) -> int:
        """How many commits the participant has posted."""
        return len(self.stores[participant].durable.effects)

    def resource(self, participant: str) -> MemoryResource:
        """The participant's own calls, as somebody on its machine would make them."""
        return MemoryResource(participant, self.stores[participant], CLOCK)

    async def prepare(self, participant: str, xid: Xid, operation: str = "debit") -> None:
        """Have a branch prepared, as over a session that is gone now."""
        work = (Operation(participant, operation, '{"account":"a","amount":"10"}'),)
        branch = Prepare(LOG_ID, xid, work, CLOCK.monotonic_s() + 30, (LEFT, RIGHT))
        (vote,) = await self.resource(participant).prepare([branch])
        assert vote.kind is VoteKind.PREPARED

    async def dead(self) -> tuple[MemoryLog, Incarnation]:
        """A coordinator that drew an incarnation and says no more; its lease is over at once."""
        log = MemoryLog(self.log)
        return log, await log.open("dead", "127.0.0.1:1", 1e-9)

    async def leave(self, *, decided: bool, prepared: Sequence[str] = (LEFT, RIGHT)) -> Xid:
        """Leave a dead coordinator's transaction behind, prepared at both."""
        log, incarnation = await self.dead()
        xid = Xid.make(CLOCK.unix_ms(), incarnation.number, 1)
        for participant in prepared:
            await self.prepare(participant, xid)
        if decided:
            await log.append(incarnation, 0, [DecisionRecord(xid, Decision.COMMIT, (LEFT, RIGHT))])
        return xid


@asynccontextmanager
async def world() -> AsyncGenerator[World]:
    """Keep a log and serve two participants for the time of the block."""
    taps = {name: Tap() for name in (LEFT, RIGHT)}
    stores = {name: MemoryStore(dict.fromkeys("abcdef", OPENING), gate=tap.flush) for name, tap in taps.items()}
    async with asyncio.TaskGroup() as tasks:
        hosts = {name: Host(MemoryResource(name, store, CLOCK), tasks) for name, store in stores.items()}
        for host in hosts.values():
            await host.start()
        wires = {name: Wire(GrpcResourceCalls(host.address, clock=CLOCK)) for name, host in hosts.items()}
        yield World(MemoryLogStore(CLOCK, LOG_ID), Tap(), stores, taps, wires, hosts)
        for tap in taps.values():
            tap.open()
        for host in hosts.values():
            await host.stop()


@asynccontextmanager
async def node(
    around: World,
    passes: PassSettings = BY_HAND,
    *,
    timing: Timing = SOON,
    name: str = "coordinator",
    lease_s: float = LEASE_S,
    workflows: WorkflowSettings | None = None,
) -> AsyncGenerator[Assembly]:
    """Run a coordinator's parts for the time of the block, from when every participant has reported."""
    log = MemoryLog(around.log, around.log_tap.statement)
    telemetry = Telemetry("error")
    assembly = assemble(
        log,
        await log.open(name, f"{name}:1", lease_s),
        {each: Access(GrpcTransport(host.address), around.wires[each]) for each, host in around.hosts.items()},
        Settings(timing, Limits(), 512, passes, workflows=workflows or WorkflowSettings({})),
        clock=CLOCK,
        random=random.Random(0),
        telemetry=telemetry,
        on_finished=telemetry.finished,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(assembly.run())
        await until(lambda: all(each.reported for each in assembly.passes.status().participants))
        yield assembly
        assembly.engine.stop("the test is over")
        running.cancel()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what has no event for tests."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - as it says
            await asyncio.sleep(0.002)
