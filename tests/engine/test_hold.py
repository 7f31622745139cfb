"""R15: a log that lost its tail is noticed, held and released, over real links and participants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc
import pytest
from pincex.tx.v1 import common_pb2, resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from coordinator import canonical
from coordinator.errors import InvalidRequestError, RefusedError, UnavailableError
from coordinator.hold import PAGE
from coordinator.log.ended import FencedError
from coordinator.metrics import Count
from coordinator.passes import Scope
from coordinator.protocol.phases import Phase
from coordinator.requests import ExecuteCall
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch
from participant_sdk.xa import Decision, DecisionState
from tests.engine.lost_tail import BOTH, Life, Predecessor, life, operations, predecessor
from tests.engine.recovering import LEFT, LOG_ID, RIGHT, World, until, world

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as found:
        yield found


async def lose_tail(around: World, request_id: str = "order-1") -> tuple[Predecessor, Xid]:
    """COMMIT is written, one participant applies it, the other is in doubt; then the log forgets it."""
    gone = await predecessor(around)
    backup = around.log.copy()
    xid = await gone.prepare(request_id)
    await gone.decide(xid, request_id)
    await gone.tell(xid, LEFT)
    around.log.restore(backup, new_timeline=False)
    return gone, xid


async def in_hold(around: World) -> None:
    """Have a coordinator come upon the loss."""
    async with life(around) as first:
        await first.ended()
    assert around.log.tables.held


def call(request_id: str = "") -> ExecuteCall:
    digest = canonical.digest(operations()) if request_id else b""
    return ExecuteCall(operations(), 30.0, request_id=request_id, digest=digest)


async def looked(node: Life) -> None:
    """Wait until the coordinator has seen how the log stands, and both participants have welcomed it."""
    await until(lambda: node.assembly.life.standing is not None)
    await until(lambda: all(link.is_up for link in node.assembly.links.values()))


async def test_a_participant_ahead_of_the_log_puts_it_in_hold(around: World) -> None:
    """An unannounced restore: nothing but the watermark shows it."""
    gone, _ = await lose_tail(around)
    async with life(around) as first:
        ended = await first.ended()
    assert isinstance(ended, FencedError)
    assert "HOLD" in str(ended)
    assert "runbook" in str(ended)
    reason = around.log.tables.held
    assert LEFT in reason
    assert str(gone.incarnation.number) in reason
    assert all(not row.is_live for row in around.log.tables.incarnations.values())
    assert first.counted(Count.AHEAD, LEFT) >= 1
    assert first.counted(Count.AHEAD, RIGHT) == 0


async def test_in_hold_nothing_is_presumed_and_nothing_begins(around: World) -> None:
    _, xid = await lose_tail(around)
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        assembly = node.assembly
        await until(lambda: assembly.reports.reported(RIGHT))
        with pytest.raises(UnavailableError, match=r"HOLD.*release"):
            assembly.engine.execute(call())
        with pytest.raises(UnavailableError, match="HOLD"):
            assembly.engine.begin(30.0, "default", "")
        assert (await assembly.inquiries.decision(xid, BOTH)).state is DecisionState.PENDING
        with pytest.raises(UnavailableError, match="HOLD"):
            await assembly.inquiries.transaction(xid)
        assert not assembly.reports.reported(LEFT)
        assert assembly.reports.missing() == (LEFT,)
        assert around.phase(RIGHT, xid) is BranchPhase.PREPARED


async def test_the_release_restores_the_commit_and_its_binding(around: World) -> None:
    gone, xid = await lose_tail(around)
    undecided = await gone.prepare()
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        assembly = node.assembly
        preview = await assembly.holding.release("shown first", preview=True)
        assert around.log.tables.held
        assert xid not in around.log.tables.decisions
        plan = await assembly.holding.release("the disk was replaced", preview=False)
        assert plan.commits[0].record == preview.commits[0].record
        (stored,) = plan.commits
        assert (stored.record.xid, stored.record.prepared) == (xid, BOTH)
        assert (stored.incarnation, stored.sequence) == (gone.incarnation.number, 1)
        assert (plan.rollbacks_presumed, plan.sequences_raised) == (2, 1)
        assert not around.log.tables.held
        await until(lambda: around.phase(RIGHT, xid) is BranchPhase.COMMITTED)
        assert (around.effects(LEFT), around.effects(RIGHT)) == (1, 1)
        await until(lambda: assembly.reports.is_complete)
        assert (await assembly.inquiries.decision(undecided, BOTH)).state is DecisionState.ROLLBACK
        await until(lambda: not assembly.life.standing or not assembly.life.standing.is_held)
        again = await assembly.engine.execute(call("order-1"))
        assert (again.outcome.xid, again.outcome.phase) == (xid, Phase.COMMITTED)
        assert (await assembly.engine.execute(call("order-2"))).outcome.phase is Phase.COMMITTED
    assert (around.effects(LEFT), around.effects(RIGHT)) == (2, 2)
    assert [action.action for action in around.log.tables.actions] == ["RELEASE"]


async def test_the_release_reads_every_page_and_takes_no_branch_of_another_log_for_its_own(around: World) -> None:
    """R18: the other log's come first in the participant's list, and fill a page of it."""
    gone, xid = await lose_tail(around)
    number, before_unix_ms = gone.incarnation.number, xid.unix_ms - 60_000
    around.wires[LEFT].adds += [
        Branch(
            "00000000000000bb",
            Xid.make(before_unix_ms, number, at),
            BranchPhase.COMMITTED,
            incarnation=number,
            sequence=at + 2,
        )
        for at in range(PAGE)
    ]
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        plan = await node.assembly.holding.release("the disk was replaced", preview=False)
        assert [stored.record.xid for stored in plan.commits] == [xid]
        await until(lambda: around.phase(RIGHT, xid) is BranchPhase.COMMITTED)


async def test_the_release_reads_on_where_a_page_is_short(around: World) -> None:
    """R15: the commit that the log lost is on the last page, and only the participant's token leads there."""
    gone, xid = await lose_tail(around)
    around.wires[LEFT].adds += [
        Branch(LOG_ID, Xid.make(xid.unix_ms - 60_000, gone.incarnation.number, at), BranchPhase.HEURISTIC)
        for at in range(2)
    ]
    around.wires[LEFT].page_max = 1
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        plan = await node.assembly.holding.release("the disk was replaced", preview=False)
        assert [stored.record.xid for stored in plan.commits] == [xid]


async def test_a_no_is_bound_to_no_request_whose_commit_may_be_lost(around: World) -> None:
    """R3, R15: between a restore and its discovery. Bound, it could never be released without a hand."""
    _, xid = await lose_tail(around)
    around.log_tap.fails = lambda name: name == "read_sequences"
    async with life(around) as first:
        await until(lambda: all(link.is_up for link in first.assembly.links.values()))
        # Its client gave up. A "no" of a participant would do as well; here both know the request, and wait with it.
        refused = await first.assembly.engine.close_intent("default", "order-1", "the client gave up")
        assert (refused.outcome.decision, refused.outcome.retry) == (Decision.ROLLBACK, True)
        assert not around.log.tables.requests
        around.log_tap.fails = lambda _: False
        await first.ended()
    async with life(around) as second:
        await looked(second)
        await second.assembly.holding.release("polled all of them", preview=False)
        await until(lambda: not second.assembly.life.standing or not second.assembly.life.standing.is_held)
        again = await second.assembly.engine.execute(call("order-1"))
    assert (again.outcome.xid, again.outcome.phase) == (xid, Phase.COMMITTED)


async def test_an_empty_participant_stands_in_for_one_that_is_gone_for_good(around: World) -> None:
    """What only the old one knew is lost; the others' branches are ended, and it may be polled."""
    gone = await predecessor(around)
    backup, empty = around.log.copy(), around.stores[RIGHT].durable.copy()
    known, unknown = [await gone.prepare(request_id) for request_id in ("order-1", "order-2")]
    for xid, participant in ((known, LEFT), (unknown, RIGHT)):
        await gone.decide(xid)
        await gone.tell(xid, participant)
    around.log.restore(backup, new_timeline=False)
    around.stores[RIGHT].durable, around.stores[RIGHT].current = empty, empty.copy()
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        plan = await node.assembly.holding.release("right is lost for good", preview=False)
        assert [(stored.record.xid, stored.record.prepared) for stored in plan.commits] == [(known, (LEFT,))]
        assert plan.rollbacks_presumed == 1
        await until(lambda: node.assembly.reports.is_complete)
        assert (await node.assembly.inquiries.decision(unknown, BOTH)).state is DecisionState.ROLLBACK
        await until(lambda: not node.assembly.life.standing or not node.assembly.life.standing.is_held)
        assert (await node.assembly.engine.execute(call("order-3"))).outcome.phase is Phase.COMMITTED


async def test_a_loss_that_nobody_had_applied_is_presumed_rolled_back(around: World) -> None:
    """It cannot be recovered, and the documents say so: run the log with a synchronous standby."""
    gone = await predecessor(around)
    backup = around.log.copy()
    xid = await gone.prepare()
    await gone.decide(xid)
    around.log.restore(backup, new_timeline=False)
    async with life(around) as node:
        await until(lambda: node.assembly.reports.is_complete)
        # The dead one's lease is over, and it is fenced once ours has lasted.
        await until(lambda: not around.log.tables.incarnations[gone.incarnation.number].is_live)
        assert (await node.assembly.inquiries.decision(xid, BOTH)).state is DecisionState.ROLLBACK
    assert not around.log.tables.held


async def test_what_an_older_coordinator_still_says_is_not_believed(around: World) -> None:
    """A Commit that was under way all the time arrives after the release: its epoch is over."""
    gone, xid = await lose_tail(around)
    late = await gone.prepare()
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        await node.assembly.holding.release("restored", preview=False)
        assert node.assembly.engine.incarnation.epoch > gone.incarnation.epoch
        async with grpc.aio.insecure_channel(around.addresses[RIGHT]) as channel:
            request = resource_pb2.CommitRequest(
                xid=str(late), log_id=LOG_ID, incarnation=gone.incarnation.number, sequence=2
            )
            request.epoch = gone.incarnation.epoch
            response = await ResourceServiceStub(channel).Commit(request)
    assert response.ack.kind == common_pb2.ACK_KIND_RETRY
    assert around.phase(RIGHT, late) is BranchPhase.PREPARED
    assert xid in around.log.tables.decisions


async def test_the_release_wants_every_participant(around: World) -> None:
    _, xid = await lose_tail(around)
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        around.wires[RIGHT].is_cut = True
        with pytest.raises(RefusedError, match=f"{RIGHT}: the wire is cut") as refused:
            await node.assembly.holding.release("restored", preview=False)
        assert refused.value.code == "PARTICIPANTS_MISSING"
        assert around.log.tables.held
        assert xid not in around.log.tables.decisions


async def test_whoever_else_answers_at_the_address_does_not_stand_in_for_a_participant(around: World) -> None:
    """It has no branches to tell of, and the true one's commits would stay lost."""
    _, xid = await lose_tail(around)
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        around.wires[LEFT].speaks_for = "stranger"
        with pytest.raises(RefusedError, match="'stranger'") as refused:
            await node.assembly.holding.release("restored", preview=False)
        assert refused.value.code == "PARTICIPANTS_MISSING"
        assert xid not in around.log.tables.decisions


async def test_the_release_is_refused_while_an_older_coordinators_commit_is_still_being_applied(
    around: World,
) -> None:
    """R15: to adopt an epoch ends what came before. Where a participant of another make does not keep to that, the
    second look finds out.
    """
    gone, _ = await lose_tail(around)
    late = await gone.prepare()
    await in_hold(around)
    async with life(around) as node:
        await looked(node)
        wire = around.wires[RIGHT]
        wire.open.clear()
        wire.reached.clear()
        release = asyncio.get_running_loop().create_task(node.assembly.holding.release("restored", preview=False))
        await wire.reached.wait()
        await gone.tell(late, LEFT, 2, epoch=node.assembly.engine.incarnation.epoch)
        wire.open.set()
        with pytest.raises(RefusedError) as refused:
            await release
        assert refused.value.code == "STILL_APPLYING"
        plan = await node.assembly.holding.release("again", preview=False)
        assert [stored.sequence for stored in plan.commits] == [1, 2]


async def test_there_is_nothing_to_release_without_hold_and_nothing_is_done_without_a_reason(around: World) -> None:
    async with life(around) as node:
        await looked(node)
        with pytest.raises(RefusedError, match="not in HOLD") as refused:
            await node.assembly.holding.release("why not", preview=False)
        assert refused.value.code == "NOT_HELD"
        for reason in ("", "  ", "x" * 1_001):
            with pytest.raises(InvalidRequestError) as invalid:
                await node.assembly.holding.hold(reason)
            assert invalid.value.field == "reason"
            with pytest.raises(InvalidRequestError):
                await node.assembly.holding.release(reason, preview=True)
    assert not around.log.tables.held


async def test_an_operator_puts_the_log_in_hold_and_hears_so_before_the_coordinator_ends(around: World) -> None:
    async with life(around) as node:
        await looked(node)
        standing = await node.assembly.holding.hold("the backup is being looked at")
        assert standing.is_held
        assert standing.held_reason == "the backup is being looked at"
        assert standing.live == ()
        with pytest.raises(UnavailableError, match="restarts"):
            await node.assembly.holding.release("at once", preview=False)
        assert "the backup is being looked at" in str(await node.ended())
    (action,) = around.log.tables.actions
    assert (action.action, action.reason) == ("HOLD", "the backup is being looked at")


async def test_a_hold_that_nothing_was_lost_in_is_released_with_nothing_to_restore(around: World) -> None:
    async with life(around) as first:
        await looked(first)
        assert (await first.assembly.engine.execute(call("order-1"))).outcome.phase is Phase.COMMITTED
        await first.assembly.holding.hold("a drill")
        await first.ended()
    async with life(around) as second:
        await looked(second)
        await until(lambda: second.assembly.reports.is_complete)
        plan = await second.assembly.holding.release("the drill is over", preview=False)
        assert (plan.commits, plan.rollbacks_presumed, plan.sequences_raised) == ((), 0, 0)
        await until(lambda: not second.assembly.life.standing or not second.assembly.life.standing.is_held)
        assert (await second.assembly.engine.execute(call("order-1"))).outcome.replayed


async def test_an_end_by_hand_comes_to_the_log_again_when_that_was_restored_without_it(around: World) -> None:
    """R12, R15, invariant 10: one coordinator may live through two restores in HOLD."""
    gone = await predecessor(around)
    xid = await gone.prepare("order-1")
    await around.resource(LEFT).resolve(LOG_ID, xid, Decision.ROLLBACK, "the bank says so")
    around.log.hold("restored")
    async with life(around) as node:
        await looked(node)
        backup = around.log.copy()
        await node.assembly.passes.trigger(Scope.ORPHANS)
        await until(lambda: (xid, LEFT) in around.log.tables.heuristics)
        around.log.restore(backup, new_timeline=False)
        assert not around.log.tables.heuristics
        await until(lambda: node.assembly.passes.held == "restored")
        await node.assembly.commit.confirm()
        await node.assembly.passes.trigger(Scope.ORPHANS)
        await until(lambda: (xid, LEFT) in around.log.tables.heuristics)
