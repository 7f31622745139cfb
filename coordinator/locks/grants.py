"""What an owner has in its hands, and what it may be told instead.

TransactionError
├── LockTimeoutError   nobody let go in time; names who stood in the way
├── DeadlockError      it waited in a circle, and gives way; says who waited for whom
└── LockLostError      it held the keys, and does not any more
"""

from __future__ import annotations

import asyncio
from typing import Final

from coordinator.errors import TransactionError
from coordinator.locks.claims import Claim
from participant_sdk.ids import Xid

DEADLOCK: Final = "DEADLOCK"
LOCK_TIMEOUT: Final = "LOCK_TIMEOUT"
LOCK_LOST: Final = "LOCK_LOST"


class LockTimeoutError(TransactionError):
    """The keys were not let go in time. Nothing is held of this call; it may be sent again."""

    reason = LOCK_TIMEOUT


class DeadlockError(TransactionError):
    """The owner waited in a circle, and is the one to give way. The message says who waited for whom."""

    reason = DEADLOCK


class LockLostError(TransactionError):
    """The owner held the keys and lost them; somebody else may hold them by now."""

    reason = LOCK_LOST


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

    def check(self, xid: Xid | None = None) -> None:
        """Raise LockLostError where the keys were lost; whoever works step by step asks before each."""
        if self.lost.done():
            raise LockLostError(f"the lock on {', '.join(self.keys)} was lost: {self.lost.result()}", xid=xid)
