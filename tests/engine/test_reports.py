"""R15: participants' reports, over real links, and what a participant that lost its tail is sent again."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from structlog.testing import capture_logs

from coordinator.log.decision_log import Checkpoint
from coordinator.metrics import Count
from coordinator.protocol.phases import Phase
from coordinator.requests import ExecuteCall
from participant_sdk.branch import BranchPhase
from participant_sdk.hello import Welcome
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation
from participant_sdk.xa import DecisionState
from tests.engine.lost_tail import BOTH, Life, life, operations, predecessor
from tests.engine.recovering import CLOCK, LEFT, LOG_ID, RIGHT, World, until, world

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as found:
        yield found


@pytest.fixture
async def node(around: World) -> AsyncGenerator[Life]:
    async with life(around) as running:
        await until(lambda: running.assembly.reports.is_complete)
        yield running


def call(*chosen: Operation) -> ExecuteCall:
    return ExecuteCall(chosen or operations(), 30.0)


async def committed(node: Life, *chosen: Operation) -> Xid:
    ended = await node.assembly.engine.execute(call(*chosen))
    assert ended.outcome.phase is Phase.COMMITTED
    return ended.outcome.xid


async def test_work_goes_on_after_every_connection_to_the_log_was_lost(around: World, node: Life) -> None:
    for _ in range(3):
        await committed(node)
        around.log.drop_connections()
    assert not around.log.tables.held


async def test_a_commit_waits_for_the_reports_and_rollbacks_do_not(around: World, node: Life) -> None:
    """Here the log cannot tell its sequences, so that nobody's report can be judged."""
    engine = node.assembly.engine
    around.log_tap.fails = lambda name: name == "read_sequences"
    around.log.drop_connections()
    waiting = engine.execute(call())
    ended = await engine.execute(call(*operations("2000000")))
    assert ended.outcome.phase is Phase.ROLLED_BACK
    xid = engine.views()[0].xid
    await until(lambda: [view.phase for view in engine.views() if view.xid == xid] == [Phase.DECIDING])
    assert node.assembly.reports.missing() == BOTH
    around.log_tap.fails = lambda _: False
    assert (await waiting).outcome.phase is Phase.COMMITTED
    assert node.assembly.reports.all_in(BOTH)


async def test_a_commit_waits_for_a_participant_that_is_down_and_others_do_not(around: World, node: Life) -> None:
    """R17. It voted, went away, and the log was connected to anew: what it applied until then is not known."""
    around.log_tap.fails = lambda name: name == "append"
    waiting = node.assembly.engine.execute(call())
    xid = node.assembly.engine.views()[0].xid
    await until(lambda: [around.phase(name, xid) for name in BOTH] == [BranchPhase.PREPARED] * 2)
    await around.hosts[LEFT].stop()
    around.log.drop_connections()
    around.log_tap.fails = lambda _: False
    await committed(node, operations()[1])
    assert not waiting.done()
    assert node.assembly.reports.missing() == (LEFT,)
    await around.hosts[LEFT].start()
    assert (await waiting).outcome.phase is Phase.COMMITTED


async def test_a_welcome_of_before_a_connection_that_nobody_has_noticed_is_not_judged(
    around: World, node: Life
) -> None:
    await around.hosts[LEFT].stop()
    await until(lambda: not node.assembly.links[LEFT].is_up)
    epoch = node.assembly.engine.incarnation.epoch
    node.assembly.reports.welcomed(LEFT, Welcome(LEFT, CLOCK.unix_ms(), epoch))
    node.log.disconnect()
    await node.log.standing()
    await committed(node, operations()[1])
    assert node.assembly.reports.missing() == (LEFT,)


async def test_rollback_is_presumed_once_the_named_participants_have_reported(around: World) -> None:
    """A transaction that concerns others need not wait for one that is away."""
    gone = await predecessor(around)
    xid = await gone.prepare()
    around.taps[LEFT].shut()
    async with life(around) as running:
        assembly = running.assembly
        await until(lambda: assembly.reports.reported(RIGHT))
        await until(lambda: not around.log.tables.incarnations[gone.incarnation.number].is_live)
        inquiries = assembly.inquiries
        assert (await inquiries.decision(xid, (RIGHT,))).state is DecisionState.ROLLBACK
        for names in (BOTH, (), (RIGHT, "nobody")):
            answer = await inquiries.decision(xid, names)
            assert (answer.state, answer.owner_address) == (DecisionState.PENDING, "")
        with pytest.raises(Exception, match=f"{LEFT} has not"):
            await inquiries.transaction(xid)
        around.taps[LEFT].open()
        await until(lambda: assembly.reports.is_complete)
        assert (await inquiries.decision(xid, BOTH)).state is DecisionState.ROLLBACK
        assert (await inquiries.transaction(xid)).phase is Phase.ROLLED_BACK


async def restored_participant(around: World, *, empty: bool = False) -> Xid:
    """Three transactions committed everywhere and checkpointed; then one participant goes back to the first."""
    before = around.stores[LEFT].durable.copy()
    gone = await predecessor(around)
    xids = [await gone.prepare() for _ in range(3)]
    backup = None
    for xid in xids:
        await gone.decide(xid)
        await gone.tell(xid, LEFT)
        await gone.tell(xid, RIGHT)
        backup = backup or around.stores[LEFT].durable.copy()
    assert backup is not None
    backup = before if empty else backup
    await gone.log.checkpoint(Checkpoint(gone.incarnation.number, 3, applied=dict.fromkeys(BOTH, 3)))
    around.stores[LEFT].durable, around.stores[LEFT].current = backup, backup.copy()
    return xids[2]


async def test_a_participant_behind_what_it_acknowledged_is_told_of_and_sent_it_again(around: World) -> None:
    last = await restored_participant(around)
    with capture_logs() as lines:
        async with life(around) as running:
            await until(lambda: around.phase(LEFT, last) is BranchPhase.COMMITTED)
            await until(lambda: running.assembly.reports.is_complete)
            # Whatever it is asked again in this session, it is told once.
            running.assembly.reports.ask_again()
            await committed(running)
    assert around.effects(LEFT) == 4
    (alert,) = [line for line in lines if line["event"] == "participant_behind"]
    assert (running.counted(Count.BEHIND, LEFT), running.counted(Count.BEHIND, RIGHT)) == (1, 0)
    assert (alert["log_level"], alert["participant"], alert["reported"], alert["acknowledged"]) == ("error", LEFT, 1, 3)
    assert not around.log.tables.held


async def test_what_cannot_be_brought_back_is_told_of_once_in_a_session(around: World) -> None:
    """The participant went back to before its votes: Commit meets no branch, which is a hazard each (R11)."""
    await restored_participant(around, empty=True)
    looks: list[str] = []
    around.log_tap.fails = lambda name: looks.append(name) or False
    with capture_logs() as lines:
        async with life(around) as running:
            await until(lambda: len(around.log.tables.heuristics) == 3)
            for _ in range(3):
                looks.clear()
                running.assembly.reports.ask_again()
                await until(lambda: looks.count("read_applied") >= 2)
            await committed(running, operations()[1])
    assert [line["event"] for line in lines].count("participant_behind") == 1


async def test_what_was_finished_lately_is_sent_again_as_well(around: World, node: Life) -> None:
    """The coordinator that had driven it before holds it among the finished still."""
    before = around.stores[LEFT].durable.copy()
    xid = await committed(node)
    number = node.assembly.engine.incarnation.number
    await until(
        lambda: number in around.log.tables.checkpoints and LEFT in around.log.tables.checkpoints[number].applied
    )
    await around.hosts[LEFT].stop()
    around.stores[LEFT].durable, around.stores[LEFT].current = before, before.copy()
    await around.hosts[LEFT].start()
    await until(lambda: (xid, LEFT) in around.log.tables.heuristics)


async def test_a_welcome_older_than_the_checkpoint_is_no_alarm(around: World, node: Life) -> None:
    """It was on its way while the participant went on, acknowledged, and was checkpointed."""
    await committed(node)
    number = node.assembly.engine.incarnation.number
    await until(
        lambda: number in around.log.tables.checkpoints and LEFT in around.log.tables.checkpoints[number].applied
    )
    welcomes = 0

    def came(_: str) -> bool:
        nonlocal welcomes
        welcomes += _ == "read_applied"
        return False

    around.log_tap.fails = came
    with capture_logs() as lines:
        node.assembly.reports.welcomed(LEFT, Welcome(LEFT, CLOCK.unix_ms(), node.assembly.engine.incarnation.epoch))
        await until(lambda: welcomes >= 2)
        await committed(node)
    assert [line["event"] for line in lines if line["event"] == "participant_behind"] == []


async def test_a_report_is_judged_however_often_the_log_fails(around: World) -> None:
    """A participant ahead of the log is found after an outage too."""
    gone = await predecessor(around)
    backup = around.log.copy()
    xid = await gone.prepare()
    await gone.decide(xid)
    await gone.tell(xid, LEFT)
    around.log.restore(backup, new_timeline=False)
    failures = ["read_sequences", "read_sequences", "standing", "hold", "read_sequences", "hold"]
    around.log_tap.fails = lambda name: name == (failures[:1] or [""])[0] and bool(failures.pop(0))
    async with life(around) as running:
        await running.ended()
    assert not failures
    assert LEFT in around.log.tables.held


@pytest.mark.parametrize("ahead", [1, 3600])
async def test_a_log_that_forgot_an_epoch_is_held_and_begins_above_it(around: World, ahead: int) -> None:
    """Every participant refuses what the log draws, before it reports: by that alone the loss is noticed.

    The epoch may have been drawn by a clock that was ahead: the next one is above it all the same.
    """
    gone = await predecessor(around)
    forgotten = gone.incarnation.number + ahead
    for name in BOTH:
        await around.resource(name).adopt_epoch(LOG_ID, forgotten)
    async with life(around) as running:
        await running.ended()
    assert f"has adopted epoch {forgotten}, and the log stands at epoch" in around.log.tables.held
    async with life(around) as second:
        await until(lambda: second.assembly.reports.is_complete)
        assert second.assembly.engine.incarnation.epoch > forgotten
        await second.assembly.holding.release("a drill", preview=False)
        await until(lambda: not second.assembly.life.standing or not second.assembly.life.standing.is_held)
        await committed(second)


async def test_an_epoch_forgotten_in_hold_ends_what_was_drawn_since(around: World) -> None:
    """Else nobody could ever release it: participants would refuse them for ever."""
    await predecessor(around)
    around.log.hold("restored from a dump")
    forgotten = CLOCK.unix_ms() // 1000 + 3600
    async with life(around) as running:
        await until(lambda: running.assembly.reports.is_complete)
        await around.resource(LEFT).adopt_epoch(LOG_ID, forgotten)
        await around.hosts[LEFT].stop()
        await around.hosts[LEFT].start()
        await running.ended()
    async with life(around) as second:
        await until(lambda: second.assembly.reports.is_complete)
    assert around.log.tables.held == "restored from a dump"


async def test_one_that_is_fenced_puts_nothing_in_hold(around: World, node: Life) -> None:
    """This coordinator is the one that is over: its own writes say so."""
    around.log.restore(around.log.copy(), new_timeline=True)
    later = await predecessor(around)
    await around.resource(LEFT).adopt_epoch(LOG_ID, later.incarnation.epoch)
    await node.ended()
    assert not await node.log.hold_above(node.assembly.engine.incarnation, later.incarnation.epoch, "it is ahead")
    assert not around.log.tables.held
