"""Since when an incarnation's lease has been renewed unbroken (R6)."""

from __future__ import annotations


class Lease:
    """Counts renewals on the coordinator's own monotonic clock.

    The log measures leases by its own clock. Here only the cautious side is known: a renewal
    took effect after it was begun and before its answer came.
    """

    __slots__ = ("_length_s", "_renewed_s", "_since_s")

    def __init__(self, length_s: float) -> None:
        self._length_s = length_s
        self._since_s = 0.0
        self._renewed_s: float | None = None

    def renewed(self, began_s: float, answered_s: float) -> None:
        """Count a confirmed renewal. One answered a lease time after the last began starts anew."""
        if self._renewed_s is None or answered_s - self._renewed_s >= self._length_s:
            self._since_s = began_s
        self._renewed_s = began_s

    def age_s(self, now_s: float) -> float:
        """How long ago the last confirmed renewal began; infinite before the first."""
        return float("inf") if self._renewed_s is None else now_s - self._renewed_s

    def unbroken_s(self, now_s: float) -> float:
        """How long the lease has been renewed without a gap; 0 when it may have lapsed."""
        if self._renewed_s is None or now_s - self._renewed_s >= self._length_s:
            return 0.0
        return self._renewed_s - self._since_s
