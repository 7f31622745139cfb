"""Time, as an argument: the machine's clocks, or the simulation's."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one for intervals, one for people and identifiers."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back. Only differences mean anything."""
        ...

    def unix_ms(self) -> int:
        """Milliseconds since 1970, as this machine believes; it may jump either way."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    # Itself, for it is asked several times for every transaction.
    monotonic_s = staticmethod(time.monotonic)

    def unix_ms(self) -> int:
        """Milliseconds since 1970 on the system's wall clock."""
        return time.time_ns() // 1_000_000
