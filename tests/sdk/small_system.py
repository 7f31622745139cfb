"""A whole system in one process: the real engine and door over a log in memory, two participants in memory.

All between client and stores is the product's own code, over real gRPC. The stores (log and
accounts) outlive coordinators, so that one can be stopped and another started.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from coordinator.admission import Limits
from coordinator.api.gate import Gate
from coordinator.api.grpc_lock import LockService
from coordinator.api.grpc_recovery import RecoveryService
from coordinator.api.grpc_server import GrpcDoor
from coordinator.api.grpc_transaction import TransactionService
from coordinator.api.grpc_workflow import WorkflowService
from coordinator.assembly import Settings, assemble
from coordinator.engine import Engine
from coordinator.log.memory import MemoryLog
from coordinator.log.memory_store import MemoryLogStore
from coordinator.protocol.timing import Timing
from coordinator.running import Finished
from coordinator.telemetry import Telemetry
from participant_sdk.clock import SystemClock
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.resource_calls import Access
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.server import serving

LOG_ID: Final = "00000000000000aa"
LEFT: Final = "left"
RIGHT: Final = "right"
OPENING: Final = Decimal(1_000_000)
LEASE_S: Final = 3.0
_TIMING: Final = Timing(retry_initial_s=0.05, retry_max_s=0.2)
_CLOCK: Final = SystemClock()


class Tap:
    """What a flush of a participant's store passes. Shut, it stops the participant's votes and effects."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._left: int | None = None

    def shut(self) -> None:
        """Let nothing through from now on."""
        self._open.clear()

    def shut_after(self, flushes: int) -> None:
        """Let so many flushes through, and nothing from then on."""
        self._left = flushes

    def open(self) -> None:
        """Let everything through, what waited too."""
        self._left = None
        self._open.set()

    async def pass_(self) -> None:
        """Wait while it is shut."""
        if self._left == 0:
            self.shut()
        await self._open.wait()
        if self._left:
            self._left -= 1


@dataclass(frozen=True, slots=True)
class System:
    """What outlives coordinators: the log, the participants' stores and taps, and where they are served."""

    log: MemoryLogStore
    stores: Mapping[str, MemoryStore]
    taps: Mapping[str, Tap]
    addresses: Mapping[str, str]

    def balance(self, participant: str, account: str) -> Decimal:
        """An account's money that is durable."""
        return self.stores[participant].durable.accounts[account].balance

    def held(self, participant: str, account: str) -> Decimal:
        """What prepared branches hold of an account."""
        return self.stores[participant].durable.accounts[account].held

    def effects(self, participant: str) -> int:
        """How many commits the participant has posted."""
        return len(self.stores[participant].durable.effects)


@dataclass(frozen=True, slots=True)
class Running:
    """One coordinator's life. ``finished`` gets every transaction of which nothing is owed any more."""

    engine: Engine
    address: str
    finished: asyncio.Queue[Finished]


@asynccontextmanager
async def system() -> AsyncGenerator[System]:
    """Keep a log and serve two participants with accounts "a" to "f" for the time of the block."""
    taps = {name: Tap() for name in (LEFT, RIGHT)}
    stores = {name: MemoryStore(dict.fromkeys("abcdef", OPENING), gate=tap.pass_) for name, tap in taps.items()}
    addresses: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for name, store in stores.items():
            resource = MemoryResource(name, store, _CLOCK)
            served = await stack.enter_async_context(serving(resource, "127.0.0.1:0"))
            addresses[name] = f"127.0.0.1:{served.port}"
        yield System(MemoryLogStore(_CLOCK, LOG_ID), stores, taps, addresses)
        for tap in taps.values():
            tap.open()


@asynccontextmanager
async def coordinator(around: System, *, max_concurrent_txns: int = 1000) -> AsyncGenerator[Running]:
    """Run a coordinator for the time of the block."""
    finished: asyncio.Queue[Finished] = asyncio.Queue()
    log = MemoryLog(around.log)
    telemetry = Telemetry("error")
    gate = Gate()
    service = TransactionService(gate, telemetry, timedelta(seconds=30))
    others = (WorkflowService(gate, telemetry), LockService(gate, telemetry))
    door = GrpcDoor(service, RecoveryService(gate, telemetry), *others, telemetry)
    door.listen("127.0.0.1:0")
    address = f"127.0.0.1:{door.port}"
    assembly = assemble(
        log,
        await log.open("coordinator", address, LEASE_S),
        {
            name: Access(GrpcTransport(address), GrpcResourceCalls(address, clock=_CLOCK))
            for name, address in around.addresses.items()
        },
        Settings(_TIMING, Limits(max_concurrent_txns=max_concurrent_txns), batch_size=512),
        clock=_CLOCK,
        random=random.Random(0),
        telemetry=telemetry,
        on_finished=finished.put_nowait,
    )
    gate.open(assembly)
    await door.start()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(assembly.run())
        while not all(link.is_up for link in assembly.links.values()):  # noqa: ASYNC110 - links have no event for us.
            await asyncio.sleep(0.001)
        yield Running(assembly.engine, address, finished)
        assembly.engine.stop("the test is over")
        await door.stop(0.0)
        running.cancel()
