"""Locks on real Redis servers that are killed, flushed and failed over: time is lost, and never a token's order."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from coordinator.errors import BusyError, DeadlockError, LockLostError, LockTimeoutError, UnavailableError
from coordinator.locks.claims import Claim, ClaimView, Mode, Owner, Standing
from coordinator.locks.epochs import Epochs
from coordinator.locks.grants import Grant
from coordinator.locks.lock_store import LockStore, LockStoreUnavailableError
from coordinator.locks.lock_table import LockTable
from coordinator.locks.locks import Locks, LockSettings
from coordinator.locks.looks import Looks
from coordinator.locks.memory import MemoryLockStore
from coordinator.locks.redis_address import parse_address
from coordinator.locks.redis_connection import RedisConnection
from coordinator.locks.redis_store import RedisLockStore
from coordinator.log.memory import MemoryLog
from coordinator.log.memory_store import MemoryLogStore
from coordinator.telemetry import Telemetry
from participant_sdk.clock import SystemClock
from tests.contract.lock_worlds import claim
from tests.redis_servers import failover, redis_cluster, redis_server

A, B, C = Owner("A", 1), Owner("B", 2), Owner("C", 3)
_CLOCK = SystemClock()


@asynccontextmanager
async def locking(
    address: str, *, holders: int = 1, dead: Collection[int] = (), ttl_s: float = 3.0, detection: bool = True
) -> AsyncGenerator[list[Locks]]:
    """Coordinators' locks over one Redis, or over one table in memory; nothing keeps alive what the dead ones hold."""
    log_id = random.randbytes(8).hex()
    log = MemoryLog(MemoryLogStore(_CLOCK, log_id))
    table = LockTable()
    settings = LockSettings(ttl_s, 10.0, detection)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        made: list[Locks] = []
        running: list[asyncio.Task[None]] = []
        for number in range(1, holders + 1):
            epochs, rng = Epochs(log), random.Random(number)
            if address == "memory":
                store = MemoryLockStore(table, number, epochs, _CLOCK)
            else:
                connection = RedisConnection(parse_address(address), answer_within_s=1.5)
                store = RedisLockStore(connection, log_id, number, epochs, rng)
            telemetry = Telemetry("error", io.StringIO())
            locks = Locks(store, number, settings, clock=_CLOCK, random=rng, telemetry=telemetry)
            stack.push_async_callback(locks.close)
            made.append(locks)
            if number not in dead:
                running.append(tasks.create_task(locks.run()))
        yield made
        for task in running:
            task.cancel()


async def lost(grant: Grant) -> str:
    async with asyncio.timeout(20):
        return await grant.lost


async def until_waiting(locks: Locks, count: int) -> None:
    async with asyncio.timeout(10):
        while sum(1 for view in await locks.look() if not view.is_granted) < count:  # noqa: ASYNC110 - others wait
            await asyncio.sleep(0.005)


@pytest.fixture(params=["memory", "redis"])
async def address(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory"
    address: str = request.getfixturevalue("redis").dsn
    return address


class TestWithAStoreThatIsThere:
    async def test_a_block_holds_and_lets_go(self, address: str) -> None:
        async with locking(address, holders=2) as (one, two):
            async with one.holding(A, ["block"]) as grant:
                assert grant.keys == ("block",)
                grant.check()
                waiting = asyncio.create_task(two.acquire(B, ["block"]))
                await until_waiting(two, 1)
                assert (one.count(is_granted=True), two.count(is_granted=False)) == (1, 1)
            second = await waiting
            assert second.token > grant.token
            await two.release(second)
            assert await two.look() == []

    async def test_held_for_longer_than_its_ttl_it_is_still_held(self, address: str) -> None:
        async with locking(address, holders=2, ttl_s=0.3) as (one, two):
            grant = await one.acquire(A, ["long"])
            with pytest.raises(LockTimeoutError) as raised:
                await two.acquire(B, ["long"], timeout_s=1.0)
            assert "B waits for 'long' held by A" in raised.value.message
            assert not grant.lost.done()
            await one.release(grant)

    async def test_of_a_coordinator_that_died_they_end_with_their_ttl(self, address: str) -> None:
        async with locking(address, holders=2, dead=(1,), ttl_s=1.0) as (one, two):
            await one.acquire(A, ["dead"])
            await two.acquire(B, ["dead"])
            assert [view.claim.owner for view in await two.look()] == [B]

    async def test_across_coordinators_the_youngest_of_a_circle_gives_way(self, address: str) -> None:
        async with locking(address, holders=2) as (one, two):
            first, second = await one.acquire(A, ["x"]), await two.acquire(B, ["y"])
            waiting = asyncio.create_task(two.acquire(B, ["x"]))
            await until_waiting(one, 1)
            closing = asyncio.create_task(one.acquire(A, ["y"]))
            with pytest.raises(DeadlockError) as raised:
                async with asyncio.timeout(5):
                    await waiting
            assert "A waits for 'y' held by B" in raised.value.message
            assert "B waits for 'x' held by A" in raised.value.message
            # What it held before, it holds until its owner lets go.
            await two.release(second)
            assert (await closing).token > second.token
            assert not first.lost.done()

    async def test_without_detection_a_circle_ends_by_time(self, address: str) -> None:
        async with locking(address, holders=1, detection=False) as (one,):
            await one.acquire(A, ["x2"])
            await one.acquire(B, ["y2"])
            waiting = asyncio.create_task(one.acquire(B, ["x2"], timeout_s=0.5))
            with pytest.raises(LockTimeoutError):
                await one.acquire(A, ["y2"], timeout_s=0.3)
            with pytest.raises(LockTimeoutError):
                await waiting

    async def test_a_broken_lock_is_told_with_the_reason(self, address: str) -> None:
        async with locking(address, holders=2) as (one, two):
            grant = await one.acquire(A, ["b1", "b2"])
            (claim,) = await two.break_key("b2", "it hangs")
            assert claim.owner == A
            assert await lost(grant) == "it hangs"
            with pytest.raises(LockLostError, match="it hangs"):
                grant.check()
            assert (await one.release(grant)) is None

    async def test_a_cancelled_caller_leaves_nothing(self, address: str) -> None:
        async with locking(address) as (one,):
            held = await one.acquire(A, ["c1"])
            waiting = asyncio.create_task(one.acquire(B, ["c1"]))
            await until_waiting(one, 1)
            waiting.cancel()
            await asyncio.wait([waiting])
            await one.release(held)
            async with asyncio.timeout(10):
                while await one.look():  # noqa: ASYNC110 - it leaves a moment later
                    await asyncio.sleep(0.005)
            assert one.count(is_granted=False) == 0

    async def test_what_an_owner_waits_for_can_be_withdrawn(self, address: str) -> None:
        async with locking(address) as (one,):
            await one.acquire(A, ["w1"])
            waiting = asyncio.create_task(one.acquire(B, ["w1"]))
            await until_waiting(one, 1)
            one.withdraw("B", BusyError("not any more", retry_after_s=1.0))
            with pytest.raises(BusyError, match="not any more"):
                await waiting

    async def test_sharers_hold_side_by_side(self, address: str) -> None:
        async with locking(address, holders=2) as (one, two):
            await one.acquire(A, ["s"], Mode.SHARED)
            await two.acquire(B, ["s"], Mode.SHARED)
            with pytest.raises(LockTimeoutError):
                await two.acquire(C, ["s"], timeout_s=0.2)


class TestRedisThatIsLost:
    async def test_killed_and_restarted_all_is_lost_and_tokens_rise(self, tmp_path: Path) -> None:
        """Its file may lack the last second: what it still knows is not believed."""
        async with redis_server(tmp_path / "redis") as server, locking(server.dsn, holders=2) as (one, two):
            grant = await one.acquire(A, ["k"])
            waiting = asyncio.create_task(two.acquire(B, ["k"], timeout_s=30.0))
            await until_waiting(two, 1)
            await asyncio.to_thread(server.kill)
            await server.start()
            after = await waiting
            assert await lost(grant)
            assert after.token > grant.token
            assert after.token >> 30 > grant.token >> 30

    async def test_away_for_longer_than_the_ttl_what_is_held_counts_as_lost(self, tmp_path: Path) -> None:
        async with redis_server(tmp_path / "redis") as server, locking(server.dsn, ttl_s=1.0) as (one,):
            grant = await one.acquire(A, ["k"])
            await asyncio.to_thread(server.kill)
            assert "could not be kept alive" in await lost(grant)
            with pytest.raises(UnavailableError, match="Redis does not answer"):
                await one.acquire(B, ["k"], timeout_s=0.3)
            for call in (one.look(), one.break_key("k", "why")):
                with pytest.raises(UnavailableError):
                    await call
            await server.start()
            assert (await one.acquire(B, ["k"])).token > grant.token

    async def test_flushed_again_and_again_tokens_only_rise(self, tmp_path: Path) -> None:
        async with redis_server(tmp_path / "redis") as server, locking(server.dsn, holders=2, ttl_s=1.0) as (one, two):
            tokens: list[int] = []
            for round_ in range(6):
                grant = await (one, two)[round_ % 2].acquire(A, ["k"])
                tokens.append(grant.token)
                await server.say("FLUSHALL")
                assert await lost(grant)
            assert tokens == sorted(set(tokens))

    async def test_failed_over_to_a_replica_tokens_rise(self, tmp_path: Path) -> None:
        """The replica knows the locks, and perhaps not the last of them: it begins an epoch of its own."""
        async with failover(tmp_path) as redis, locking(redis.dsn, holders=2) as (one, two):
            grant = await one.acquire(A, ["k"])
            waiting = asyncio.create_task(two.acquire(B, ["k"], timeout_s=30.0))
            await until_waiting(two, 1)
            await redis.fail_over()
            after = await waiting
            assert await lost(grant)
            assert after.token >> 30 > grant.token >> 30

    async def test_in_a_cluster_many_keys_are_one_call(self, tmp_path: Path) -> None:
        """All keys of one log have one hash tag: any of them can be locked together."""
        async with redis_cluster(tmp_path / "nodes") as nodes:
            address = f"redis+cluster://{nodes[0].address},{nodes[1].address}"
            async with locking(address, holders=2) as (one, two):
                keys = [f"account-{number}" for number in range(50)]
                grant = await one.acquire(A, keys)
                waiting = asyncio.create_task(two.acquire(B, keys[10:20]))
                await until_waiting(two, 1)
                await one.release(grant)
                assert (await waiting).token > grant.token


def store_parts() -> tuple[LockTable, int, Epochs, SystemClock]:
    return LockTable(), 1, Epochs(MemoryLog(MemoryLogStore(_CLOCK, random.randbytes(8).hex()))), _CLOCK


@asynccontextmanager
async def alone(store: LockStore) -> AsyncGenerator[Locks]:
    telemetry = Telemetry("error", io.StringIO())
    locks = Locks(store, 1, LockSettings(60.0, 10.0), clock=_CLOCK, random=random.Random(1), telemetry=telemetry)
    running = asyncio.create_task(locks.run())
    yield locks
    running.cancel()
    await asyncio.wait([running])


class OvertakenStore(MemoryLockStore):
    """Refuses the first claim; answers a claim that is asked again once its release came, and the release after it."""

    calls = releases = 0

    def __init__(self, table: LockTable, holder: int, epochs: Epochs, clock: SystemClock) -> None:
        super().__init__(table, holder, epochs, clock)
        self.claiming, self.released, self.claimed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def claim(self, claim: Claim, ttl_s: float) -> Standing:
        self.calls += 1
        if self.calls == 1:
            raise LockStoreUnavailableError("not yet")
        self.claiming.set()
        await self.released.wait()
        standing = await super().claim(claim, ttl_s)
        self.claimed.set()
        return standing

    async def release(self, ids: Collection[str]) -> None:
        await super().release(ids)
        self.releases += 1
        self.released.set()
        await self.claimed.wait()


class CountingStore(MemoryLockStore):
    """Counts looks, each of which is as large as the store, and tells none while the gate is shut."""

    looks = 0

    def __init__(self, table: LockTable, holder: int, epochs: Epochs, clock: SystemClock) -> None:
        super().__init__(table, holder, epochs, clock)
        self.looking, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def look(self) -> Sequence[ClaimView]:
        self.looks += 1
        found = await super().look()
        self.looking.set()
        await self.gate.wait()
        return found


class TestManyAtOnce:
    async def test_of_many_that_wait_too_long_all_are_told_who_held_it_and_few_look(self) -> None:
        """One look for each of a long queue would hold up the whole coordinator, over and over."""
        store, many = CountingStore(*store_parts()), 200
        async with alone(store) as locks:
            held = await locks.acquire(A, ["hot"])
            waiting = [locks.acquire(Owner(f"W{at}", at), ["hot"], timeout_s=0.2) for at in range(many)]
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(error) for error in ended} == {LockTimeoutError}
            assert all("waits for 'hot' held by A" in str(error) for error in ended)
            assert store.looks <= many // 4
            await locks.release(held)
            assert await locks.look() == []

    async def test_whoever_asks_while_others_look_is_told_of_a_later_moment(self) -> None:
        store = CountingStore(*store_parts())
        looks = Looks(store)
        await store.claim(claim("a", "A", "k"), 60.0)
        store.gate.clear()
        first = asyncio.create_task(looks.next())
        await store.looking.wait()
        others = [asyncio.create_task(looks.next()) for _ in range(10)]
        await asyncio.sleep(0)
        others[0].cancel()
        await store.claim(claim("b", "B", "k"), 60.0)
        store.gate.set()
        await asyncio.wait([first, *others])
        told = [wait.words() for wait in (await others[1]).of("b")]
        assert (told, store.looks) == (["B waits for 'k' held by A"], 2)

    async def test_what_is_claimed_again_on_its_way_out_leaves_again(self) -> None:
        """A claim whose answer was slow, and that was given up meanwhile, is not held until its TTL.

        1. The claim is sent, and given up. 2. Its release comes to the store first. 3. The claim comes there, and is
        granted. 4. Its answer comes back before that of the release.
        """
        store = OvertakenStore(*store_parts())
        async with alone(store) as locks:
            asked = asyncio.create_task(locks.acquire(A, ["k"]))
            await store.claiming.wait()
            asked.cancel()
            await asyncio.wait([asked])
            await store.released.wait()
            async with asyncio.timeout(5):
                while store.releases < 2:  # noqa: ASYNC110 - it leaves a moment later
                    await asyncio.sleep(0.005)
            assert await locks.look() == []
