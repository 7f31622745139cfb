"""The seam under the locks: where claims are kept, in memory or in Redis.

Both stores pass ``tests/contract/test_lock_store.py``. A store does single atomic statements;
patience, heartbeats and deadlocks belong to ``locks.py``. Every call may raise
``LockStoreUnavailableError``, after which it may have happened or not: all of them may be sent
again, because claims have names.

When a store may have lost what it knew, every claim is GONE and a new epoch begins before the
next grant, so no fencing token is ever given twice, and later ones are higher.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from coordinator.locks.claims import Claim, ClaimView, Standing


class LockStoreUnavailableError(Exception):
    """The store, or the log that it draws epochs from, did not answer. What was asked may have happened."""


class LockStore(Protocol):
    """One coordinator's way to the store. ``news`` is for one task at a time."""

    async def claim(self, claim: Claim, ttl_s: float) -> Standing:
        """Grant a claim, or have it wait behind all that came before; asked again, tell where it stands.

        It waits for whoever holds one of its keys in a mode that excludes its own, and for whoever waited for one
        before, unless its owner holds that key already. Claims of one owner exclude nothing of each other.
        """
        ...

    async def release(self, ids: Collection[str]) -> None:
        """Forget these claims, held or waiting, and grant what only they stood in the way of."""
        ...

    async def beat(self, ids: Sequence[str], ttl_s: float) -> Mapping[str, Standing]:
        """Keep claims alive for so long from now, and tell where each stands; GONE for those not known."""
        ...

    async def condemn(self, id_: str, why: str) -> bool:
        """End a claim that waits, for good; False where it does not wait any more."""
        ...

    async def break_key(self, key: str, why: str) -> Sequence[Claim]:
        """End every claim that holds this key, with all its other keys; return them."""
        ...

    async def look(self) -> Sequence[ClaimView]:
        """Every claim that holds or waits, as of one moment, by place."""
        ...

    async def news(self, within_s: float) -> Collection[str]:
        """Wait for claims of this coordinator whose standing others changed; nothing when none came in time.

        News may be lost, and beats tell the same.
        """
        ...

    async def close(self) -> None:
        """Let go of connections. Claims stay until they expire."""
        ...
