"""When to wake which transaction: one heap, one timer of the event loop."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final

from participant_sdk.clock import Clock
from participant_sdk.ids import Xid

DEAD_ENTRIES_FREE: Final = 4096


class Alarms:
    """At most one alarm for each xid. Setting it again replaces it; replaced entries are swept out.

    ``ring`` gets each xid whose time has come, in order of time. Entries that were replaced or dropped
    stay in the heap until they come up or until they outnumber the live ones, so memory is bounded
    by the number of live alarms.
    """

    __slots__ = ("_at_s", "_clock", "_heap", "_ring", "_timer", "_timer_at_s")

    def __init__(self, clock: Clock, ring: Callable[[Xid], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at_s: dict[Xid, float] = {}
        self._heap: list[tuple[float, Xid]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = float("inf")

    def set(self, xid: Xid, at_s: float) -> None:
        """Wake this transaction at this time, on the monotonic clock, and at no other."""
        if self._at_s.get(xid) == at_s:
            return
        self._at_s[xid] = at_s
        heapq.heappush(self._heap, (at_s, xid))
        if at_s < self._timer_at_s:
            self._arm(at_s)

    def drop(self, xid: Xid) -> None:
        """Wake this transaction no more."""
        self._at_s.pop(xid, None)
        if len(self._heap) > 2 * len(self._at_s) + DEAD_ENTRIES_FREE:
            self._heap = [(at_s, xid) for xid, at_s in self._at_s.items()]
            heapq.heapify(self._heap)

    def close(self) -> None:
        """Ring no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._at_s.clear()
        self._heap.clear()

    def _arm(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = at_s
        delay_s = max(0.0, at_s - self._clock.monotonic_s())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._due)

    def _due(self) -> None:
        self._timer, self._timer_at_s = None, float("inf")
        now_s = self._clock.monotonic_s()
        while self._heap and self._heap[0][0] <= now_s:
            at_s, xid = heapq.heappop(self._heap)
            if self._at_s.get(xid) == at_s:
                del self._at_s[xid]
                self._ring(xid)
        if self._heap:
            self._arm(self._heap[0][0])
