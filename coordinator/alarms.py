"""When to wake which transaction: one heap, one sleeping task."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable
from typing import Final

from participant_sdk.clock import Clock
from participant_sdk.ids import Xid

DEAD_ENTRIES_FREE: Final = 4096


class Alarms:
    """At most one alarm for each xid. Setting it again replaces it; replaced entries are swept out.

    ``ring`` gets each xid whose time has come, in order of time, while ``run`` runs; what it raises ends
    ``run``. An alarm that is put off keeps its entry in the heap, and goes on from there when that comes up: so
    one that is put off several times before it is dropped, as nearly all are, costs the heap once. Entries that
    were replaced or dropped stay until they come up or until they outnumber the live ones, so memory is bounded
    by the number of live alarms.
    """

    __slots__ = ("_at_s", "_clock", "_earlier", "_heap", "_next_s", "_ring")

    def __init__(self, clock: Clock, ring: Callable[[Xid], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at_s: dict[Xid, float] = {}
        self._heap: list[tuple[float, Xid]] = []
        self._next_s = float("inf")
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        """Entries kept, dead ones too."""
        return len(self._heap)

    def set(self, xid: Xid, at_s: float) -> None:
        """Wake this transaction at this time, on the monotonic clock, and at no other."""
        before_s = self._at_s.get(xid)
        self._at_s[xid] = at_s
        if before_s is not None and before_s <= at_s:
            return
        heapq.heappush(self._heap, (at_s, xid))
        if at_s < self._next_s:
            self._earlier.set()

    def drop(self, xid: Xid) -> None:
        """Wake this transaction no more."""
        self._at_s.pop(xid, None)
        if len(self._heap) > 2 * len(self._at_s) + DEAD_ENTRIES_FREE:
            self._heap = [(at_s, xid) for xid, at_s in self._at_s.items()]
            heapq.heapify(self._heap)

    def clear(self) -> None:
        """Forget every alarm."""
        self._at_s.clear()
        self._heap.clear()

    async def run(self) -> None:
        """Ring what is due, until cancelled."""
        while True:
            self._earlier.clear()
            self._next_s = self._heap[0][0] if self._heap else float("inf")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._earlier.wait()
            self._ring_due()

    def _wait_s(self) -> float | None:
        return max(0.0, self._next_s - self._clock.monotonic_s()) if self._heap else None

    def _ring_due(self) -> None:
        now_s = self._clock.monotonic_s()
        while self._heap and self._heap[0][0] <= now_s:
            at_s, xid = heapq.heappop(self._heap)
            set_s = self._at_s.get(xid, 0.0)
            if set_s > at_s:
                heapq.heappush(self._heap, (set_s, xid))
            elif set_s == at_s:
                del self._at_s[xid]
                self._ring(xid)
