"""When a transaction's outcome is told again to those who have not acknowledged it, and how often it was."""

from __future__ import annotations

from coordinator.protocol.timing import Timing
from participant_sdk.ids import Xid


class Resends:
    """The repetitions of one transaction's outcome. Mutable with slots: one for each transaction.

    They never end: past ``Timing.attempts_max`` the transaction needs attention, and they become slow.
    """

    __slots__ = ("_timing", "_xid", "at_s", "attempts")

    def __init__(self, timing: Timing, xid: Xid) -> None:
        self._timing = timing
        self._xid = xid
        self.attempts = 0
        self.at_s = 0.0

    def schedule(self, now_s: float) -> None:
        """Set the time of the next one."""
        self.at_s = now_s + self._timing.backoff_s(self.attempts, self._xid)

    def count(self, now_s: float) -> bool:
        """Count one that is sent now, and set the time of the next; True when it needs attention from now on."""
        self.attempts += 1
        self.schedule(now_s)
        return self.attempts == self._timing.attempts_max

    def postpone(self, now_s: float) -> None:
        """Count none, because nothing would reach anybody. Who can be reached again is told then at once."""
        self.at_s = now_s + self._timing.slow_s(self._xid)
