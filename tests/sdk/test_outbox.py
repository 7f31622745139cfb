"""What a link sends when: Prepares once something was answered, or that takes too long; nobody's end waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from pincex.tx.v1 import resource_pb2

from participant_sdk import outbox
from participant_sdk.hello import Welcome
from participant_sdk.ids import Xid
from participant_sdk.link import Link
from participant_sdk.participant import Prepare
from participant_sdk.wire import write_welcome
from participant_sdk.xa import Decision
from tests.sdk.peers import CLOCK, EPOCH, NAME, Told, linked, new_xid, transfer

FOR_EVER_S: Final = 3600.0


class Silent:
    """A transport and its stream in one, to a participant that says hello, and else only what a test has it say."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[resource_pb2.SessionRequest] = asyncio.Queue()
        self._answers: asyncio.Queue[resource_pb2.SessionResponse] = asyncio.Queue()

    async def connect(self) -> Silent:
        return self

    async def send(self, frame: resource_pb2.SessionRequest) -> None:
        if not frame.HasField("hello"):
            self.frames.put_nowait(frame)
            return
        welcome = Welcome(NAME, CLOCK.unix_ms(), frame.epoch, {}, (), session=True, number=frame.hello.number)
        self._answers.put_nowait(resource_pb2.SessionResponse(hello=write_welcome(welcome)))

    async def receive(self) -> resource_pb2.SessionResponse:
        return await self._answers.get()

    async def close(self) -> None:
        return

    def vote(self, branch: Prepare) -> None:
        self._answers.put_nowait(resource_pb2.SessionResponse(votes=resource_pb2.VoteBatch(prepared_xids=branch.xid)))

    def acknowledge(self, xid: Xid) -> None:
        self._answers.put_nowait(resource_pb2.SessionResponse(commit_acks=resource_pb2.AckBatch(done_xids=xid)))

    async def sent(self) -> resource_pb2.SessionRequest:
        """The next frame; it must come."""
        async with asyncio.timeout(20):
            return await self.frames.get()

    async def sends_nothing(self) -> None:
        """Let everything run that could send a frame now."""
        for _ in range(50):
            await asyncio.sleep(0)
        assert self.frames.empty()


@asynccontextmanager
async def talking(usual_s: float = FOR_EVER_S) -> AsyncGenerator[tuple[Silent, Link, Told]]:
    """Talk to a participant whose answers usually take so long; 0 if it is not known yet."""
    told, silent = Told(), Silent()
    async with linked(silent, told) as link:
        await told.up()
        link._outbox._usual_s = usual_s  # pyright: ignore[reportPrivateUsage]  Tests cannot wait for the usual.
        yield silent, link, told


@pytest.fixture(name="patient")
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "USUAL_MAX_S", FOR_EVER_S)


def xids(frame: resource_pb2.SessionRequest) -> bytes:
    return frame.prepares.xids


@pytest.mark.usefixtures("patient")
async def test_prepares_wait_for_an_answer_and_then_leave_together() -> None:
    first, second, third = transfer(), transfer(), transfer()
    async with talking() as (silent, link, told):
        link.prepare(first)
        assert xids(await silent.sent()) == first.xid
        link.prepare(second)
        link.prepare(third)
        await silent.sends_nothing()
        silent.vote(first)
        assert xids(await silent.sent()) == second.xid + third.xid
        await told.vote(first.xid)


@pytest.mark.usefixtures("patient")
async def test_an_answer_to_a_part_of_the_frame_is_enough() -> None:
    """What blocks one branch at the participant, such as another's row, keeps no others here."""
    blocked, quick, other = transfer(), transfer(), transfer()
    async with talking() as (silent, link, _):
        link.prepare(blocked)
        link.prepare(quick)
        assert xids(await silent.sent()) == blocked.xid + quick.xid
        link.prepare(other)
        silent.vote(quick)
        assert xids(await silent.sent()) == other.xid


@pytest.mark.usefixtures("patient")
async def test_a_commit_waits_for_nothing_and_takes_prepares_along() -> None:
    """It may free the very row that the unanswered Prepare waits for."""
    blocked, other, decided = transfer(), transfer(), new_xid()
    async with talking() as (silent, link, told):
        link.prepare(blocked)
        await silent.sent()
        link.prepare(other)
        await silent.sends_nothing()
        link.commit(decided, EPOCH, 41)
        frame = await silent.sent()
        assert (frame.commits[0].xids, xids(frame)) == (decided, other.xid)
        silent.acknowledge(decided)
        await told.ack(Decision.COMMIT, decided)


@pytest.mark.usefixtures("patient")
async def test_enough_of_them_wait_for_nothing() -> None:
    """The participant would be without work until it has answered and they have come."""
    first = transfer()
    many = [transfer() for _ in range(outbox.ENOUGH)]
    async with talking() as (silent, link, _):
        link.prepare(first)
        await silent.sent()
        for branch in many[:-1]:
            link.prepare(branch)
        await silent.sends_nothing()
        link.prepare(many[-1])
        assert xids(await silent.sent()) == b"".join(branch.xid for branch in many)


@pytest.mark.usefixtures("patient")
async def test_a_rollback_waits_for_nothing() -> None:
    blocked, undone = transfer(), new_xid()
    async with talking() as (silent, link, _):
        link.prepare(blocked)
        await silent.sent()
        link.rollback(undone)
        assert (await silent.sent()).rollbacks.xids == undone


@pytest.mark.parametrize("usual_s", [0.01, 0.0, FOR_EVER_S])
async def test_prepares_leave_without_any_answer(usual_s: float) -> None:
    """After twice the usual time; at once where it is not known, or so long that the participant waits, not works."""
    blocked, other = transfer(), transfer()
    async with talking(usual_s) as (silent, link, _):
        link.prepare(blocked)
        await silent.sent()
        link.prepare(other)
        assert xids(await silent.sent()) == other.xid


async def test_what_is_usual_is_learnt_and_changes() -> None:
    queue = outbox.Outbox()
    for pause_s in (0.0, 0.2):
        queue.left()
        await asyncio.sleep(pause_s)
        queue.answered()
        queue.answered()
        usual_s = queue._usual_s  # pyright: ignore[reportPrivateUsage]  Nobody is told of it.
        assert pause_s * 0.19 < usual_s
    queue.clear()


@pytest.mark.usefixtures("patient")
async def test_a_greeting_neither_holds_nor_releases() -> None:
    """It is answered at once, however busy the participant is."""
    blocked, other = transfer(), transfer()
    async with talking() as (silent, link, told):
        link.introduce()
        await told.up(2)
        link.prepare(blocked)
        await silent.sent()
        link.prepare(other)
        await silent.sends_nothing()
        silent.vote(blocked)
        assert xids(await silent.sent()) == other.xid


@pytest.mark.usefixtures("patient")
async def test_what_a_frame_has_no_place_for_waits_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "FRAME_BYTES", 1)
    first, second = transfer(), transfer()
    async with talking() as (silent, link, _):
        link.prepare(first)
        link.prepare(second)
        assert xids(await silent.sent()) == first.xid
        await silent.sends_nothing()
        silent.vote(first)
        assert xids(await silent.sent()) == second.xid


async def test_what_was_left_over_leaves_where_nothing_is_held_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual time has become so long meanwhile: without it they would wait for an answer that may not come."""
    monkeypatch.setattr(outbox, "FRAME_BYTES", 1)
    first, second = transfer(), transfer()
    queue = outbox.Outbox()
    queue._usual_s = outbox.USUAL_MAX_S  # pyright: ignore[reportPrivateUsage]  As if it had been learnt.
    queue.left()
    queue.prepare(first, 1)
    queue.prepare(second, 1)
    queue._usual_s = FOR_EVER_S  # pyright: ignore[reportPrivateUsage]  And learnt anew.
    assert queue.take(512).prepares == [first]
    queue.left()
    async with asyncio.timeout(20):
        await queue.wait()
    assert queue.take(512).prepares == [second]


@pytest.mark.usefixtures("patient")
async def test_a_frame_of_which_nothing_was_left_in_time_holds_nothing_up() -> None:
    late, other = transfer(seconds=-1), transfer()
    async with talking() as (silent, link, told):
        link.prepare(late)
        assert (await told.vote(late.xid)).reason == "TIMEOUT"
        link.prepare(other)
        assert xids(await silent.sent()) == other.xid


@pytest.mark.usefixtures("patient")
async def test_a_new_session_begins_with_nothing_held() -> None:
    queue = outbox.Outbox()
    queue._usual_s = 1.0  # pyright: ignore[reportPrivateUsage]  As if it had been learnt.
    queue.prepare(transfer(), 1)
    queue.take(1)
    queue.left()
    queue.clear()
    queue.prepare(transfer(), 1)
    async with asyncio.timeout(20):
        await queue.wait()
