"""Epochs of fencing tokens, drawn from the decision log: what makes tokens rise when a store forgets."""

from __future__ import annotations

from coordinator.locks.lock_store import LockStoreUnavailableError
from coordinator.log.decision_log import DecisionLog, LogUnavailableError, LogUncertainError


class Epochs:
    """One log's epochs. LockStoreUnavailableError where the log does not answer."""

    __slots__ = ("_log",)

    def __init__(self, log: DecisionLog) -> None:
        self._log = log

    async def draw(self, reason: str) -> int:
        """Draw the next epoch, durably."""
        try:
            return await self._log.draw_lock_epoch(reason)
        except (LogUnavailableError, LogUncertainError) as error:
            raise LockStoreUnavailableError(f"no epoch of locks can be drawn: {error}") from error

    async def highest(self) -> int:
        """The highest epoch drawn by anybody."""
        try:
            return await self._log.highest_lock_epoch()
        except LogUnavailableError as error:
            raise LockStoreUnavailableError(f"the epoch of locks cannot be read: {error}") from error
