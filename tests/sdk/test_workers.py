"""A participant's workers: order, duplicates, deadlines, and what happens when the service's own code fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.batching import QUEUE_BOUND_DEFAULT
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.participant import (
    Answers,
    Branch,
    Commit,
    Operation,
    Participant,
    Prepare,
    RecoverQuery,
    Rollback,
    Work,
)
from participant_sdk.wire import BAD_RESULTS, VOTE_MAX_BYTES
from participant_sdk.worker import Workers
from participant_sdk.xa import DONE, PREPARED, Ack, AckKind, Decision, Vote, XaCode, business_no
from tests.sdk.peers import CLOCK, EPOCH, LOG_ID, NAME, branch, new_xid


class Recording(Participant):
    """A participant that keeps every ``Work``, and does with it what a test says."""

    name = NAME

    def __init__(self, answer: Callable[[Work], Answers] | None = None) -> None:
        self.works: list[Work] = []
        self.answer = answer or yes
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()

    async def apply(self, work: Work) -> Answers:
        self.works.append(work)
        self.begun.set()
        await self.gate.wait()
        return self.answer(work)

    async def prepare(self, branches: Sequence[Prepare]) -> Sequence[Vote]:
        return (await self.apply(Work(prepares=branches))).prepares

    async def commit(self, branches: Sequence[Commit]) -> Sequence[Ack]:
        return (await self.apply(Work(commits=branches))).commits

    async def rollback(self, branches: Sequence[Rollback]) -> Sequence[Ack]:
        return (await self.apply(Work(rollbacks=branches))).rollbacks

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        return ()

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        return None

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        return DONE

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        return DONE

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        return {}

    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        return epoch


class Answered:
    """The answers that came back, in order."""

    def __init__(self) -> None:
        self.votes: list[tuple[Xid, Vote]] = []
        self.acks: list[tuple[Xid, Ack]] = []
        self._changed = asyncio.Event()

    def voted(self, xid: Xid, vote: Vote) -> None:
        self.votes.append((xid, vote))
        self._changed.set()

    def acknowledged(self, xid: Xid, ack: Ack) -> None:
        self.acks.append((xid, ack))
        self._changed.set()

    async def all_of(self, votes: int, acks: int = 0) -> None:
        async with asyncio.timeout(10):
            while len(self.votes) < votes or len(self.acks) < acks:
                self._changed.clear()
                await self._changed.wait()


def yes(work: Work) -> Answers:
    return Answers([DONE] * len(work.commits), [DONE] * len(work.rollbacks), [PREPARED] * len(work.prepares))


def some_branch(*, xid: Xid | None = None, seconds: float = 30.0) -> Prepare:
    return branch(Operation(NAME, "read", "{}"), xid=xid, seconds=seconds)


class MovingClock:
    """The machine's clock, moved ahead by the test."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return CLOCK.monotonic_s() + self.ahead_s

    def unix_ms(self) -> int:
        return CLOCK.unix_ms()


@asynccontextmanager
async def working(participant: Participant, *, count: int = 2, clock: Clock = CLOCK) -> AsyncGenerator[Workers]:
    workers = Workers(participant, clock=clock, count=count)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(workers.run())
        yield workers
        task.cancel()


async def test_what_queued_while_a_round_was_under_way_makes_one_work() -> None:
    """One local transaction carries commits, rollbacks and prepares together, so they share one flush."""
    participant, answered = Recording(), Answered()
    participant.gate.clear()
    async with working(participant, count=1) as workers:
        workers.prepare(some_branch(), answered.voted)
        await participant.begun.wait()
        workers.prepare(some_branch(), answered.voted)
        workers.commit(Commit(LOG_ID, new_xid(), EPOCH, 1), answered.acknowledged)
        workers.rollback(Rollback(LOG_ID, new_xid()), answered.acknowledged)
        workers.prepare(some_branch(), answered.voted)
        assert workers.queued == 4
        participant.gate.set()
        await answered.all_of(3, 2)
    first, second = participant.works
    assert len(first.prepares) == 1
    assert (len(second.commits), len(second.rollbacks), len(second.prepares)) == (1, 1, 2)


async def test_an_xid_is_in_one_work_once_and_its_calls_keep_their_order() -> None:
    """A Prepare that comes twice, and its Rollback, run one after the other."""
    participant, answered = Recording(), Answered()
    one = some_branch()
    async with working(participant) as workers:
        workers.prepare(one, answered.voted)
        workers.prepare(one, answered.voted)
        workers.rollback(Rollback(LOG_ID, one.xid), answered.acknowledged)
        await answered.all_of(2, 1)
    assert [(len(w.prepares), len(w.rollbacks)) for w in participant.works] == [(1, 0), (1, 0), (0, 1)]


@given(data=st.data())
def test_one_xid_is_never_in_two_works_at_once(data: st.DataObject) -> None:
    """Whatever the arrivals, workers deal xids so that none is under way twice."""
    xids = [Xid.make(CLOCK.unix_ms(), EPOCH, number) for number in range(5)]
    arrivals = data.draw(st.lists(st.sampled_from(xids), max_size=40))
    asyncio.run(_race(arrivals))


async def _race(arrivals: Sequence[Xid]) -> None:
    under_way: dict[Xid, None] = {}

    class Racing(Recording):
        async def apply(self, work: Work) -> Answers:
            xids = [prepare.xid for prepare in work.prepares]
            assert len(dict.fromkeys(xids)) == len(xids)
            assert not [xid for xid in xids if xid in under_way]
            under_way.update(dict.fromkeys(xids))
            await asyncio.sleep(0)
            for xid in xids:
                del under_way[xid]
            return yes(work)

    answered = Answered()
    async with working(Racing(), count=3) as workers:
        for xid in arrivals:
            workers.prepare(some_branch(xid=xid), answered.voted)
        await answered.all_of(len(arrivals))
        assert not workers.failures


async def test_a_prepare_that_waited_too_long_is_not_run() -> None:
    """R16: expired in the queue, it is voted "no" without running."""
    participant, answered = Recording(), Answered()
    async with working(participant) as workers:
        workers.prepare(some_branch(seconds=-1), answered.voted)
        await answered.all_of(1)
    assert not participant.works
    assert (answered.votes[0][1].transient, answered.votes[0][1].xa_code) == (True, XaCode.RBTIMEOUT)


async def test_a_yes_that_comes_too_late_is_not_sent() -> None:
    """R16: a deadline that passed while the branch ran makes its yes a "no"; a "no" stays as it is."""
    answered, clock = Answered(), MovingClock()

    def slow(work: Work) -> Answers:
        clock.ahead_s = 60.0
        return yes(work)

    async with working(Recording(slow), clock=clock) as workers:
        workers.prepare(some_branch(seconds=59.0), answered.voted)
        await answered.all_of(1)
    assert (answered.votes[0][1].transient, answered.votes[0][1].xa_code) == (True, XaCode.RBTIMEOUT)


@pytest.mark.parametrize("results", [("x" * (VOTE_MAX_BYTES + 1),), ("\x01",), ("1",) * 101])
async def test_results_that_nobody_could_keep_are_a_no_that_says_so(results: tuple[str, ...]) -> None:
    """They go into the decision log; what does not fit there could never commit."""
    vote = PREPARED._replace(results=results)
    answered = Answered()
    async with working(Recording(lambda work: Answers(prepares=[vote] * len(work.prepares)))) as workers:
        workers.prepare(some_branch(), answered.voted)
        await answered.all_of(1)
        assert workers.failures == 1
    said = answered.votes[0][1]
    assert (said.reason, said.transient) == (BAD_RESULTS, True)
    assert NAME in said.message


async def test_a_business_no_stays_one_whatever_came_with_it() -> None:
    vote = business_no("INSUFFICIENT_FUNDS", "no")._replace(results=("x" * (VOTE_MAX_BYTES + 1),))
    answered = Answered()
    async with working(Recording(lambda work: Answers(prepares=[vote] * len(work.prepares)))) as workers:
        workers.prepare(some_branch(), answered.voted)
        await answered.all_of(1)
    assert answered.votes[0][1] == business_no("INSUFFICIENT_FUNDS", "no")


@pytest.mark.parametrize("bad_at", [0, 3, 6, 7])
async def test_one_bad_branch_fails_alone(bad_at: int) -> None:
    """R17: it gets its own "no"; commits and other prepares that travelled with it are done."""
    branches = [some_branch() for _ in range(8)]
    bad = branches[bad_at].xid
    answered = Answered()

    def fail_on_bad(work: Work) -> Answers:
        if any(prepare.xid == bad for prepare in work.prepares):
            raise RuntimeError("this one cannot be")
        return yes(work)

    participant = Recording(fail_on_bad)
    participant.gate.clear()
    async with working(participant, count=1) as workers:
        workers.rollback(Rollback(LOG_ID, new_xid()), answered.acknowledged)
        await participant.begun.wait()
        workers.commit(Commit(LOG_ID, new_xid(), EPOCH, 1), answered.acknowledged)
        for one in branches:
            workers.prepare(one, answered.voted)
        participant.gate.set()
        await answered.all_of(8, 2)
        assert workers.failures
        # The worker lives on.
        workers.prepare(some_branch(), answered.voted)
        await answered.all_of(9, 2)
    assert [ack.kind for _, ack in answered.acks] == [AckKind.DONE, AckKind.DONE]
    assert [xid for xid, vote in answered.votes if not vote.is_yes] == [bad]
    no = dict(answered.votes)[bad]
    assert (no.transient, no.reason) == (True, "PARTICIPANT_FAILED")
    assert NAME in no.message


async def test_a_participant_that_is_down_costs_few_attempts() -> None:
    """Where it is not one branch that is bad, nobody searches for it."""
    answered = Answered()

    def down(_: Work) -> Answers:
        raise ConnectionError("no database")

    participant = Recording(down)
    async with working(participant, count=1) as workers:
        for _ in range(100):
            workers.prepare(some_branch(), answered.voted)
        workers.commit(Commit(LOG_ID, new_xid(), EPOCH, 1), answered.acknowledged)
        await answered.all_of(100, 1)
    assert all(vote.transient for _, vote in answered.votes)
    assert answered.acks[0][1].kind is AckKind.RETRY
    assert len(participant.works) <= 5


async def test_answers_out_of_shape_are_no_answers() -> None:
    """A vote that cannot be told whose it is must not be anybody's."""
    answered = Answered()
    async with working(Recording(lambda _: Answers(prepares=[PREPARED, PREPARED]))) as workers:
        workers.prepare(some_branch(), answered.voted)
        await answered.all_of(1)
        assert workers.failures
    assert answered.votes[0][1].reason == "PARTICIPANT_FAILED"


@pytest.mark.parametrize("count", [0, 65])
def test_the_number_of_workers_is_bounded(count: int) -> None:
    with pytest.raises(ValueError, match="workers"):
        Workers(Recording(), clock=CLOCK, count=count)


async def test_a_full_queue_is_said_at_once_and_promises_nothing() -> None:
    """Queues are bounded: a full one is a transient "no", or RETRY, and not a growing process."""
    answered, workers = Answered(), Workers(Recording(), clock=CLOCK, count=1)
    one = some_branch()
    while not answered.votes:
        workers.prepare(one, answered.voted)
    workers.commit(Commit(LOG_ID, one.xid, EPOCH, 1), answered.acknowledged)
    workers.rollback(Rollback(LOG_ID, one.xid), answered.acknowledged)
    assert workers.queued == QUEUE_BOUND_DEFAULT
    assert (answered.votes[0][1].transient, answered.votes[0][1].reason) == (True, "PARTICIPANT_BUSY")
    assert [ack.kind for _, ack in answered.acks] == [AckKind.RETRY, AckKind.RETRY]
