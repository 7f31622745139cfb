"""Both ends of a link for tests: an engine that remembers what it was told, and participants to talk to."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import grpc
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceServicer, add_ResourceServiceServicer_to_server

from participant_sdk.clock import Clock, SystemClock
from participant_sdk.grpc_options import SERVER_OPTIONS
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.link import Link
from participant_sdk.participant import Operation, Prepare
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.silence import SILENCE_S
from participant_sdk.transport import FrameTransport
from participant_sdk.xa import Ack, AckKind, Decision, Vote, VoteKind

LOG_ID: Final = "00000000000000aa"
NAME: Final = "memory"
EPOCH: Final = 7
CLOCK: Final = SystemClock()

_numbers = itertools.count(1)


class Told:
    """An engine that only remembers, and can be waited for. Implements ``LinkEvents``."""

    def __init__(self) -> None:
        self.votes: dict[Xid, list[Vote]] = {}
        self.acks: dict[tuple[Decision, Xid], list[Ack]] = {}
        self.welcomes: list[Welcome] = []
        self.reasons: list[str] = []
        self.epochs: list[tuple[str, int]] = []
        self.when_up: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()

    def voted(self, participant: str, votes: Sequence[tuple[Xid, Vote]]) -> None:
        for xid, vote in votes:
            self.votes.setdefault(xid, []).append(vote)
        self._changed.set()

    def acknowledged(self, participant: str, verb: Decision, acks: Sequence[tuple[Xid, Ack]]) -> None:
        for xid, ack in acks:
            self.acks.setdefault((verb, xid), []).append(ack)
        self._changed.set()

    def link_up(self, participant: str, welcome: Welcome) -> None:
        self.welcomes.append(welcome)
        self.when_up()
        self._changed.set()

    def link_down(self, participant: str, reason: str) -> None:
        self.reasons.append(reason)
        self._changed.set()

    def epoch_ahead(self, participant: str, epoch: int) -> None:
        self.epochs.append((participant, epoch))
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once the condition holds; it is looked at after every call."""
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def up(self, times: int = 1) -> Welcome:
        await self.until(lambda: len(self.welcomes) >= times)
        return self.welcomes[times - 1]

    async def down(self, times: int = 1) -> str:
        await self.until(lambda: len(self.reasons) >= times)
        return self.reasons[times - 1]

    async def vote(self, xid: Xid) -> Vote:
        await self.until(lambda: xid in self.votes)
        return self.votes[xid][0]

    async def ack(self, verb: Decision, xid: Xid) -> Ack:
        await self.until(lambda: (verb, xid) in self.acks)
        return self.acks[verb, xid][0]


class Gate:
    """A disk's flush that waits until it is let through."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.reached = asyncio.Event()

    def shut(self) -> None:
        self.open.clear()
        self.reached.clear()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


def new_xid() -> Xid:
    return Xid.make(CLOCK.unix_ms(), EPOCH, next(_numbers))


def introduction() -> Introduction:
    return Introduction(LOG_ID, "coordinator-1", EPOCH, EPOCH, ("127.0.0.1:1",))


def transfer(amount: str = "1", *, xid: Xid | None = None, seconds: float = 30.0) -> Prepare:
    operation = Operation(NAME, "transfer", f'{{"from": "a", "to": "b", "amount": "{amount}"}}')
    return branch(operation, xid=xid, seconds=seconds)


def branch(*operations: Operation, xid: Xid | None = None, seconds: float = 30.0) -> Prepare:
    return Prepare(LOG_ID, xid or new_xid(), operations, CLOCK.monotonic_s() + seconds, (NAME,))


def memory(store: MemoryStore | None = None, clock: Clock = CLOCK) -> MemoryResource:
    return MemoryResource(NAME, store or MemoryStore({"a": 1000, "b": 0}), clock)


@asynccontextmanager
async def linked(
    transport: FrameTransport | int,
    told: Told,
    *,
    name: str = NAME,
    clock: Clock = CLOCK,
    batch_size: int = 512,
    timeout_s: float = 2.0,
    silence_s: float = SILENCE_S,
) -> AsyncGenerator[Link]:
    """Run a link to a port, or over a transport, until the block ends."""
    if isinstance(transport, int):
        transport = GrpcTransport(f"127.0.0.1:{transport}")
    link = Link(
        name,
        transport,
        introduction,
        told,
        clock=clock,
        jitter=random.Random(1),
        batch_size=batch_size,
        connect_timeout_s=timeout_s,
        silence_s=silence_s,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(link.run())
        try:
            yield link
        finally:
            task.cancel()


async def until_unreachable(link: Link, told: Told, reason: str) -> None:
    """Ask for branches until the link has learned this reason for being down."""
    while True:
        one = transfer()
        link.prepare(one)
        vote = await told.vote(one.xid)
        assert vote.reason == "PARTICIPANT_UNREACHABLE", vote
        if reason in vote.message:
            return


@asynccontextmanager
async def hosted(servicer: ResourceServiceServicer, *, port: int = 0) -> AsyncGenerator[int]:
    """Serve a hand-written servicer; yields its port, and kills it at the end."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_ResourceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def is_prepared(vote: Vote) -> bool:
    return vote.kind is VoteKind.PREPARED


def is_done(ack: Ack) -> bool:
    return ack.kind is AckKind.DONE
