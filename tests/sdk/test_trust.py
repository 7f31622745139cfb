"""A link and a participant that fails, or hangs: others' work is kept from it, and it is found again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from pincex.tx.v1 import resource_pb2

from participant_sdk.breaker import FAILURES_MAX, BreakerState
from participant_sdk.clock import Clock
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.link import Link
from participant_sdk.participant import Answers, Work
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.server import serving
from participant_sdk.transport import ClientStream, FrameTransport
from participant_sdk.trust import CIRCUIT_OPEN
from participant_sdk.xa import RETRY, Decision, transient_no
from tests.sdk.peers import CLOCK, EPOCH, NAME, Gate, Told, is_done, is_prepared, linked, memory, transfer

POISON: Final = "poison"


class Ailing(MemoryResource):
    """Answers with failures of its own while it is ill; a request named POISON always fails."""

    def __init__(self, store: MemoryStore, clock: Clock = CLOCK) -> None:
        super().__init__(NAME, store, clock)
        self.is_ill = False
        self.works = 0

    async def apply(self, work: Work) -> Answers:
        self.works += 1
        if self.is_ill:
            no = transient_no("PARTICIPANT_FAILED", "it is ill")
            return Answers([RETRY for _ in work.commits], [RETRY for _ in work.rollbacks], [no for _ in work.prepares])
        answers = await super().apply(work)
        votes = [
            transient_no("PARTICIPANT_FAILED", "poison") if prepare.request_id == POISON else vote
            for prepare, vote in zip(work.prepares, answers.prepares, strict=True)
        ]
        return Answers(answers.commits, answers.rollbacks, votes)


def ailing() -> Ailing:
    return Ailing(MemoryStore({"a": 1000, "b": 0}))


async def make_ill(resource: Ailing, link: Link, told: Told) -> None:
    """Fail prepares until the breaker is open."""
    resource.is_ill = True
    while link.breaker_state is BreakerState.CLOSED:
        one = transfer()
        link.prepare(one)
        await told.vote(one.xid)


async def test_a_failing_participant_is_spared_and_what_it_is_owed_is_sent_when_it_is_well() -> None:
    """Nothing is sent to it meanwhile; a probe finds it well, and ``link_up`` asks for all the rest again."""
    told, resource = Told(), ailing()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        owed = [transfer() for _ in range(3)]
        for one in owed:
            link.prepare(one)
            assert is_prepared(await told.vote(one.xid))
        await make_ill(resource, link, told)
        assert link.is_up
        assert "ill" in link.down_reason
        refused, works = transfer(), resource.works
        link.prepare(refused)
        link.commit(owed[0].xid, EPOCH, 1)
        vote = await told.vote(refused.xid)
        assert (vote.transient, vote.reason) == (True, CIRCUIT_OPEN)
        # Whatever left before an introduction arrived before it.
        for times in (2, 3):
            link.introduce()
            await told.up(times)
        assert resource.works == works
        assert (Decision.COMMIT, owed[0].xid) not in told.acks

        def send_owed() -> None:
            for sequence, one in enumerate(owed, 1):
                if (Decision.COMMIT, one.xid) not in told.acks:
                    link.commit(one.xid, EPOCH, sequence)

        told.when_up = send_owed
        resource.is_ill = False
        await told.until(lambda: all((Decision.COMMIT, one.xid) in told.acks for one in owed))
        assert link.breaker_state is BreakerState.CLOSED
        assert link.down_reason == ""
        assert all([is_done(await told.ack(Decision.COMMIT, one.xid)) for one in owed])


async def test_a_probe_that_fails_opens_it_again() -> None:
    told, resource = Told(), ailing()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        await make_ill(resource, link, told)
        probe = transfer()
        told.when_up = lambda: link.prepare(probe)
        assert (await told.vote(probe.xid)).reason == "PARTICIPANT_FAILED"
        assert link.breaker_state is BreakerState.OPEN


async def test_answers_of_phase_two_count_as_well() -> None:
    told, resource = Told(), ailing()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        resource.is_ill = True
        while link.breaker_state is BreakerState.CLOSED:
            one = transfer()
            link.rollback(one.xid)
            await told.ack(Decision.ROLLBACK, one.xid)


async def test_a_poison_transaction_among_good_ones_opens_nothing() -> None:
    """R17: others succeed, so the participant is well; and a "no" of the business is a success too."""
    told, resource = Told(), ailing()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        for _ in range(3):
            poison = [transfer()._replace(request_id=POISON, tenant=str(at)) for at in range(FAILURES_MAX - 1)]
            for one in [*poison, transfer("5000")]:
                link.prepare(one)
                await told.vote(one.xid)
        assert link.breaker_state is BreakerState.CLOSED


async def test_a_participant_that_was_away_is_trusted_at_once_when_it_is_back() -> None:
    """Its welcome was all that was missing: the first Prepares after it are not refused."""
    told, store = Told(), MemoryStore({"a": 1000, "b": 0})
    async with serving(memory(store), "127.0.0.1:0", grace_s=0) as served:
        port = served.port
    async with linked(port, told) as link:
        while link.breaker_state is not BreakerState.OPEN:
            one = transfer()
            link.prepare(one)
            assert (await told.vote(one.xid)).reason == "PARTICIPANT_UNREACHABLE"
        async with serving(memory(store), f"127.0.0.1:{port}"):
            await told.up()
            several = [transfer() for _ in range(5)]
            for one in several:
                link.prepare(one)
            assert all([is_prepared(await told.vote(one.xid)) for one in several])


class Counting(FrameTransport):
    """Counts the introductions that leave."""

    def __init__(self, port: int) -> None:
        self._inner = GrpcTransport(f"127.0.0.1:{port}")
        self.introductions = 0

    async def connect(self) -> ClientStream:
        return _CountingStream(await self._inner.connect(), self)


class _CountingStream:
    def __init__(self, inner: ClientStream, counting: Counting) -> None:
        self._inner = inner
        self._counting = counting

    async def send(self, frame: resource_pb2.SessionRequest) -> None:
        self._counting.introductions += frame.HasField("hello")
        await self._inner.send(frame)

    async def receive(self) -> resource_pb2.SessionResponse:
        return await self._inner.receive()

    async def close(self) -> None:
        await self._inner.close()


async def test_a_long_batch_is_no_hang() -> None:
    """The workers are busy past the silence; the session itself answers, so it is kept, and nobody is told."""
    told, gate = Told(), Gate()
    resource = memory(MemoryStore({"a": 1000, "b": 0}, gate=gate))
    async with serving(resource, "127.0.0.1:0") as served:
        counting = Counting(served.port)
        async with linked(counting, told, silence_s=0.05) as link:
            await told.up()
            gate.shut()
            slow = transfer()
            link.prepare(slow)
            while counting.introductions < 5:  # noqa: ASYNC110 - a transport has no event for us.
                await asyncio.sleep(0.01)
            assert link.is_up
            assert len(told.welcomes) == 1
            gate.open.set()
            assert is_prepared(await told.vote(slow.xid))


_STOPPABLE: Final = """
import asyncio
import sys

from participant_sdk.server import serving
from tests.sdk.peers import memory

async def main():
    async with serving(memory(), "127.0.0.1:0") as served:
        print(served.port, file=sys.stderr, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def in_a_process() -> AsyncGenerator[tuple[asyncio.subprocess.Process, int]]:
    """A participant in a process of its own, killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _STOPPABLE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        yield process, int(await process.stderr.readline())
    finally:
        process.kill()
        await process.wait()


async def test_a_stopped_participant_is_given_up_and_found_again() -> None:
    """TCP is alive and nothing answers: what waits is told "no", the link is down, and up again afterwards."""
    told = Told()
    async with in_a_process() as (process, port), linked(port, told, silence_s=0.3, timeout_s=0.5) as link:
        await told.up()
        os.kill(process.pid, signal.SIGSTOP)
        stuck = transfer()
        link.prepare(stuck)
        vote = await told.vote(stuck.xid)
        assert (vote.transient, vote.reason) == (True, "PARTICIPANT_UNREACHABLE")
        assert "owes answers" in await told.down()
        assert not link.is_up
        assert link.down_reason
        os.kill(process.pid, signal.SIGCONT)
        await told.up(times=2)
        fresh = transfer()
        link.prepare(fresh)
        assert is_prepared(await told.vote(fresh.xid))
