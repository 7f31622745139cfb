"""R11, R12: driving a transaction again by hand tells its outcome to everybody whom the log names."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from coordinator.log.decision_log import Checkpoint
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.phases import Phase
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, Heuristic
from tests.engine.lost_tail import BOTH, Predecessor, predecessor
from tests.engine.recovering import CLOCK, LEFT, RIGHT, World, node, until, world

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def finished(around: World) -> tuple[Predecessor, Xid]:
    """A transfer that a coordinator, which is gone, committed everywhere, and the log's checkpoint says so."""
    gone = await predecessor(around)
    xid = await gone.prepare()
    await gone.decide(xid)
    for name in BOTH:
        await gone.tell(xid, name)
    await gone.log.checkpoint(Checkpoint(gone.incarnation.number, 1))
    return gone, xid


async def test_a_branch_that_its_participant_lost_is_a_hazard_and_no_success(around: World) -> None:
    before = around.stores[LEFT].durable.copy()
    gone, xid = await finished(around)
    around.stores[LEFT].durable, around.stores[LEFT].current = before, before.copy()
    async with node(around) as assembly:
        await until(lambda: not around.log.tables.incarnations[gone.incarnation.number].is_live)
        await assembly.resolution.retry(xid)
        await until(lambda: bool(around.log.tables.heuristics))
        (kept,) = around.log.tables.heuristics.values()
        assert (kept.participant, kept.heuristic) == (LEFT, Heuristic.HAZARD)
        assert around.effects(RIGHT) == 1


async def test_what_is_committed_everywhere_is_told_again_and_changes_nothing(around: World) -> None:
    gone, xid = await finished(around)
    async with node(around) as assembly:
        await until(lambda: not around.log.tables.incarnations[gone.incarnation.number].is_live)
        assert await assembly.resolution.retry(xid) is Phase.COMMITTED
        assert around.effects(LEFT) == around.effects(RIGHT) == 1
        assert not around.log.tables.heuristics
        await around.hosts[RIGHT].stop()
        await until(lambda: not assembly.links[RIGHT].is_up)
        assert await assembly.resolution.retry(xid) is Phase.COMMITTING, "one that is away cannot say so"


async def test_a_participant_that_is_configured_no_more_is_named_and_the_others_are_told(around: World) -> None:
    gone = await predecessor(around)
    xid = Xid.make(CLOCK.unix_ms(), gone.incarnation.number, 1)
    await around.prepare(LEFT, xid)
    await gone.log.append(gone.incarnation, 0, [DecisionRecord(xid, Decision.COMMIT, ("former", LEFT))])
    await gone.log.checkpoint(Checkpoint(gone.incarnation.number, 1))
    async with node(around) as assembly:
        await until(lambda: not around.log.tables.incarnations[gone.incarnation.number].is_live)
        assert await assembly.resolution.retry(xid) is Phase.COMMITTING
        assert around.phase(LEFT, xid) is BranchPhase.COMMITTED
