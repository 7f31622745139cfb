"""A coordinator dies and another comes: what was decided is redone, what was not is answered with ROLLBACK."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from coordinator.log.memory import MemoryLog
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.phases import Phase
from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import Operation, Prepare
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.xa import Decision, VoteKind
from tests.engine.test_engine import call, connected, debit, read
from tests.sdk.small_system import LEFT, LOG_ID, OPENING, RIGHT, System, coordinator, system

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def world() -> AsyncGenerator[System]:
    async with system() as around:
        yield around


class Dead:
    """A coordinator that died: it opened an incarnation, prepared branches, perhaps decided, and said no more."""

    def __init__(self, world: System) -> None:
        self.world = world

    async def leave(self, *, decided: bool, also: tuple[str, ...] = ()) -> Xid:
        """Leave a transaction behind, prepared at both, and at participants that are not configured any more."""
        log = MemoryLog(self.world.log)
        incarnation = await log.open("coordinator", "", 0.05)
        xid = XidSource(incarnation.number).next(SystemClock().unix_ms())
        for participant, operation in ((LEFT, "debit"), (RIGHT, "credit")):
            await self.prepare(participant, operation, xid)
        if decided:
            await log.append(incarnation, 0, [DecisionRecord(xid, Decision.COMMIT, (*also, LEFT, RIGHT))])
        return xid

    async def prepare(self, participant: str, operation: str, xid: Xid) -> None:
        """Have the participant's branch prepared, as over a session that is gone now."""
        resource = MemoryResource(participant, self.world.stores[participant], SystemClock())
        work = (Operation(participant, operation, '{"account":"a","amount":"10"}'),)
        branch = Prepare(LOG_ID, xid, work, SystemClock().monotonic_s() + 30, (LEFT, RIGHT))
        (vote,) = await resource.prepare([branch])
        assert vote.kind is VoteKind.PREPARED


async def test_a_decided_transaction_is_redone_by_the_next_incarnation(world: System) -> None:
    xid = await Dead(world).leave(decided=True)
    async with coordinator(world) as node:
        while (finished := await node.finished.get()).outcome.xid != xid:
            pass
        assert finished.outcome.decision is Decision.COMMIT
    assert world.balance(LEFT, "a") == OPENING - 10
    assert world.balance(RIGHT, "a") == OPENING + 10
    assert world.held(LEFT, "a") == 0


async def test_a_second_recovery_changes_nothing(world: System) -> None:
    """Invariant 8."""
    xid = await Dead(world).leave(decided=True)
    for _ in range(2):
        async with coordinator(world) as node:
            await connected(node)
            while world.effects(LEFT) == 0 or world.effects(RIGHT) == 0:
                await node.finished.get()
    assert world.effects(LEFT) == 1
    assert world.effects(RIGHT) == 1
    assert world.log.tables.decisions[xid].record.decision is Decision.COMMIT


async def test_new_work_goes_on_while_the_old_incarnation_is_waited_for(world: System) -> None:
    await Dead(world).leave(decided=False)
    async with coordinator(world) as node:
        await connected(node)
        ended = await node.engine.execute(call(debit(LEFT, "1")))
        assert ended.outcome.phase is Phase.COMMITTED


async def test_a_decision_that_names_an_unconfigured_participant_stays_owed_and_stops_nothing(world: System) -> None:
    """R17: the others are told, and new work goes on."""
    xid = await Dead(world).leave(decided=True, also=("gone",))
    async with coordinator(world) as node:
        await connected(node)
        while (running := node.engine.find(xid)) is None or running.transaction.branches.owed != ["gone"]:
            await node.engine.execute(call(read(LEFT), read(RIGHT)))
        view = running.view()
        assert view.phase is Phase.COMMITTING
        assert "gone" in view.waiting_for
        assert "unconfigured" in [event.event for event in view.events if event.participant == "gone"]


async def test_who_asks_a_recovered_transaction_for_its_end_hears_it(world: System) -> None:
    xid = await Dead(world).leave(decided=True)
    async with coordinator(world) as node:
        while (await node.finished.get()).outcome.xid != xid:
            pass
        ended = await node.engine.commit(xid)
        assert ended.outcome.decision is Decision.COMMIT
        assert ended.outcome.applied
        assert (await node.engine.rollback(xid, "too late")).outcome.decision is Decision.COMMIT
