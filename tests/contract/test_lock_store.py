"""The contract of ``LockStore``, on the store in memory and on the one on a real Redis."""

from __future__ import annotations

import asyncio

from coordinator.locks.claims import WAITING_MAX, Mode, Phase
from coordinator.locks.lock_store import LockStore
from tests.contract.lock_worlds import SHORT_TTL_S, TTL_S, LockWorld, claim, granted, heard, phases, until_phase

SHARED = Mode.SHARED


class TestGranting:
    async def test_what_is_free_is_granted_and_what_is_held_waits(self, locks: LockStore) -> None:
        assert await granted(locks, claim("a", "A", "k")) > 0
        assert (await locks.claim(claim("b", "B", "k"), TTL_S)).phase is Phase.WAITING
        await locks.release(["a"])
        assert await phases(locks, "a", "b") == [Phase.GONE, Phase.GRANTED]

    async def test_a_claim_asked_again_stands_where_it_stood(self, locks: LockStore) -> None:
        token = await granted(locks, claim("a", "A", "k"))
        assert await granted(locks, claim("a", "A", "k")) == token
        await locks.claim(claim("b", "B", "k"), TTL_S)
        await locks.claim(claim("b", "B", "k"), TTL_S)
        assert [view.claim.id for view in await locks.look()] == ["a", "b"]

    async def test_many_keys_are_granted_all_or_none(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "l"))
        assert (await locks.claim(claim("b", "B", "k", "l", "m"), TTL_S)).phase is Phase.WAITING
        assert [view.token > 0 for view in await locks.look()] == [True, False]
        await locks.release(["a"])
        assert await phases(locks, "b") == [Phase.GRANTED]

    async def test_shared_holders_stand_side_by_side_and_an_exclusive_one_alone(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k", mode=SHARED))
        await granted(locks, claim("b", "B", "k", mode=SHARED))
        await locks.claim(claim("c", "C", "k"), TTL_S)
        await locks.release(["a"])
        assert await phases(locks, "c") == [Phase.WAITING]
        await locks.release(["b"])
        assert await phases(locks, "c") == [Phase.GRANTED]

    async def test_nobody_overtakes_who_excludes_it(self, locks: LockStore) -> None:
        """The queue is fair: a stream of readers does not starve a writer."""
        await granted(locks, claim("a", "A", "k", mode=SHARED))
        await locks.claim(claim("b", "B", "k"), TTL_S)
        assert (await locks.claim(claim("c", "C", "k", mode=SHARED), TTL_S)).phase is Phase.WAITING
        await locks.release(["a"])
        assert await phases(locks, "b", "c") == [Phase.GRANTED, Phase.WAITING]
        await locks.release(["b"])
        assert await phases(locks, "c") == [Phase.GRANTED]

    async def test_a_claim_of_many_keys_keeps_its_place_in_every_queue(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k"))
        await locks.claim(claim("b", "B", "k", "l"), TTL_S)
        assert (await locks.claim(claim("c", "C", "l"), TTL_S)).phase is Phase.WAITING
        await locks.release(["b"])
        assert await phases(locks, "c") == [Phase.GRANTED]

    async def test_those_who_wait_are_granted_by_the_place_in_which_they_came(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k"))
        for number in range(20):
            await locks.claim(claim(f"w{number}", f"W{number}", "k"), TTL_S)
        tokens: list[int] = []
        for before, number in zip(["a", *(f"w{n}" for n in range(19))], range(20), strict=True):
            await locks.release([before])
            tokens.append((await locks.beat([f"w{number}"], TTL_S))[f"w{number}"].token)
        assert tokens == sorted(tokens)
        assert all(tokens)

    async def test_an_owner_excludes_nothing_of_its_own(self, locks: LockStore) -> None:
        first = await granted(locks, claim("a1", "A", "k"))
        assert await granted(locks, claim("a2", "A", "k", "l")) > first
        await locks.claim(claim("b", "B", "k"), TTL_S)
        await locks.release(["a1"])
        assert await phases(locks, "b") == [Phase.WAITING]
        await locks.release(["a2"])
        assert await phases(locks, "b") == [Phase.GRANTED]

    async def test_a_holder_goes_on_before_those_who_wait_for_it(self, locks: LockStore) -> None:
        """A shared holder that wants the key alone waits for the other holders, and not for the queue."""
        await granted(locks, claim("a", "A", "k", mode=SHARED))
        await granted(locks, claim("b", "B", "k", mode=SHARED))
        await locks.claim(claim("c", "C", "k"), TTL_S)
        assert (await locks.claim(claim("a2", "A", "k"), TTL_S)).phase is Phase.WAITING
        await locks.release(["b"])
        assert await phases(locks, "a2", "c") == [Phase.GRANTED, Phase.WAITING]

    async def test_the_queue_is_bounded(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k"))
        for number in range(WAITING_MAX):
            await locks.claim(claim(f"w{number}", f"W{number}", "k"), TTL_S)
        assert (await locks.claim(claim("late", "L", "j", "k"), TTL_S)).phase is Phase.FULL
        assert await phases(locks, "late") == [Phase.GONE]
        await granted(locks, claim("j", "J", "j"))


class TestEnds:
    async def test_who_is_not_kept_alive_loses_its_place(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k"), SHORT_TTL_S)
        await locks.claim(claim("b", "B", "k"), SHORT_TTL_S)
        await locks.claim(claim("c", "C", "k"), TTL_S)
        await until_phase(locks, "c", Phase.GRANTED)
        assert await phases(locks, "a", "b") == [Phase.GONE, Phase.GONE]

    async def test_a_beat_keeps_alive(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k"), SHORT_TTL_S * 4)
        await locks.claim(claim("b", "B", "k"), TTL_S)
        assert (await locks.beat(["a"], TTL_S))["a"].phase is Phase.GRANTED
        # Another claim, which nobody keeps alive, tells that the first TTL has passed.
        await granted(locks, claim("clock", "C", "other"), SHORT_TTL_S * 5)
        await locks.claim(claim("witness", "W", "other"), TTL_S)
        await until_phase(locks, "witness", Phase.GRANTED)
        assert await phases(locks, "a", "b") == [Phase.GRANTED, Phase.WAITING]

    async def test_who_waits_can_be_condemned_and_is_told_why(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k"))
        await locks.claim(claim("b", "B", "k"), TTL_S)
        await locks.claim(claim("c", "C", "k"), TTL_S)
        assert await locks.condemn("b", "a circle")
        standing = (await locks.beat(["b"], TTL_S))["b"]
        assert (standing.phase, standing.why) == (Phase.CONDEMNED, "a circle")
        assert [view.claim.id for view in await locks.look()] == ["a", "c"]
        await locks.release(["a"])
        assert await phases(locks, "b", "c") == [Phase.CONDEMNED, Phase.GRANTED]
        await locks.release(["b"])
        assert await phases(locks, "b") == [Phase.GONE]

    async def test_who_holds_or_is_not_there_is_not_condemned(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k"))
        assert not await locks.condemn("a", "why")
        assert not await locks.condemn("nobody", "why")
        assert await phases(locks, "a") == [Phase.GRANTED]

    async def test_breaking_a_key_ends_its_holders_with_all_they_hold(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k", "l", mode=SHARED))
        await granted(locks, claim("b", "B", "k", mode=SHARED))
        await locks.claim(claim("c", "C", "l"), TTL_S)
        broken = await locks.break_key("k", "it hangs")
        assert sorted(each.id for each in broken) == ["a", "b"]
        assert {each.owner.name for each in broken} == {"A", "B"}
        told = await locks.beat(["a", "b", "c"], TTL_S)
        assert [told[id_].phase for id_ in "abc"] == [Phase.BROKEN, Phase.BROKEN, Phase.GRANTED]
        assert told["a"].why == "it hangs"
        assert await locks.break_key("nothing", "why") == []

    async def test_releasing_what_is_not_there_changes_nothing(self, locks: LockStore) -> None:
        await granted(locks, claim("a", "A", "k"))
        await locks.release(["nobody"])
        await locks.release([])
        assert await phases(locks, "a") == [Phase.GRANTED]


class TestTokens:
    async def test_tokens_rise(self, lock_world: LockWorld) -> None:
        one, two = lock_world.handle(1), lock_world.handle(2)
        tokens: list[int] = []
        for number in range(10):
            store = (one, two)[number % 2]
            tokens.append(await granted(store, claim(f"c{number}", f"O{number}", "k", holder=number % 2 + 1)))
            await store.release([f"c{number}"])
        assert tokens == sorted(set(tokens))

    async def test_a_store_that_lost_everything_gives_higher_tokens_and_knows_nobody(
        self, lock_world: LockWorld
    ) -> None:
        """Whatever it forgot, a token is never given twice: an epoch from the log stands above the count."""
        one, two = lock_world.handle(1), lock_world.handle(2)
        highest = 0
        for round_ in range(3):
            before = [await granted(one, claim(f"{round_}-{n}", "A", f"k{n}")) for n in range(5)]
            assert min(before) > highest
            highest = max(before)
            await lock_world.lose()
            assert set(await phases(two, f"{round_}-0", f"{round_}-4")) == {Phase.GONE}
        assert await granted(two, claim("last", "B", "k0")) > highest

    async def test_two_that_find_it_lost_begin_one_epoch_between_them(self, lock_world: LockWorld) -> None:
        stores = [lock_world.handle(number) for number in range(1, 5)]
        before = await granted(stores[0], claim("before", "Z", "z"))
        for _ in range(5):
            await lock_world.lose()
            told = await asyncio.gather(
                *(store.claim(claim(f"c{at}", f"O{at}", "k", holder=at), TTL_S) for at, store in enumerate(stores, 1))
            )
            assert sorted(each.phase for each in told) == [Phase.WAITING] * 3 + [Phase.GRANTED]
            token = max(each.token for each in told)
            assert token > before
            before = token

    async def test_an_epoch_that_was_overtaken_while_it_began_is_not_used(self, lock_world: LockWorld) -> None:
        """Somebody draws and is held up; others draw, use and lose theirs; then the first goes on."""
        gate = asyncio.Event()
        slow, fast = lock_world.handle(1, held_up_by=gate), lock_world.handle(2)
        waiting = asyncio.create_task(slow.claim(claim("slow", "A", "k"), TTL_S))
        async with asyncio.timeout(10):
            while not await lock_world.log.highest_lock_epoch():  # noqa: ASYNC110 - the log tells nobody
                await asyncio.sleep(0.001)
        token = await granted(fast, claim("fast", "B", "k", holder=2))
        await lock_world.lose()
        gate.set()
        late = await waiting
        assert late.phase is Phase.GRANTED
        assert late.token > token


class TestNews:
    async def test_a_grant_is_news_to_who_waited(self, lock_world: LockWorld) -> None:
        one, two = lock_world.handle(1), lock_world.handle(2)
        await granted(one, claim("a", "A", "k", holder=1))
        await two.claim(claim("b", "B", "k", holder=2), TTL_S)
        hearing = asyncio.create_task(heard(two))
        await one.release(["a"])
        assert await hearing == {"b"}
        assert await phases(two, "b") == [Phase.GRANTED]

    async def test_an_end_by_others_is_news(self, lock_world: LockWorld) -> None:
        one, two = lock_world.handle(1), lock_world.handle(2)
        await granted(one, claim("a", "A", "k", holder=1))
        await two.claim(claim("b", "B", "k", holder=2), TTL_S)
        await one.condemn("b", "why")
        assert await heard(two) == {"b"}
        await two.break_key("k", "why")
        assert await heard(one) == {"a"}

    async def test_without_news_it_comes_back_with_nothing(self, locks: LockStore) -> None:
        assert list(await locks.news(0.05)) == []


class TestLooking:
    async def test_a_look_shows_everything_by_place(self, locks: LockStore) -> None:
        token = await granted(locks, claim("a", "A", "k", "l", mode=SHARED, born=17, holder=4))
        await locks.claim(claim("b", "B", "l", born=18, holder=5), TTL_S)
        held, waiting = await locks.look()
        assert held.claim == claim("a", "A", "k", "l", mode=SHARED, born=17, holder=4)
        assert waiting.claim == claim("b", "B", "l", born=18, holder=5)
        assert (held.token, waiting.token) == (token, 0)
        assert held.is_granted and not waiting.is_granted
        assert held.place < waiting.place
        assert 0 < held.ttl_ms <= TTL_S * 1000
        assert held.for_ms >= 0
