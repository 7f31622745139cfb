"""The lock store in memory: for one coordinator without Redis, and for tests of what stands above.

What it holds ends with the process; the next one begins an epoch of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from coordinator.locks.claims import Claim, ClaimView, Standing
from coordinator.locks.epochs import Epochs
from coordinator.locks.lock_table import LockTable
from participant_sdk.clock import Clock


class MemoryLockStore:
    """One coordinator's way to a table in memory. It passes the same contract suite as ``RedisLockStore``."""

    def __init__(self, table: LockTable, holder: int, epochs: Epochs, clock: Clock) -> None:
        self._table = table
        self._holder = holder
        self._epochs = epochs
        self._clock = clock
        self._beginning = asyncio.Lock()

    async def claim(self, claim: Claim, ttl_s: float) -> Standing:
        """Grant a claim, or have it wait."""
        return (await self._current()).claim(claim, ttl_s, self._clock.monotonic_s())

    async def release(self, ids: Collection[str]) -> None:
        """Forget these claims."""
        (await self._current()).release(ids, self._clock.monotonic_s())

    async def beat(self, ids: Sequence[str], ttl_s: float) -> Mapping[str, Standing]:
        """Keep claims alive, and tell where each stands."""
        return (await self._current()).beat(ids, ttl_s, self._clock.monotonic_s())

    async def condemn(self, id_: str, why: str) -> bool:
        """End a claim that waits."""
        return (await self._current()).condemn(id_, why, self._clock.monotonic_s())

    async def break_key(self, key: str, why: str) -> Sequence[Claim]:
        """End every claim that holds this key."""
        return (await self._current()).break_key(key, why, self._clock.monotonic_s())

    async def look(self) -> Sequence[ClaimView]:
        """Every claim that holds or waits."""
        return (await self._current()).look(self._clock.monotonic_s())

    async def news(self, within_s: float) -> Collection[str]:
        """Wait for claims whose standing others changed."""
        table = self._table
        try:
            async with asyncio.timeout(within_s):
                while not (told := table.take_news(self._holder)):
                    table.changed.clear()
                    await table.changed.wait()
        except TimeoutError:
            return ()
        return told

    async def close(self) -> None:
        """Nothing to let go of."""

    async def _current(self) -> LockTable:
        """The table, in an epoch."""
        async with self._beginning:
            while not self._table.epoch or self._table.is_used_up:
                epoch = await self._epochs.draw("the store in memory of a coordinator that started, or has none left")
                # Another store of this table may have begun a higher one meanwhile, and even lost it.
                if epoch > self._table.highest_epoch:
                    self._table.begin(epoch)
        return self._table
