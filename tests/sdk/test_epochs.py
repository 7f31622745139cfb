"""A new epoch overtakes nothing that has begun, and nothing of an older one begins after it (R15)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from participant_sdk.branch import BranchPhase
from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.inquiry import Inquiry
from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Commit, Prepare, Work
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.worker import Workers
from participant_sdk.xa import STALE, Ack, AckKind, DecisionState
from tests.sdk.peers import CLOCK, EPOCH, LOG_ID, NAME, Gate, introduction, transfer
from tests.sdk.test_workers import Answered

NEWER = Introduction(LOG_ID, "coordinator-2", EPOCH + 1, EPOCH + 1)


class Scene:
    """A participant with one worker, which a test can hold up in the midst of a batch."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.store = MemoryStore({"a": 1000, "b": 0}, gate=self.gate)
        self.resource = MemoryResource(NAME, self.store, CLOCK)
        self.logs = KnownLogs(self.resource, clock=CLOCK)
        self.workers = Workers(self.resource, clock=CLOCK, count=1)
        self.answered = Answered()

    async def prepared(self) -> Prepare:
        one = transfer()
        await self.resource.apply(Work(prepares=[one]))
        return one

    def commit(self, branch: Prepare, sequence: int) -> None:
        """What a session does with a Commit that it has let in."""
        self.workers.commit(Commit(LOG_ID, branch.xid, EPOCH, sequence, EPOCH), self.answered.acknowledged)

    async def welcomed(self) -> Welcome:
        return await self.logs.greet(NEWER, CLOCK.unix_ms())

    async def phase(self, branch: Prepare) -> BranchPhase:
        found = await self.resource.branch(LOG_ID, branch.xid)
        assert found is not None
        return found.phase


@asynccontextmanager
async def served() -> AsyncGenerator[Scene]:
    scene = Scene()
    await scene.logs.greet(introduction(), CLOCK.unix_ms())
    async with asyncio.TaskGroup() as group:
        working = group.create_task(scene.workers.run())
        yield scene
        working.cancel()
    assert not scene.resource.invariants()


async def test_a_new_epoch_is_reported_with_what_has_begun_and_stops_what_has_not() -> None:
    """Both Commits were let in while their epoch was the one held; the second one waits for its turn.

    A report without the first would have its transaction presumed rolled back at the others; so would any
    report, if the second were applied after it.
    """
    async with served() as scene:
        begun, queued = await scene.prepared(), await scene.prepared()
        scene.gate.shut()
        scene.commit(begun, 1)
        await scene.gate.reached.wait()
        scene.commit(queued, 2)
        async with asyncio.TaskGroup() as group:
            greeting = group.create_task(scene.welcomed())
            await _settled()
            assert not greeting.done()
            scene.gate.open.set()
        await scene.answered.all_of(0, 2)
        acks = dict[bytes, Ack](scene.answered.acks)
        assert acks[begun.xid].kind is AckKind.DONE
        assert acks[queued.xid] == STALE
        assert dict(greeting.result().watermarks) == {EPOCH: 1}
        assert await scene.phase(queued) is BranchPhase.PREPARED


async def test_an_answer_to_an_inquiry_is_of_its_epoch_too() -> None:
    """It is let in when it comes, and waits for its turn like any Commit."""
    async with served() as scene:
        held_up, doubtful, last = await scene.prepared(), await scene.prepared(), await scene.prepared()
        scene.gate.shut()
        scene.commit(held_up, 1)
        await scene.gate.reached.wait()
        inquiry = Inquiry(
            scene.resource,
            scene.workers,
            scene.logs,
            Committing(doubtful),
            clock=CLOCK,
            jitter=random.Random(1),
            addresses=["c1"],
        )
        await inquiry.look()
        assert scene.workers.queued == 1
        scene.commit(last, 3)
        async with asyncio.TaskGroup() as group:
            greeting = group.create_task(scene.welcomed())
            await _settled()
            scene.gate.open.set()
        await scene.answered.all_of(0, 2)
        assert dict(greeting.result().watermarks) == {EPOCH: 1}
        assert await scene.phase(doubtful) is BranchPhase.PREPARED


class Committing:
    """A coordinator of the old epoch that says COMMIT of one branch, and nothing of the others."""

    def __init__(self, branch: Prepare) -> None:
        self._branch = branch

    async def decision(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        state = DecisionState.COMMIT if query.xid == self._branch.xid else DecisionState.PENDING
        return DecisionAnswer(state, EPOCH, 2, address, EPOCH)


async def _settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)
