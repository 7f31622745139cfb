"""R15: participants that lost what they had acknowledged, while others are owed, are away, or lost theirs too."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from coordinator.log.decision_log import Checkpoint
from coordinator.lost_tails import PAGE
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.phases import Phase
from coordinator.requests import ExecuteCall
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.resources.memory_store import State
from participant_sdk.xa import Decision
from tests.engine.lost_tail import BOTH, Life, life, operations, predecessor
from tests.engine.recovering import CLOCK, LEFT, RIGHT, World, until, world

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


async def acknowledged_by_left_alone(around: World, node: Life) -> tuple[Xid, State]:
    """A transfer that LEFT acknowledged as committed, and RIGHT does not; and LEFT as it was when it had voted."""
    engine = node.assembly.engine
    voted: list[State] = []

    def shut_right(name: str) -> None:
        if name == "append" and not voted and any(view.phase is Phase.DECIDING for view in engine.views()):
            voted.append(around.stores[LEFT].durable.copy())
            around.taps[RIGHT].shut()

    around.log_tap.before = shut_right
    await engine.execute(ExecuteCall(operations(), 30.0, wait_applied=False))
    (view,) = engine.views()
    await until(lambda: engine.views()[0].branches[0].done)
    return view.xid, voted[0]


async def restore_left(around: World, node: Life, backup: State) -> None:
    """Put LEFT's database back once the log knows what it acknowledged."""
    number = node.assembly.engine.incarnation.number
    checkpoints = around.log.tables.checkpoints
    await until(lambda: number in checkpoints and LEFT in checkpoints[number].applied)
    await around.hosts[LEFT].stop()
    around.stores[LEFT].durable, around.stores[LEFT].current = backup, backup.copy()
    await around.hosts[LEFT].start()


async def test_what_one_lost_while_another_is_owed_is_told_to_it_again(around: World, node: Life) -> None:
    xid, voted = await acknowledged_by_left_alone(around, node)
    await restore_left(around, node, voted)
    await until(lambda: around.phase(LEFT, xid) is BranchPhase.COMMITTED)
    assert around.effects(LEFT) == 1
    around.taps[RIGHT].open()
    await until(lambda: not node.assembly.engine.unfinished)
    assert around.phase(RIGHT, xid) is BranchPhase.COMMITTED
    assert not around.log.tables.heuristics


async def test_it_is_not_finished_before_the_one_that_lost_it_has_acknowledged_it_again(
    around: World, node: Life
) -> None:
    """Here LEFT went back to before its vote: its branch cannot be had back, and somebody must hear of it (R11)."""
    before = around.stores[LEFT].durable.copy()
    xid, _ = await acknowledged_by_left_alone(around, node)
    await restore_left(around, node, before)
    await until(lambda: (xid, LEFT) in around.log.tables.heuristics)
    around.taps[RIGHT].open()
    await until(lambda: not node.assembly.engine.unfinished)
    assert around.phase(RIGHT, xid) is BranchPhase.COMMITTED


@pytest.mark.uncounted
async def test_whoever_else_is_away_and_owed_thousands_keeps_nobody_from_what_it_lost(around: World) -> None:
    """Invariant 12: and nothing of it fills the engine."""
    gone, other = await predecessor(around), await predecessor(around)
    lost, owed = PAGE + 1, 5_001
    for each, name, count in ((gone, LEFT, lost), (other, RIGHT, owed)):
        xids = [Xid.make(CLOCK.unix_ms(), each.incarnation.number, serial) for serial in range(count)]
        await each.log.append(each.incarnation, 0, [DecisionRecord(xid, Decision.COMMIT, (name,)) for xid in xids])
    await gone.log.checkpoint(Checkpoint(gone.incarnation.number, lost, applied={LEFT: lost}))
    await around.hosts[RIGHT].stop()
    async with life(around) as running:
        engine = running.assembly.engine
        around.log_tap.fails = lambda name: name == "commits_above" and engine.unfinished < owed
        await until(lambda: len(around.log.tables.heuristics) == lost)
        assert engine.unfinished == owed


async def finished_and_lost_by_left(around: World) -> Xid:
    """A transfer that both acknowledged as committed to one that is gone; LEFT is back at its vote."""
    gone = await predecessor(around)
    xid = await gone.prepare()
    voted = around.stores[LEFT].durable.copy()
    await gone.decide(xid)
    for name in BOTH:
        await gone.tell(xid, name)
    await gone.log.checkpoint(Checkpoint(gone.incarnation.number, 1, applied=dict.fromkeys(BOTH, 1)))
    around.stores[LEFT].durable, around.stores[LEFT].current = voted, voted.copy()
    return xid


async def test_what_a_participant_cannot_do_now_is_told_again_over_the_same_session(around: World) -> None:
    """It answers RETRY, and nothing else would have anybody tell it once more."""
    xid = await finished_and_lost_by_left(around)

    def fail_left(name: str) -> None:
        if name == "commits_above":
            around.taps[LEFT].failures = 1

    around.log_tap.before = fail_left
    async with life(around):
        await until(lambda: around.phase(LEFT, xid) is BranchPhase.COMMITTED)
    assert around.effects(LEFT) == 1


async def test_what_is_not_acknowledged_is_told_again_until_it_is(around: World) -> None:
    """The participant goes away in the midst of it, and comes back."""
    xid = await finished_and_lost_by_left(around)
    failures, reads = ["commits_above"], 0

    def shut_left(name: str) -> None:
        nonlocal reads
        if name == "commits_above":
            around.taps[LEFT].shut()
            reads += 1

    around.log_tap.before = shut_left
    around.log_tap.fails = lambda name: name in failures and bool(failures.pop())
    async with life(around):
        await until(lambda: reads > 0)
        await around.hosts[LEFT].stop()
        around.taps[LEFT].open()
        await around.hosts[LEFT].start()
        await until(lambda: around.phase(LEFT, xid) is BranchPhase.COMMITTED)


async def test_what_is_read_of_the_log_is_told_only_once_it_is_durable(around: World) -> None:
    """R1, R7: a COMMIT may be seen before a standby has it, and only a later write of our own shows that it is kept."""
    xid = await finished_and_lost_by_left(around)
    refused: list[str] = []
    is_read = is_mended = False

    def look(name: str) -> None:
        nonlocal is_read
        is_read = is_read or name == "commits_above"

    def fails(name: str) -> bool:
        if name == "append" and is_read and not is_mended:
            refused.append(name)
            return True
        return False

    around.log_tap.before, around.log_tap.fails = look, fails
    async with life(around):
        await until(lambda: len(refused) > 2)
        assert around.phase(LEFT, xid) is BranchPhase.PREPARED
        is_mended = True
        await until(lambda: around.phase(LEFT, xid) is BranchPhase.COMMITTED)
