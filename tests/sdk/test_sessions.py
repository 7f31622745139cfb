"""A link and a participant over real gRPC: votes, acknowledgements, losing each other and finding each other again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

import grpc
import pytest
from pincex.tx.v1 import resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.branch import BranchPhase
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.hello import Introduction
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation, Prepare
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.server import serve, serving
from participant_sdk.transport import StreamClosedError
from participant_sdk.wire import write_introduction
from participant_sdk.xa import AckKind, Decision, VoteKind, XaCode
from tests.sdk.peers import (
    CLOCK,
    EPOCH,
    LOG_ID,
    NAME,
    Gate,
    Told,
    branch,
    introduction,
    is_done,
    is_prepared,
    linked,
    memory,
    new_xid,
    transfer,
    until_unreachable,
)


async def phase_of(resource: MemoryResource, xid: Xid) -> BranchPhase:
    found = await resource.branch(LOG_ID, xid)
    return BranchPhase.NONE if found is None else found.phase


async def test_a_branch_is_prepared_and_committed() -> None:
    """The plain case, in both directions: R8 and R9 are the resource's; the wire carries them."""
    told, resource = Told(), memory()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        welcome = await told.up()
        assert (welcome.participant, welcome.epoch, link.is_up) == (NAME, EPOCH, True)
        committed, rolled_back = transfer(), transfer()
        link.prepare(committed)
        link.prepare(rolled_back)
        assert is_prepared(await told.vote(committed.xid))
        assert is_prepared(await told.vote(rolled_back.xid))
        link.commit(committed.xid, EPOCH, 1)
        link.rollback(rolled_back.xid)
        assert is_done(await told.ack(Decision.COMMIT, committed.xid))
        assert is_done(await told.ack(Decision.ROLLBACK, rolled_back.xid))
    assert await phase_of(resource, committed.xid) is BranchPhase.COMMITTED
    assert await phase_of(resource, rolled_back.xid) is BranchPhase.ROLLED_BACK
    assert not resource.invariants()


async def test_votes_travel_with_their_reasons_and_results() -> None:
    """A "no" says why and where; results come back as they were given."""
    told = Told()
    async with serving(memory(), "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        poor, wrong, read = (
            transfer("5000"),
            branch(Operation(NAME, "transfer", "{}")),
            branch(Operation(NAME, "read", '{"account": "a"}')),
        )
        for one in (poor, wrong, read):
            link.prepare(one)
        no, invalid, seen = await told.vote(poor.xid), await told.vote(wrong.xid), await told.vote(read.xid)
    assert no.is_business_no
    assert no.reason == "INSUFFICIENT_FUNDS"
    assert (invalid.xa_code, invalid.field) == (XaCode.XAER_INVAL, "operations[0].parameters.from")
    assert seen.kind is VoteKind.READ_ONLY
    assert seen.results == ('{"balance": "1000", "available": "1000"}',)


async def test_many_branches_share_frames_and_all_are_answered() -> None:
    """Natural batching: what queues while a frame is on its way rides in the next, up to the cap."""
    told, resource = Told(), memory()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told, batch_size=16) as link:
        await told.up()
        branches = [transfer("0.5") for _ in range(500)]
        for one in branches:
            link.prepare(one)
        await told.until(lambda: len(told.votes) == len(branches))
        for sequence, one in enumerate(branches, 1):
            link.commit(one.xid, EPOCH, sequence)
        await told.until(lambda: len(told.acks) == len(branches))
    assert all(is_prepared(votes[0]) for votes in told.votes.values())
    assert all(is_done(acks[0]) for acks in told.acks.values())
    assert not resource.invariants()
    assert dict(await resource.watermarks(LOG_ID)) == {EPOCH: 500}


async def test_a_lost_session_answers_every_outstanding_prepare_and_the_link_comes_back() -> None:
    """R2: silence is a "no", and a transient one; afterwards the engine can send what it owes."""
    told, gate = Told(), Gate()
    store = MemoryStore({"a": 1000, "b": 0}, gate=gate)
    async with AsyncExitStack() as first:
        served = await first.enter_async_context(serving(memory(store), "127.0.0.1:0", grace_s=0))
        async with linked(served.port, told) as link:
            await told.up()
            decided, stuck = transfer(), transfer()
            link.prepare(decided)
            assert is_prepared(await told.vote(decided.xid))
            gate.shut()
            link.prepare(stuck)
            await gate.reached.wait()
            await first.aclose()
            reason = await told.down()
            vote = await told.vote(stuck.xid)
            assert (vote.transient, vote.reason, vote.unsent) == (True, "PARTICIPANT_UNREACHABLE", False)
            assert NAME in vote.message
            assert reason
            assert not link.is_up
            # Down: a Commit is dropped, a Prepare is refused, and not from within the call.
            link.commit(decided.xid, EPOCH, 1)
            refused = transfer()
            link.prepare(refused)
            assert refused.xid not in told.votes
            no = await told.vote(refused.xid)
            assert (no.reason, no.unsent) == ("PARTICIPANT_UNREACHABLE", True)
            gate.open.set()
            told.when_up = lambda: link.commit(decided.xid, EPOCH, 1)
            async with serving(memory(store), f"127.0.0.1:{served.port}"):
                await told.up(times=2)
                assert is_done(await told.ack(Decision.COMMIT, decided.xid))


async def test_what_is_too_late_to_be_sent_is_voted_no_by_the_link() -> None:
    """R16: what remains is computed when the frame leaves, and nothing left is a "no" at once."""
    told, resource = Told(), memory()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        late = transfer(seconds=-0.001)
        link.prepare(late)
        vote = await told.vote(late.xid)
    assert (vote.reason, vote.transient, vote.xa_code, vote.unsent) == ("TIMEOUT", True, XaCode.RBTIMEOUT, True)
    assert await phase_of(resource, late.xid) is BranchPhase.NONE


async def test_a_bad_branch_gets_its_own_no_and_fails_nothing_else() -> None:
    """R17: fields that are wrong in themselves are refused branch by branch, and named."""
    told = Told()
    elsewhere = branch(Operation("trading", "transfer", "{}"))
    unnamed = branch(Operation(NAME, "", "{}"))
    oversized = branch(Operation(NAME, "transfer", "x" * 70_000))
    too_many = branch(*[Operation(NAME, "read", '{"account": "a"}')] * 101)
    both = Prepare(LOG_ID, new_xid(), (Operation(NAME, "fail", "{}"),), CLOCK.monotonic_s() + 9, ends_work=True)
    nowhere = transfer()._replace(participants=("NOT A NAME",))
    good = transfer()
    bad = {
        elsewhere.xid: "operations[0].service",
        unnamed.xid: "operations[0].operation",
        oversized.xid: "operations[0].parameters",
        too_many.xid: "operations",
        both.xid: "ends_work",
        nowhere.xid: "participants[0]",
    }
    async with serving(memory(), "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        for one in (elsewhere, unnamed, oversized, too_many, good, both, nowhere):
            link.prepare(one)
        assert is_prepared(await told.vote(good.xid))
        for xid, field in bad.items():
            vote = await told.vote(xid)
            assert (vote.field, vote.xa_code, vote.is_business_no) == (field, XaCode.XAER_INVAL, True)


async def test_frames_grow_to_their_bound_and_not_past_it() -> None:
    """Big branches are spread over frames; one past every bound is refused by the link itself."""
    told = Told()
    padding = " " * 60_000
    big = [branch(*[Operation(NAME, "read", f'{{"account": "a"}}{padding}')] * 16) for _ in range(6)]
    huge = branch(*[Operation(NAME, "read", f'{{"account": "a"}}{padding}')] * 18)
    async with serving(memory(), "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        for one in (*big, huge):
            link.prepare(one)
        for one in big:
            assert (await told.vote(one.xid)).kind is VoteKind.READ_ONLY
        vote = await told.vote(huge.xid)
        assert not told.reasons
    assert (vote.reason, vote.field) == ("TOO_LARGE", "operations")


async def test_an_xid_past_the_window_is_refused() -> None:
    """R10: a Prepare older than an hour could meet a pruned tombstone."""
    told = Told()
    old = transfer(xid=Xid.make(CLOCK.unix_ms() - 3_700_000, EPOCH, 1))
    async with serving(memory(), "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        link.prepare(old)
        vote = await told.vote(old.xid)
    assert (vote.reason, vote.transient) == ("XID_TOO_OLD", True)


async def test_an_xid_from_the_future_is_refused() -> None:
    """R10: its window would close too late, long after its tombstone may be pruned."""
    told = Told()
    early = transfer(xid=Xid.make(CLOCK.unix_ms() + 100_000, EPOCH, 1))
    async with serving(memory(), "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        link.prepare(early)
        vote = await told.vote(early.xid)
    assert (vote.reason, vote.transient) == ("XID_FROM_THE_FUTURE", True)


async def test_a_late_prepare_after_its_rollback_stays_rolled_back() -> None:
    """R10: the Rollback leaves a tombstone, whatever order the calls come in."""
    told = Told()
    async with serving(memory(), "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        late = transfer()
        link.rollback(late.xid)
        assert is_done(await told.ack(Decision.ROLLBACK, late.xid))
        link.prepare(late)
        assert (await told.vote(late.xid)).kind is VoteKind.ROLLED_BACK


async def test_a_rollback_takes_back_a_prepare_that_has_not_left() -> None:
    """A branch that is to be undone need not be done first."""
    told, resource = Told(), memory()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        one = transfer()
        link.prepare(one)
        link.rollback(one.xid)
        assert is_done(await told.ack(Decision.ROLLBACK, one.xid))
        assert one.xid not in told.votes


async def test_a_reintroduction_reports_watermarks_again() -> None:
    """R15: a coordinator that reconnected to its log hears anew what each participant has applied."""
    told = Told()
    async with serving(memory(), "127.0.0.1:0") as served, linked(served.port, told) as link:
        assert not (await told.up()).watermarks
        one = transfer()
        link.prepare(one)
        await told.vote(one.xid)
        link.commit(one.xid, EPOCH, 41)
        await told.ack(Decision.COMMIT, one.xid)
        link.introduce()
        assert dict((await told.up(times=2)).watermarks) == {EPOCH: 41}


async def test_a_coordinator_of_an_older_epoch_gets_retry_and_changes_nothing() -> None:
    """R15: commits carry the epoch of their frame, and a participant refuses lower ones."""
    told, resource = Told(), memory()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        one = transfer()
        link.prepare(one)
        await told.vote(one.xid)
        newer = Introduction(LOG_ID, "coordinator-2", EPOCH + 1, EPOCH + 1)
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{served.port}")
        async with channel:
            request = resource_pb2.HelloRequest(
                log_id=newer.log_id,
                coordinator=newer.coordinator,
                incarnation=newer.incarnation,
                epoch=newer.epoch,
                clock_unix_ms=CLOCK.unix_ms(),
            )
            assert (await ResourceServiceStub(channel).Hello(request)).epoch == EPOCH + 1
        link.commit(one.xid, EPOCH, 1)
        late = transfer()
        link.prepare(late)
        assert (await told.ack(Decision.COMMIT, one.xid)).kind is AckKind.RETRY
        assert (await told.vote(late.xid)).reason == "EPOCH_STALE"
        link.introduce()
        assert "EPOCH_STALE" in await told.down()
    assert await phase_of(resource, one.xid) is BranchPhase.PREPARED


class SkewedClock:
    """A wall clock that is wrong."""

    def __init__(self, ahead_ms: int) -> None:
        self._ahead_ms = ahead_ms

    def monotonic_s(self) -> float:
        return CLOCK.monotonic_s()

    def unix_ms(self) -> int:
        return CLOCK.unix_ms() + self._ahead_ms


@pytest.mark.parametrize("ahead_ms", [-70_000, 70_000])
async def test_clocks_more_than_a_minute_apart_are_refused(ahead_ms: int) -> None:
    """R10: an xid's age would mean nothing."""
    told = Told()
    async with (
        serving(memory(), "127.0.0.1:0") as served,
        linked(served.port, told, clock=SkewedClock(ahead_ms)) as link,
    ):
        await until_unreachable(link, told, "CLOCKS_APART")
        assert not link.is_up


class Away(MemoryResource):
    """Its store is away for the first calls, at one place or the other."""

    away_for = 2

    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        self._fail(2)
        return await super().adopt_epoch(log_id, epoch)

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        self._fail(1)
        return await super().watermarks(log_id)

    def _fail(self, at: int) -> None:
        if self.away_for == at:
            self.away_for -= 1
            raise ConnectionError("no database")


async def test_a_participant_whose_store_is_away_is_met_when_it_is_back() -> None:
    """No epoch durable, no watermarks read: no welcome (R15). The coordinator comes again."""
    told = Told()
    async with serving(Away(NAME, MemoryStore(), CLOCK), "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        assert link.is_up


async def test_serve_runs_until_it_is_cancelled() -> None:
    """The plain way to run a participant's process."""
    async with AsyncExitStack() as stack:
        async with serving(memory(), "127.0.0.1:0") as free:
            port = free.port
        group = await stack.enter_async_context(asyncio.TaskGroup())
        task = group.create_task(serve(memory(), f"127.0.0.1:{port}"))
        told = Told()
        async with linked(port, told):
            await told.up()
        task.cancel()


async def test_another_participant_at_the_address_is_no_participant_of_ours() -> None:
    """Work for one service must never run at another, however the addresses are mixed up."""
    told = Told()
    async with serving(memory(), "127.0.0.1:0") as served, linked(served.port, told, name="trading") as link:
        await until_unreachable(link, told, "not 'trading'")
        assert not told.welcomes


async def test_cancelling_a_link_closes_its_session_and_channel() -> None:
    """Its owner is leaving: nothing more is told, nothing stays open."""
    told = Told()
    async with serving(memory(), "127.0.0.1:0") as served:
        async with linked(served.port, told):
            await told.up()
        assert not told.reasons


async def test_connecting_to_nothing_fails_soon() -> None:
    """An address nobody listens on is a reason, not a hang."""
    async with asyncio.timeout(5):
        with pytest.raises(StreamClosedError):
            await GrpcTransport("127.0.0.1:1").connect()


async def test_coordinators_that_vanish_while_they_are_answered_end_their_sessions_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the midst of a write gRPC raises an error of its own kind, which is the end of a stream like any other."""
    async with serving(memory(), "127.0.0.1:0") as served:
        for at in range(200):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
                call = ResourceServiceStub(channel).Session()
                hello = write_introduction(introduction(), CLOCK.unix_ms())
                for _ in range(1 + at % 4):
                    await call.write(resource_pb2.SessionRequest(hello=hello, epoch=EPOCH))
                await call.read()
                for _ in range(at % 5):
                    await asyncio.sleep(0)
                call.cancel()
    assert [record.getMessage() for record in caplog.records if "raised by servicer" in record.getMessage()] == []
