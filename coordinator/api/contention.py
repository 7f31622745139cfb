"""Whether this thread has to wait for a core: what the scheduler says of it, looked at now and then.

Linux counts for each thread the nanoseconds that it ran, and those that it was ready to run and waited
(``Documentation/scheduler/sched-stats.rst``). Where nobody counts, no core is ever short.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

# Chosen: a thread with a core to itself waits for next to nothing. One that shares two with its database and clients
# waits for a fifth to a third of the time where those wait for each other, and for two fifths where they do not.
HIGH: Final = 0.25
LOOK_EVERY_S: Final = 0.25

_SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")


class Contention:
    """Looks at the thread that asks, which must be the same one each time."""

    __slots__ = ("_is_high", "_looked_s", "_ran_ns", "_source", "_waited_ns")

    def __init__(self, source: Path = _SCHEDSTAT) -> None:
        self._source = source
        self._looked_s = float("-inf")
        self._ran_ns, self._waited_ns = counted(self._source)
        self._is_high = False

    def is_high(self) -> bool:
        """Whether, of the time that it was ready to run, it lately waited for a core for ``HIGH`` or more."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            ran_ns, waited_ns = counted(self._source)
            ran, waited = ran_ns - self._ran_ns, waited_ns - self._waited_ns
            self._ran_ns, self._waited_ns = ran_ns, waited_ns
            self._is_high = waited > 0 and waited >= HIGH * (ran + waited)
        return self._is_high


def counted(source: Path = _SCHEDSTAT) -> tuple[int, int]:
    """Nanoseconds that this thread ran, and that it was ready and waited; none where the kernel does not tell."""
    try:
        ran_ns, waited_ns, _ = source.read_text().split()
        return int(ran_ns), int(waited_ns)
    except (OSError, ValueError):
        return 0, 0
