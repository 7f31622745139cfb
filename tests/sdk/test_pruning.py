"""A served participant drops finished branches by the log's horizon, and by nothing else (R14)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.hello import Introduction
from participant_sdk.ids import Xid
from participant_sdk.known_logs import HORIZON_AGE_MIN_MS
from participant_sdk.participant import Rollback
from participant_sdk.pruning import Pruning
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import BranchKey, MemoryStore
from participant_sdk.server import Serving, serving
from tests.sdk.peers import CLOCK, EPOCH, LOG_ID, NAME

HOUR_MS = 3_600_000
OTHER_LOG = "00000000000000bb"


class Prunable(MemoryResource):
    """Counts what it is asked to drop, and fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__(NAME, MemoryStore({"a": 1000}), CLOCK)
        self.asked: list[tuple[str, int]] = []
        self.failures = 0
        self._asked = asyncio.Event()

    async def prune(self, log_id: str, below_unix_ms: int, limit: int) -> int:
        self.asked.append((log_id, below_unix_ms))
        self._asked.set()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the database is away")
        return await super().prune(log_id, below_unix_ms, limit)

    async def bury(self, unix_ms: int, count: int, log_id: str = LOG_ID) -> list[Xid]:
        """Leave tombstones of transactions of that time."""
        xids = [Xid.make(unix_ms, EPOCH, at) for at in range(1, count + 1)]
        await self.rollback([Rollback(log_id, xid) for xid in xids])
        return xids

    def keeps(self, xids: Sequence[Xid], log_id: str = LOG_ID) -> list[bool]:
        return [BranchKey(log_id, xid) in self._store.durable.branches for xid in xids]

    async def asked_times(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.asked) < times:
                self._asked.clear()
                await self._asked.wait()


@asynccontextmanager
async def served(resource: Prunable) -> AsyncGenerator[tuple[Serving, GrpcResourceCalls]]:
    async with serving(resource, "127.0.0.1:0", grace_s=0) as serves:
        calls = GrpcResourceCalls(f"127.0.0.1:{serves.port}", clock=CLOCK)
        yield serves, calls
        await calls.close()


def introduction(horizon_ms: int, log_id: str = LOG_ID) -> Introduction:
    return Introduction(log_id, "c", EPOCH, EPOCH, ("127.0.0.1:1",), horizon_ms)


async def until_pruned(pruning: Pruning, count: int) -> None:
    async with asyncio.timeout(20):
        while pruning.pruned < count:  # noqa: ASYNC110 - the counter has no event for us.
            await asyncio.sleep(0.01)


async def test_what_is_below_the_horizon_goes_in_rounds_and_the_rest_stays() -> None:
    resource, now_ms = Prunable(), CLOCK.unix_ms()
    old = await resource.bury(now_ms - 4 * HOUR_MS, 2_500)
    young = await resource.bury(now_ms - HOUR_MS, 10)
    other = await resource.bury(now_ms - 4 * HOUR_MS, 10, OTHER_LOG)
    async with served(resource) as (serves, calls):
        assert not (await calls.hello(introduction(now_ms - 3 * HOUR_MS))).refusal
        await until_pruned(serves.pruning, len(old))
    assert not any(resource.keeps(old))
    assert all(resource.keeps(young))
    assert all(resource.keeps(other, OTHER_LOG))
    assert len(resource.asked) == 3


async def test_nothing_is_dropped_by_the_participants_own_clock() -> None:
    """Without a horizon everything stays, however old."""
    resource = Prunable()
    old = await resource.bury(1, 5)
    async with served(resource) as (_, calls):
        await calls.hello(introduction(0))
        # A later introduction with one is the event that shows nothing had been asked before.
        await calls.hello(introduction(2, OTHER_LOG))
        await resource.asked_times(1)
    assert resource.asked == [(OTHER_LOG, 2)]
    assert all(resource.keeps(old))


@pytest.mark.parametrize("ahead_ms", [1_000, HORIZON_AGE_MIN_MS, 24 * HOUR_MS])
async def test_a_horizon_that_is_too_young_or_in_the_future_is_not_believed(ahead_ms: int) -> None:
    """R10: a late Prepare that might still be let in must find its tombstone."""
    resource = Prunable()
    limit_ms = CLOCK.unix_ms() - HORIZON_AGE_MIN_MS
    tombs = await resource.bury(limit_ms - HOUR_MS, 3)
    async with served(resource) as (_, calls):
        assert not (await calls.hello(introduction(limit_ms + 1_000 + ahead_ms))).refusal
        await calls.hello(introduction(2, OTHER_LOG))
        await resource.asked_times(1)
    assert resource.asked == [(OTHER_LOG, 2)]
    assert all(resource.keeps(tombs))


async def test_a_horizon_never_goes_back_and_is_gone_through_once() -> None:
    resource, now_ms = Prunable(), CLOCK.unix_ms()
    horizon_ms = now_ms - 3 * HOUR_MS
    async with served(resource) as (_, calls):
        for each_ms in (horizon_ms, horizon_ms, horizon_ms - HOUR_MS):
            await calls.hello(introduction(each_ms))
        await resource.asked_times(1)
        await calls.hello(introduction(horizon_ms + 1_000))
        await resource.asked_times(2)
    assert resource.asked == [(LOG_ID, horizon_ms), (LOG_ID, horizon_ms + 1_000)]


async def test_a_round_that_fails_is_tried_again() -> None:
    """Work goes on meanwhile: dropping is nobody's to wait for."""
    resource, now_ms = Prunable(), CLOCK.unix_ms()
    old = await resource.bury(now_ms - 4 * HOUR_MS, 10)
    resource.failures = 1
    async with served(resource) as (serves, calls):
        await calls.hello(introduction(now_ms - 3 * HOUR_MS))
        await resource.asked_times(1)
        assert await resource.branch(LOG_ID, old[0]) is not None
        await until_pruned(serves.pruning, len(old))
        assert serves.pruning.failures == 1
    assert await resource.branch(LOG_ID, old[0]) is None
