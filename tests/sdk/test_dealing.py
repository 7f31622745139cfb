"""Prepares that wait for another branch's end: they hold up neither that end nor the votes beside them."""

from __future__ import annotations

import asyncio

import pytest

from participant_sdk.batching import QUEUE_BOUND_DEFAULT
from participant_sdk.ids import Xid
from participant_sdk.participant import Answers, Commit, Rollback, Work
from participant_sdk.worker import Workers
from participant_sdk.xa import AckKind
from tests.sdk.peers import CLOCK, EPOCH, LOG_ID, new_xid
from tests.sdk.test_workers import Answered, Recording, some_branch, working, yes


class Waiting(Recording):
    """A participant whose Prepares of ``stuck`` wait until somebody commits."""

    prepares_at_once = 6

    def __init__(self, *stuck: Xid) -> None:
        super().__init__()
        self.stuck = stuck
        self.released = asyncio.Event()

    async def apply(self, work: Work) -> Answers:
        self.works.append(work)
        if work.commits:
            self.released.set()
        if any(prepare.xid in self.stuck for prepare in work.prepares):
            await self.released.wait()
        return yes(work)


def a_commit() -> Commit:
    return Commit(LOG_ID, new_xid(), EPOCH, 1)


async def test_votes_and_ends_pass_a_prepare_that_waits_for_one_of_them() -> None:
    """The vote beside it is sent, and the Commit that follows is done: else only a time-out would part them."""
    quick, stuck = some_branch(), some_branch()
    answered = Answered()
    async with working(Waiting(stuck.xid), count=1) as workers:
        workers.prepare(quick, answered.voted)
        workers.prepare(stuck, answered.voted)
        await answered.all_of(1)
        assert [xid for xid, _ in answered.votes] == [quick.xid]
        workers.commit(a_commit(), answered.acknowledged)
        await answered.all_of(2, 1)
    assert [xid for xid, _ in answered.votes] == [quick.xid, stuck.xid]
    assert [ack.kind for _, ack in answered.acks] == [AckKind.DONE]


async def test_more_prepares_wait_than_may_run_at_once_and_others_pass_them() -> None:
    """However many wait: what would release them may itself be a Prepare away from its vote."""
    stuck = [some_branch() for _ in range(3 * Waiting.prepares_at_once)]
    quick, answered = some_branch(), Answered()
    async with working(Waiting(*[each.xid for each in stuck])) as workers:
        for each in [*stuck, quick]:
            workers.prepare(each, answered.voted)
        await answered.all_of(1)
        assert [xid for xid, _ in answered.votes] == [quick.xid]
        workers.commit(a_commit(), answered.acknowledged)
        await answered.all_of(1 + len(stuck), 1)


async def test_calls_of_one_xid_take_turns() -> None:
    """A Rollback waits for the Prepare of its own branch, which would not know of it."""
    one, answered = some_branch(), Answered()
    participant = Waiting(one.xid)
    async with working(participant) as workers:
        for _ in range(2):
            workers.prepare(one, answered.voted)
        workers.rollback(Rollback(LOG_ID, one.xid), answered.acknowledged)
        workers.commit(a_commit(), answered.acknowledged)
        await answered.all_of(2, 2)
        assert workers.queued == 0
    ours = [work for work in participant.works if not work.commits]
    assert [(len(work.prepares), len(work.rollbacks)) for work in ours] == [(1, 0), (1, 0), (0, 1)]


async def test_prepares_that_came_together_run_side_by_side_and_each_by_itself() -> None:
    participant, answered = Waiting(), Answered()
    async with working(participant) as workers:
        for _ in range(20):
            workers.prepare(some_branch(), answered.voted)
        await answered.all_of(20)
    assert [len(work.prepares) for work in participant.works] == [1] * 20


async def test_who_stops_the_workers_stops_the_prepares_that_wait() -> None:
    stuck = some_branch()
    participant, answered = Waiting(stuck.xid), Answered()
    async with asyncio.timeout(10):
        async with working(participant) as workers:
            workers.prepare(some_branch(), answered.voted)
            workers.prepare(stuck, answered.voted)
            await answered.all_of(1)
    assert len(answered.votes) == 1


@pytest.mark.parametrize("is_one", [True, False])
async def test_what_is_not_answered_yet_is_bounded(*, is_one: bool) -> None:
    """Of one branch, or of many: a full queue is a transient "no", or RETRY, at once."""
    answered, workers = Answered(), Workers(Waiting(), clock=CLOCK, count=1)
    one = some_branch()
    for _ in range(QUEUE_BOUND_DEFAULT):
        workers.prepare(one if is_one else one._replace(xid=new_xid()), answered.voted)
    assert not answered.votes
    workers.prepare(some_branch(), answered.voted)
    workers.commit(a_commit(), answered.acknowledged)
    assert (answered.votes[0][1].transient, answered.votes[0][1].reason) == (True, "PARTICIPANT_BUSY")
    assert [ack.kind for _, ack in answered.acks] == [AckKind.RETRY]
