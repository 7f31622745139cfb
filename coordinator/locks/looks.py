"""Looks at the lock store that many share: each is large, and those who want one often want it at once."""

from __future__ import annotations

import asyncio

from coordinator.locks.deadlock import Waits
from coordinator.locks.lock_store import LockStore


class Looks:
    """Looks at one store, one after the other; all who came while one was under way share the next."""

    __slots__ = ("_asked", "_found", "_looking", "_store", "_told")

    def __init__(self, store: LockStore) -> None:
        self._store = store
        self._looking = asyncio.Lock()
        # How many have asked, and how many of those had asked before the last look began.
        self._asked = 0
        self._told = 0
        self._found = Waits(())

    async def next(self) -> Waits:
        """Who waits for whom, as of a moment after this call began. LockStoreUnavailableError."""
        self._asked += 1
        mine = self._asked
        async with self._looking:
            if self._told < mine:
                # Whoever is about to ask in this round of the loop shares it too.
                await asyncio.sleep(0)
                until = self._asked
                self._found = Waits(await self._store.look())
                self._told = until
            return self._found
