"""What is owed is told again when a participant comes back, and not while its breaker keeps from it."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from coordinator.passes import Scope
from coordinator.protocol.phases import Phase
from coordinator.protocol.timing import Timing
from participant_sdk.branch import BranchPhase
from participant_sdk.breaker import BreakerState
from tests.engine.recovering import LEFT, RIGHT, World, node, until, world
from tests.engine.test_engine import call, credit, debit

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def test_while_the_breaker_is_open_nothing_is_counted_and_afterwards_all_is_told(around: World) -> None:
    """A participant that is away is one thing to look at, not ten thousand."""
    xid = await around.leave(decided=True, prepared=(LEFT,))
    around.log_tap.fails = lambda statement: statement == "fence_expired"
    timing = Timing(retry_initial_s=0.01, retry_max_s=0.02, attempts_max=3)
    async with node(around, timing=timing) as assembly:
        await around.hosts[RIGHT].stop()
        await until(lambda: assembly.links[RIGHT].breaker_state is BreakerState.OPEN)
        around.log_tap.fails = lambda _: False
        await until(lambda: around.phase(LEFT, xid) is BranchPhase.COMMITTED)
        found = assembly.engine.find(xid)
        assert found is not None
        attempts = found.transaction.resends.attempts
        await until(lambda: found.transaction.branches.owed == [RIGHT])
        ran = await assembly.passes.trigger(Scope.GLOBAL)
        assert ran.unreachable == (RIGHT,)
        assert ran.failed == 1, "what it is owed"
        assert assembly.passes.status().participants[1].breaker is not BreakerState.CLOSED
        looked: dict[float, None] = {}

        def looked_again() -> bool:
            looked[found.transaction.resends.at_s] = None
            return len(looked) > 2 * timing.attempts_max

        await until(looked_again)
        assert found.transaction.resends.attempts <= attempts + 1
        assert assembly.passes.attention_count == 0
        await around.prepare(RIGHT, xid)
        await around.hosts[RIGHT].start()
        await until(lambda: found.transaction.phase is Phase.COMMITTED)
        assert around.effects(RIGHT) == 1


async def test_what_a_participant_is_owed_is_told_when_it_comes_back_not_when_the_next_try_is_due(
    around: World,
) -> None:
    xid = await around.leave(decided=True)
    around.log_tap.fails = lambda statement: statement == "fence_expired"
    async with node(around, timing=Timing(retry_initial_s=60, retry_max_s=60)) as assembly:
        await around.hosts[RIGHT].stop()
        await until(lambda: not assembly.links[RIGHT].is_up)
        around.log_tap.fails = lambda _: False
        await until(lambda: around.phase(LEFT, xid) is BranchPhase.COMMITTED)
        await around.hosts[RIGHT].start()
        await until(lambda: around.phase(RIGHT, xid) is BranchPhase.COMMITTED)


async def test_a_participant_that_is_down_is_owed_nothing_of_what_never_left(around: World) -> None:
    """Invariant 12: however many ask for it meanwhile, those who ask for others go on."""
    async with node(around) as assembly:
        await around.hosts[RIGHT].stop()
        await until(lambda: not assembly.links[RIGHT].is_up)
        for _ in range(20):
            assert (await assembly.engine.execute(call(debit(LEFT), credit(RIGHT)))).outcome.retry
        await until(lambda: not assembly.engine.unfinished)
        assert around.stores[LEFT].durable.accounts["a"].held == 0


async def test_a_horizon_that_rises_is_told_to_participants_and_asks_nothing_of_them(around: World) -> None:
    """R14: it rises with every pass. Nobody reports anew for it, and nothing owed is sent again before its time."""
    looks: list[str] = []
    async with node(around) as assembly:
        around.log_tap.fails = lambda name: name == "read_applied" and bool(looks.append(name))

        def told() -> int:
            return 0 if assembly.life.standing is None else assembly.life.standing.pruned_below_unix_ms

        for horizon in range(1, 6):
            around.log.tables.pruned_below_unix_ms = horizon
            await until(lambda: told() == around.log.tables.pruned_below_unix_ms)
            await assembly.engine.execute(call(debit(LEFT), credit(RIGHT)))
        assert not looks


async def test_a_new_transaction_runs_on_when_the_participant_is_back(around: World) -> None:
    async with node(around) as assembly:
        await around.hosts[RIGHT].stop()
        await until(lambda: not assembly.links[RIGHT].is_up)
        ended = await assembly.engine.execute(call(debit(LEFT), credit(RIGHT)))
        assert ended.outcome.retry
        await around.hosts[RIGHT].start()
        await until(lambda: assembly.links[RIGHT].is_up)
        await until(lambda: not assembly.engine.unfinished)
        assert around.stores[LEFT].durable.accounts["a"].held == 0
