"""Several coordinators over one log, in one process: each with its own doors, and each can die alone."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import grpc
import httpx
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceStub

from coordinator.admission import Limits
from coordinator.api.gate import Gate
from coordinator.api.grpc_lock import LockService
from coordinator.api.grpc_recovery import RecoveryService
from coordinator.api.grpc_server import GrpcDoor
from coordinator.api.grpc_transaction import TransactionService
from coordinator.api.grpc_workflow import WorkflowService
from coordinator.api.http_app import HttpRoutes, make_app
from coordinator.api.http_server import HttpDoor
from coordinator.assembly import Assembly, Settings, assemble
from coordinator.health import Health
from coordinator.log.decision_log import DecisionLog
from coordinator.log.ended import IncarnationEndedError
from coordinator.log.memory import Gate as LogGate
from coordinator.log.memory import MemoryLog, Moment, Statement
from coordinator.protocol.timing import Timing
from coordinator.telemetry import Telemetry
from coordinator.workflows.workflows import WorkflowSettings
from participant_sdk.clock import SystemClock
from participant_sdk.grpc_options import CHANNEL_OPTIONS
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.ids import Xid
from participant_sdk.resource_calls import Access
from tests.engine.workflows import DEFINITIONS
from tests.sdk.small_system import System

if TYPE_CHECKING:
    # The generated stubs know this class; the module itself has it not.
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

LEASE_S: Final = 1.0
TIMEOUT_DEFAULT_S: Final = 20.0
_CLOCK: Final = SystemClock()


class LogTap:
    """One coordinator's way to the log. Shut, its statements wait; the log and the others go on without it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, moment: Moment, statement: Statement[object], /) -> None:
        if moment is Moment.BEFORE:
            await self._open.wait()


class Node:
    """One coordinator: its doors, what is behind them, and how its incarnation ended, if it did."""

    def __init__(self, assembly: Assembly, door: GrpcDoor, http_door: HttpDoor, stack: AsyncExitStack) -> None:
        self.assembly = assembly
        self.incarnation = assembly.engine.incarnation
        self.address = f"127.0.0.1:{door.port}"
        self.ended: asyncio.Future[IncarnationEndedError | None] = asyncio.get_running_loop().create_future()
        self.stub, self.http = self._clients(http_door.port, stack)
        self._door = door
        self._http_door = http_door
        self._working: asyncio.Task[None] | None = None

    def _clients(self, http_port: int, stack: AsyncExitStack) -> tuple[TransactionServiceAsyncStub, httpx.AsyncClient]:
        channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        stack.push_async_callback(channel.close)
        http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", timeout=30)
        stack.push_async_callback(http.aclose)
        return TransactionServiceStub(channel), http

    async def work(self) -> None:
        """Do what the daemon does, until its incarnation ends or it dies."""
        self._working = asyncio.current_task()
        ended: list[IncarnationEndedError] = []
        try:
            await self.assembly.run()
        except* IncarnationEndedError as group:
            ended += _leaves(group)
        finally:
            self.assembly.engine.stop(str(ended[0]) if ended else "it died")
            self.ended.set_result(ended[0] if ended else None)

    async def die(self) -> None:
        """End without a word: nothing is told to the log, and nobody listens at the address any more."""
        if self._working is not None and not self._working.done():
            self._working.cancel()
            await asyncio.wait([self._working])
        await self._door.stop(0)
        self._http_door.stop()

    def holds(self, xid: str) -> bool:
        """Whether it has the transaction in its hands, or had."""
        return self.assembly.engine.find(Xid.parse(xid)) is not None


def _leaves(group: BaseExceptionGroup[IncarnationEndedError]) -> list[IncarnationEndedError]:
    found: list[IncarnationEndedError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


class Fleet:
    """Coordinators over one log. ``log`` makes each its own way to it."""

    def __init__(self, around: System, tasks: asyncio.TaskGroup, stack: AsyncExitStack) -> None:
        self.around = around
        self._tasks = tasks
        self._stack = stack
        self._nodes: list[Node] = []

    def memory(self, gate: LogGate | None = None) -> DecisionLog:
        """A way to the system's log in memory."""
        return MemoryLog(self.around.log) if gate is None else MemoryLog(self.around.log, gate)

    async def start(
        self, name: str, log: DecisionLog | None = None, *, at: str = "127.0.0.1:0", advertise: str = ""
    ) -> Node:
        """Start a coordinator and wait until it reaches every participant."""
        telemetry = Telemetry("error", io.StringIO())
        gate = Gate()
        service = TransactionService(gate, telemetry, timedelta(seconds=TIMEOUT_DEFAULT_S))
        others = (WorkflowService(gate, telemetry), LockService(gate, telemetry))
        door = GrpcDoor(service, RecoveryService(gate, telemetry), *others, telemetry)
        door.listen(at)
        log = log or self.memory()
        self._stack.push_async_callback(log.close)
        assembly = assemble(
            log,
            await log.open(name, advertise or f"127.0.0.1:{door.port}", LEASE_S),
            {
                participant: Access(GrpcTransport(address), GrpcResourceCalls(address, clock=_CLOCK))
                for participant, address in self.around.addresses.items()
            },
            Settings(
                Timing(retry_initial_s=0.05, retry_max_s=0.2),
                Limits(1000),
                batch_size=512,
                workflows=WorkflowSettings({each.kind: each for each in DEFINITIONS}),
            ),
            clock=_CLOCK,
            random=random.Random(0),
            telemetry=telemetry,
            on_finished=telemetry.finished,
        )
        http_door = HttpDoor(make_app(HttpRoutes(gate, telemetry, _no_health, TIMEOUT_DEFAULT_S)), 1)
        http_door.listen("127.0.0.1:0")
        node = Node(assembly, door, http_door, self._stack)
        await door.start()
        self._tasks.create_task(http_door.run())
        self._tasks.create_task(node.work())
        self._nodes.append(node)
        gate.open(assembly)
        while not all(link.is_up for link in assembly.links.values()):  # noqa: ASYNC110 - links have no event for us.
            await asyncio.sleep(0.001)
        return node

    async def close(self) -> None:
        """End them all."""
        for node in self._nodes:
            await node.die()


@asynccontextmanager
async def fleet(around: System) -> AsyncGenerator[Fleet]:
    """A place for coordinators, for the time of the block."""
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        place = Fleet(around, tasks, stack)
        try:
            yield place
        finally:
            await place.close()


def _no_health() -> Health:
    raise AssertionError("nobody asks for health here")
