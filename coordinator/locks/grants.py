"""What an owner has in its hands."""

from __future__ import annotations

import asyncio

from coordinator.errors import LockLostError
from coordinator.locks.claims import Claim


class Grant:
    """Keys that an owner holds until it is released or ``lost``.

    ``token`` is above every token that these keys had before; a participant that has seen a higher one refuses.
    ``lost`` is a future of why they were lost: await it, look whether it is done, or have it call back.
    """

    __slots__ = ("claim", "lost", "token")

    def __init__(self, claim: Claim, token: int) -> None:
        self.claim = claim
        self.token = token
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, sorted."""
        return self.claim.keys

    def check(self) -> None:
        """Raise LockLostError where the keys were lost; whoever works step by step asks before each."""
        if self.lost.done():
            raise LockLostError(f"the lock on {', '.join(self.keys)} was lost: {self.lost.result()}")
