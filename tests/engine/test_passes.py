"""Recovery passes: what they tell, whom they leave alone, and what they do when something is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import pytest

from coordinator.assembly import Assembly
from coordinator.errors import InvalidRequestError, UnavailableError, UnknownTransactionError
from coordinator.log.decision_log import Checkpoint
from coordinator.log.memory_store import MemoryLogStore
from coordinator.passes import PassSettings, Scope
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.phases import Phase
from coordinator.protocol.timing import Timing
from coordinator.sweep import PAGE_SIZE
from participant_sdk.branch import BranchPhase
from participant_sdk.clock import SystemClock
from participant_sdk.ids import INCARNATION_MAX, Xid
from participant_sdk.participant import Branch
from participant_sdk.xa import Decision
from tests.engine.recovering import BY_HAND, CLOCK, LEASE_S, LEFT, LOG_ID, RIGHT, World, node, until, world
from tests.engine.test_engine import call, credit, debit

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def test_an_orphan_of_a_dead_coordinator_is_rolled_back_and_a_second_pass_changes_nothing(around: World) -> None:
    """R7, invariant 8."""
    xid = await around.leave(decided=False)
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        first = await assembly.passes.trigger(Scope.GLOBAL)
        assert (first.resolved, first.failed, first.in_doubt) == (2, 0, 0)
        assert around.phase(LEFT, xid) is around.phase(RIGHT, xid) is BranchPhase.ROLLED_BACK
        kept = {name: around.stores[name].durable.copy() for name in (LEFT, RIGHT)}
        second = await assembly.passes.trigger(Scope.GLOBAL)
        assert (second.scanned, second.resolved, second.failed, second.in_doubt) == (0, 0, 0, 0)
        assert {name: around.stores[name].durable for name in kept} == kept
        assert assembly.passes.status().last == second


async def test_an_orphan_whose_commit_is_in_the_log_is_committed(around: World) -> None:
    """R7: also where the log calls it finished, and nobody drives it."""
    xid = await around.leave(decided=True)
    around.log.checkpoint(Checkpoint(xid.incarnation, 1))
    async with node(around) as assembly:
        ran = await assembly.passes.trigger(Scope.ORPHANS)
        assert (ran.resolved, ran.failed, ran.in_doubt) == (2, 0, 0)
        assert around.phase(LEFT, xid) is around.phase(RIGHT, xid) is BranchPhase.COMMITTED
        assert around.effects(LEFT) == around.effects(RIGHT) == 1


async def test_a_pass_follows_a_fence_at_once(around: World) -> None:
    """R7: whoever is in doubt of a dead coordinator's transaction is told before it asks, or the interval is over."""
    async with node(around, PassSettings(interval_s=3600.0)) as assembly:
        await until(lambda: assembly.passes.status().last is not None)
        xid = await around.leave(decided=False)
        await until(lambda: around.phase(LEFT, xid) is around.phase(RIGHT, xid) is BranchPhase.ROLLED_BACK)


async def test_a_dead_coordinators_commit_is_taken_over_and_applied_once(around: World) -> None:
    """R6, invariant 5."""
    xid = await around.leave(decided=True)
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        await assembly.passes.trigger(Scope.GLOBAL)
        await until(lambda: around.phase(LEFT, xid) is around.phase(RIGHT, xid) is BranchPhase.COMMITTED)
        await assembly.passes.trigger(Scope.GLOBAL)
        assert around.effects(LEFT) == around.effects(RIGHT) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_was_left_behind_one_pass_settles_it_and_another_changes_nothing(
    around: World, seed: int
) -> None:
    """Invariant 8, for any mix of decided and undecided, prepared here, there or everywhere, ended by hand."""
    draw = Random(seed)
    for _ in range(12):
        decided = draw.random() < 0.5
        # Who is told COMMIT has voted PREPARED (R2); of what is undecided, some may not have come so far.
        prepared = (LEFT, RIGHT) if decided else tuple(name for name in (LEFT, RIGHT) if draw.random() < 0.7)
        xid = await around.leave(decided=decided, prepared=prepared)
        for name in prepared:
            if draw.random() < 0.2:
                await around.resource(name).resolve(LOG_ID, xid, draw.choice(list(Decision)), "by hand")
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        first = await assembly.passes.trigger(Scope.GLOBAL)
        assert (first.failed, first.in_doubt, first.unreachable) == (0, 0, ())
        await until(lambda: not assembly.engine.unfinished)
        branches = [stored.branch for name in (LEFT, RIGHT) for stored in around.stores[name].durable.branches.values()]
        assert BranchPhase.PREPARED not in [branch.phase for branch in branches]
        by_hand = sum(branch.phase is BranchPhase.HEURISTIC for branch in branches)
        await until(lambda: len(around.log.tables.heuristics) == by_hand)
        before = around.stores[LEFT].durable.copy(), around.stores[RIGHT].durable.copy()
        rows, ends = dict(around.log.tables.decisions), dict(around.log.tables.heuristics)
        second = await assembly.passes.trigger(Scope.GLOBAL)
        assert (second.resolved, second.failed, second.in_doubt, second.taken_over) == (0, 0, 0, 0)
        assert (around.stores[LEFT].durable, around.stores[RIGHT].durable) == before
        assert (around.log.tables.decisions, around.log.tables.heuristics) == (rows, ends)


async def test_a_running_transactions_branch_is_left_alone(around: World) -> None:
    """R18."""
    async with node(around) as assembly:
        around.taps[RIGHT].shut()
        future = assembly.engine.execute(call(debit(LEFT), credit(RIGHT)))
        (xid,) = [view.xid for view in assembly.engine.views()]
        await until(lambda: around.phase(LEFT, xid) is BranchPhase.PREPARED)
        ran = await assembly.passes.trigger(Scope.ORPHANS)
        assert (ran.resolved, ran.failed, ran.in_doubt) == (0, 0, 1)
        assert assembly.passes.in_doubt(LEFT).count == 1
        assert assembly.passes.in_doubt(LEFT).oldest_ms < 60_000
        around.taps[RIGHT].open()
        assert (await future).outcome.decision is Decision.COMMIT


async def test_xids_that_nobody_gave_out_are_left_alone_and_shown(around: World) -> None:
    """R18: never guessed."""
    async with node(around) as assembly:
        own = assembly.engine.incarnation.number
        invented = [Xid.make(CLOCK.unix_ms(), own, 77), Xid.make(CLOCK.unix_ms(), INCARNATION_MAX, 1)]
        for xid in invented:
            await around.prepare(LEFT, xid)
        ran = await assembly.passes.trigger(Scope.PARTICIPANT, participant=LEFT)
        assert (ran.scanned, ran.resolved, ran.in_doubt) == (2, 0, 2)
        assert [around.phase(LEFT, xid) for xid in invented] == [BranchPhase.PREPARED] * 2
        status = assembly.passes.status()
        assert [each.xid for each in status.attention] == sorted(invented)
        assert status.attention_count == 2
        assert "gave out" in status.attention[0].advice


async def test_branches_of_another_log_are_left_alone(around: World) -> None:
    """R18."""
    async with node(around) as assembly:
        xid = Xid.make(CLOCK.unix_ms(), 1, 1)
        around.wires[LEFT].adds.append(Branch("00000000000000bb", xid, BranchPhase.PREPARED))
        ran = await assembly.passes.trigger(Scope.ORPHANS)
        assert (ran.scanned, ran.resolved, ran.failed, ran.in_doubt) == (1, 0, 0, 0)
        assert around.phase(LEFT, xid) is BranchPhase.NONE, "nothing was told of it"
        assert (await assembly.resolution.list_in_doubt("", "", 10)).branches == ()


async def test_a_pass_reads_a_participants_branches_to_the_last_page(around: World) -> None:
    """Invariant 8: whatever else stands before them in its list."""
    before_unix_ms = CLOCK.unix_ms() - 60_000
    strangers = [Xid.make(before_unix_ms, 1, number) for number in range(PAGE_SIZE)]
    around.wires[LEFT].adds += [Branch("00000000000000bb", xid, BranchPhase.PREPARED) for xid in strangers]
    xid = await around.leave(decided=False)
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        ran = await assembly.passes.trigger(Scope.GLOBAL)
        assert (ran.scanned, ran.resolved) == (PAGE_SIZE + 2, 2)
        assert around.phase(LEFT, xid) is BranchPhase.ROLLED_BACK


async def test_what_the_log_has_forgotten_is_left_to_an_operator(around: World) -> None:
    """R7: FORGOTTEN is never guessed."""
    xid = await around.leave(decided=False)
    around.log.tables.pruned_below_unix_ms = xid.unix_ms + 1
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        ran = await assembly.passes.trigger(Scope.GLOBAL)
        assert (ran.resolved, ran.in_doubt) == (0, 2)
        assert around.phase(LEFT, xid) is BranchPhase.PREPARED
        assert "pincex tx resolve" in assembly.passes.status().attention[0].advice


async def test_in_hold_nothing_is_presumed_and_nothing_pruned(around: World) -> None:
    """R15."""
    xid = await around.leave(decided=False)
    await around.dead()
    around.log.hold("restored")
    async with node(around, replace(BY_HAND, retention_s=0.0)) as assembly:
        await until(lambda: assembly.passes.held == "restored")
        ran = await assembly.passes.trigger(Scope.GLOBAL)
        assert (ran.resolved, ran.in_doubt) == (0, 2)
        assert around.phase(LEFT, xid) is BranchPhase.PREPARED
        assert around.log.tables.pruned_below_unix_ms == 0


async def test_what_has_ended_everywhere_is_pruned_after_its_retention(around: World) -> None:
    """R14."""
    async with node(around, replace(BY_HAND, retention_s=0.001)) as assembly:
        ended = await assembly.engine.execute(call(debit(LEFT), credit(RIGHT), request_id="order-1"))
        assert ended.outcome.xid in around.log.tables.decisions

        async def pruned() -> bool:
            await assembly.life.write_checkpoints()
            await assembly.passes.trigger(Scope.GLOBAL)
            return ended.outcome.xid not in around.log.tables.decisions

        async with asyncio.timeout(10):
            while not await pruned():
                pass


class HalfADayAhead(SystemClock):
    """A wall clock that was set forward."""

    def unix_ms(self) -> int:
        return super().unix_ms() + 12 * 3_600_000


async def test_a_log_whose_clock_is_set_forward_has_nothing_forgotten_early(around: World) -> None:
    """R7, R14: what was not decided is presumed ROLLBACK, and not FORGOTTEN."""
    around = replace(around, log=MemoryLogStore(HalfADayAhead(), LOG_ID))
    xid = await around.leave(decided=False)
    async with node(around, replace(BY_HAND, retention_s=3_600.0)) as assembly:
        await assembly.passes.trigger(Scope.GLOBAL)
        assert 0 < around.log.tables.pruned_below_unix_ms < xid.unix_ms
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        await assembly.passes.trigger(Scope.GLOBAL)
        assert around.phase(LEFT, xid) is BranchPhase.ROLLED_BACK


async def test_a_participant_that_cannot_be_asked_is_named_and_the_others_are_served(around: World) -> None:
    """R17."""
    xid = await around.leave(decided=False)
    around.wires[LEFT].is_cut = True
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        ran = await assembly.passes.trigger(Scope.GLOBAL)
        assert ran.unreachable == (LEFT,)
        assert ran.resolved == 1
        assert around.phase(RIGHT, xid) is BranchPhase.ROLLED_BACK
        around.wires[LEFT].is_cut = False
        assert (await assembly.passes.trigger(Scope.PARTICIPANT, participant=LEFT)).resolved == 1


@pytest.mark.parametrize("is_parallel", [True, False])
async def test_a_pass_ends_in_time_and_names_whom_it_could_not_wait_for(around: World, *, is_parallel: bool) -> None:
    async with node(around, replace(BY_HAND, within_s=0.2, is_parallel=is_parallel)) as assembly:
        around.wires[RIGHT].open.clear()
        ran = await assembly.passes.trigger(Scope.ORPHANS)
        assert ran.unreachable == (RIGHT,)
        assert ran.ended_unix_ms - ran.began_unix_ms < 5_000


# One transaction.


async def test_an_unknown_transaction_is_an_error(around: World) -> None:
    """Never guessed."""
    async with node(around) as assembly:
        for incarnation in (1, assembly.engine.incarnation.number, INCARNATION_MAX):
            with pytest.raises(UnknownTransactionError):
                await assembly.passes.trigger(Scope.TRANSACTION, xid=Xid.make(CLOCK.unix_ms(), incarnation, 99))
        with pytest.raises(InvalidRequestError) as missing:
            await assembly.passes.trigger(Scope.TRANSACTION)
        assert missing.value.field == "xid"
        with pytest.raises(InvalidRequestError) as nobody:
            await assembly.passes.trigger(Scope.PARTICIPANT, participant="nobody")
        assert nobody.value.field == "participant"
        assert assembly.passes.status().current is None


async def test_a_transaction_of_another_that_lives_is_said_to_be_there(around: World) -> None:
    """R19."""
    async with node(around, name="other", lease_s=30.0) as other, node(around) as assembly:
        xid = other.engine.begin(30.0, "default", "")
        with pytest.raises(UnavailableError) as elsewhere:
            await assembly.passes.trigger(Scope.TRANSACTION, xid=xid)
        assert "other:1" in elsewhere.value.message


async def test_a_log_that_cannot_be_read_is_no_answer(around: World) -> None:
    """R7."""
    xid = await around.leave(decided=False)
    async with node(around) as assembly:
        around.log_tap.fails = lambda _: True
        with pytest.raises(UnavailableError):
            await assembly.passes.trigger(Scope.TRANSACTION, xid=xid)
        ran = await assembly.passes.trigger(Scope.GLOBAL)
        assert ran.failed > 0
        assert ran.in_doubt == 2
        assert around.phase(LEFT, xid) is BranchPhase.PREPARED


async def test_a_finished_transaction_is_told_again_to_whoever_is_in_doubt_of_it(around: World) -> None:
    """As one that came back from an older copy of itself is."""
    xid = await around.leave(decided=True)
    around.log.checkpoint(Checkpoint(xid.incarnation, 1))
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        assert await assembly.life.take_over() == 0, "nothing of it is unfinished"
        ran = await assembly.passes.trigger(Scope.TRANSACTION, xid=xid)
        assert (ran.scanned, ran.resolved, ran.failed, ran.unreachable) == (1, 1, 0, ())
        assert around.phase(LEFT, xid) is around.phase(RIGHT, xid) is BranchPhase.COMMITTED
        again = await assembly.passes.trigger(Scope.TRANSACTION, xid=xid)
        assert (again.scanned, again.resolved, again.failed) == (1, 1, 0), "they say once more that it is done"
        assert await assembly.resolution.retry(xid) is Phase.COMMITTED
        assert around.effects(LEFT) == around.effects(RIGHT) == 1


async def test_whom_a_transaction_concerns_and_who_cannot_be_asked_is_named(around: World) -> None:
    log, incarnation = await around.dead()
    xid = Xid.make(CLOCK.unix_ms(), incarnation.number, 1)
    await log.append(incarnation, 0, [DecisionRecord(xid, Decision.COMMIT, (LEFT, "gone"))])
    around.log.checkpoint(Checkpoint(incarnation.number, 1))
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        await assembly.life.take_over()
        await around.hosts[LEFT].stop()
        await until(lambda: not assembly.links[LEFT].is_up)
        ran = await assembly.passes.trigger(Scope.TRANSACTION, xid=xid)
        assert ran.unreachable == (LEFT, "gone")
        assert (ran.scanned, ran.resolved, ran.failed) == (1, 0, 1)
        assert await assembly.resolution.retry(xid) is Phase.COMMITTING
        around.log.tables.delete(xid)
        around.log.tables.pruned_below_unix_ms = xid.unix_ms + 1
        with pytest.raises(UnknownTransactionError, match="older than the log"):
            await assembly.passes.trigger(Scope.TRANSACTION, xid=xid)


async def test_an_undecided_transaction_is_not_ended_by_a_pass(around: World) -> None:
    async with node(around) as assembly:
        xid = assembly.engine.begin(30.0, "default", "")
        ran = await assembly.passes.trigger(Scope.TRANSACTION, xid=xid)
        assert (ran.scanned, ran.resolved) == (1, 0)
        found = assembly.engine.find(xid)
        assert found is not None
        assert found.transaction.phase is Phase.ACTIVE


# Attention.

DECIDED_UNIX_MS = CLOCK.unix_ms() - 90_000


@asynccontextmanager
async def stuck_at_right(around: World, passes: PassSettings = BY_HAND) -> AsyncGenerator[tuple[Assembly, Xid]]:
    """A coordinator that took over a commit which RIGHT does not acknowledge."""
    xid = await around.leave(decided=True)
    rows = around.log.tables.decisions
    rows[xid] = rows[xid]._replace(decided_unix_ms=DECIDED_UNIX_MS)
    around.log_tap.fails = lambda statement: statement == "fence_expired"
    timing = Timing(retry_initial_s=0.01, retry_max_s=0.02, attempts_max=3)
    async with node(around, passes, timing=timing) as assembly:
        around.taps[RIGHT].shut()
        around.log_tap.fails = lambda _: False
        await until(lambda: xid in assembly.engine.attention)
        yield assembly, xid
        around.taps[RIGHT].open()


async def test_a_decided_transaction_asks_for_attention_and_goes_on(around: World) -> None:
    async with stuck_at_right(around) as (assembly, xid):
        status = assembly.passes.status()
        (attention,) = status.attention
        assert status.attention_count == assembly.passes.attention_count == 1
        assert attention.xid == xid
        assert attention.participants == (RIGHT,)
        assert attention.attempts >= 3
        assert attention.decided_unix_ms == DECIDED_UNIX_MS, "not when it was taken over"
        assert f"pincex tx retry {xid}" in attention.advice
        assert [each.owed for each in status.participants] == [0, 1]
        found = assembly.engine.find(xid)
        assert found is not None
        assert [event.event for event in found.view().events].count("needs_attention") == 1, "it is flagged once"
        around.taps[RIGHT].open()
        await until(lambda: assembly.passes.attention_count == 0)
        assert around.phase(RIGHT, xid) is BranchPhase.COMMITTED


async def test_one_that_is_owed_can_be_driven_and_what_is_not_acknowledged_has_failed(around: World) -> None:
    async with stuck_at_right(around, replace(BY_HAND, acknowledged_within_s=0.05)) as (assembly, xid):
        ran = await assembly.passes.trigger(Scope.TRANSACTION, xid=xid)
        assert (ran.scanned, ran.resolved, ran.failed) == (1, 0, 1)
        assert await assembly.resolution.retry(xid) is Phase.COMMITTING
        swept = await assembly.passes.trigger(Scope.PARTICIPANT, participant=RIGHT)
        assert (swept.resolved, swept.in_doubt) == (0, 1)
        around.taps[RIGHT].open()
        await until(lambda: around.phase(RIGHT, xid) is BranchPhase.COMMITTED)
        assert await assembly.resolution.retry(xid) is Phase.COMMITTED
        assert around.effects(RIGHT) == 1
