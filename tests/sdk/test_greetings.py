"""Which welcomes a link tells: only those that answer what was asked last (R15)."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from pincex.tx.v1 import resource_pb2

from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.hello import Introduction
from participant_sdk.link import Link
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.server import serving
from participant_sdk.transport import ClientStream
from participant_sdk.xa import Decision
from tests.sdk.peers import CLOCK, EPOCH, NAME, Told, introduction, linked, memory, transfer


class Holding:
    """A transport that holds back what the participant sends, while it is told to."""

    def __init__(self, port: int) -> None:
        self._inner = GrpcTransport(f"127.0.0.1:{port}")
        self.open = asyncio.Event()
        self.open.set()
        self.held: deque[resource_pb2.SessionResponse] = deque()
        self.came = asyncio.Event()

    async def connect(self) -> ClientStream:
        return _HoldingStream(await self._inner.connect(), self)

    async def holds(self, count: int) -> None:
        """Return once so many welcomes are held."""
        async with asyncio.timeout(20):
            while len(self.held) < count:
                self.came.clear()
                await self.came.wait()


class _HoldingStream:
    def __init__(self, inner: ClientStream, holding: Holding) -> None:
        self._inner = inner
        self._holding = holding
        self._pump: asyncio.Task[None] | None = None

    async def send(self, frame: resource_pb2.SessionRequest) -> None:
        await self._inner.send(frame)
        if self._pump is None:
            self._pump = asyncio.create_task(self._read())

    async def receive(self) -> resource_pb2.SessionResponse:
        await self._holding.holds(1)
        await self._holding.open.wait()
        return self._holding.held.popleft()

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        await self._inner.close()

    async def _read(self) -> None:
        while True:
            self._holding.held.append(await self._inner.receive())
            self._holding.came.set()


async def test_a_welcome_to_an_earlier_introduction_is_not_told() -> None:
    """It was made before the log was reconnected to, and may lack what was applied since."""
    told = Told()
    async with serving(memory(), "127.0.0.1:0") as served:
        holding = Holding(served.port)
        async with linked(holding, told, timeout_s=20) as link:
            await told.up()
            one = transfer()
            link.prepare(one)
            await told.vote(one.xid)
            holding.open.clear()
            link.introduce()
            await holding.holds(1)
            link.commit(one.xid, EPOCH, 41)
            await holding.holds(2)
            link.introduce()
            await holding.holds(3)
            holding.open.set()
            await told.ack(Decision.COMMIT, one.xid)
            assert dict((await told.up(times=2)).watermarks) == {EPOCH: 41}
            assert len(told.welcomes) == 2


async def test_the_first_welcome_too_is_asked_for_again_if_it_is_outdated() -> None:
    """The log was reconnected to while the session was being opened."""
    told = Told()
    async with serving(memory(MemoryStore({"a": 1})), "127.0.0.1:0") as served:
        holding = Holding(served.port)
        holding.open.clear()
        async with linked(holding, told, timeout_s=20) as link:
            await holding.holds(1)
            link.introduce()
            holding.open.set()
            first = await told.up()
            assert link.is_up
            assert first.number == 2


async def test_an_introduction_that_only_brings_news_is_answered_and_not_told() -> None:
    """It leaves, and what it is owed is not sent again for it; one that is told takes the same frame."""
    told = Told()
    asked: list[Introduction] = []

    def say() -> Introduction:
        asked.append(introduction())
        return asked[-1]

    async with serving(memory(), "127.0.0.1:0") as served:
        link = Link(
            NAME,
            GrpcTransport(f"127.0.0.1:{served.port}"),
            say,
            told,
            clock=CLOCK,
            jitter=random.Random(1),
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(link.run())
            await told.up()
            link.introduce(is_told=False)
            await until_done(link, told)
            assert (len(asked), len(told.welcomes)) == (2, 1)
            link.introduce(is_told=False)
            link.introduce()
            await told.up(times=2)
            await until_done(link, told)
            assert (len(asked), len(told.welcomes)) == (3, 2)
            running.cancel()


async def until_done(link: Link, told: Told) -> None:
    """Have a branch voted on: whatever was queued before it has left, and been answered."""
    one = transfer()
    link.prepare(one)
    await told.vote(one.xid)
