"""When to wake which transaction: slots of time, one sleeping task."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Callable
from typing import Final

from participant_sdk.clock import Clock
from participant_sdk.ids import Xid

SLOT_S: Final = 0.25


class Alarms:
    """At most one alarm for each xid. Setting it again replaces it.

    ``ring`` gets each xid whose time has come, in order of time, while ``run`` runs; what it raises ends
    ``run``. Nearly all alarms are put off and dropped long before they would ring, thousands a second: so each lies in
    the slot of its time, from where it is taken without a trace, and only a slot that has come is put in order, in a
    heap. What is put off or dropped after that stays in the heap until its time, which is a slot's length at most.
    """

    __slots__ = ("_at_s", "_clock", "_come", "_due", "_earlier", "_next_s", "_ring", "_slots")

    def __init__(self, clock: Clock, ring: Callable[[Xid], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at_s: dict[Xid, float] = {}
        # Those that have not come, by number; none is empty. Dictionaries for their order.
        self._slots: dict[float, dict[Xid, None]] = {}
        # The last one that has come, and what was in all that have.
        self._come = float("-inf")
        self._due: list[tuple[float, Xid]] = []
        self._next_s = float("inf")
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        """Alarms that are set."""
        return len(self._at_s)

    def set(self, xid: Xid, at_s: float) -> None:
        """Wake this transaction at this time, on the monotonic clock, and at no other."""
        if xid in self._at_s:
            self.drop(xid)
        self._at_s[xid] = at_s
        number = at_s // SLOT_S
        if number <= self._come:
            heapq.heappush(self._due, (at_s, xid))
        elif (slot := self._slots.get(number)) is not None:
            slot[xid] = None
        else:
            self._slots[number] = {xid: None}
        if at_s < self._next_s:
            self._earlier.set()

    def drop(self, xid: Xid) -> None:
        """Wake this transaction no more."""
        at_s = self._at_s.pop(xid, None)
        if at_s is None:
            return
        number = at_s // SLOT_S
        if number > self._come:
            slot = self._slots[number]
            del slot[xid]
            if not slot:
                del self._slots[number]

    def clear(self) -> None:
        """Forget every alarm."""
        self._at_s.clear()
        self._slots.clear()
        self._due.clear()

    async def run(self) -> None:
        """Ring what is due, until cancelled."""
        while True:
            self._earlier.clear()
            self._next_s = self._next()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._earlier.wait()
            self._ring_due()

    def _next(self) -> float:
        """When to look again: not later than the first alarm."""
        if self._due:
            return self._due[0][0]
        return min(self._slots) * SLOT_S if self._slots else float("inf")

    def _wait_s(self) -> float | None:
        return max(0.0, self._next_s - self._clock.monotonic_s()) if self._at_s or self._due else None

    def _ring_due(self) -> None:
        now_s = self._clock.monotonic_s()
        self._come_to(now_s // SLOT_S)
        while self._due and self._due[0][0] <= now_s:
            at_s, xid = heapq.heappop(self._due)
            if self._at_s.get(xid) == at_s:
                del self._at_s[xid]
                self._ring(xid)

    def _come_to(self, number: float) -> None:
        """Put in order what lies in the slots up to this one."""
        if number <= self._come:
            return
        for come in [each for each in self._slots if each <= number]:
            self._due += [(self._at_s[xid], xid) for xid in self._slots.pop(come)]
        heapq.heapify(self._due)
        self._come = number
