"""When to wake which transaction: slots of time, one sleeping task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from participant_sdk.clock import Clock
from participant_sdk.ids import Xid

# A power of two, so that a time divides exactly.
SLOT_S: Final = 0.25


class Alarms:
    """At most one alarm for each xid. Setting it again replaces it, and what was replaced or dropped is gone.

    ``ring`` gets each xid whose time has come, in order of time, while ``run`` runs; what it raises ends
    ``run``. Nearly all alarms are put off and dropped before they ring, thousands a second. So each lies in the slot
    of its time, where that costs the same however many there are, and only a slot that has come is put in order.
    """

    __slots__ = ("_clock", "_earlier", "_next_s", "_ring", "_slot_of", "_slots")

    def __init__(self, clock: Clock, ring: Callable[[Xid], None]) -> None:
        self._clock = clock
        self._ring = ring
        # By number: times by xid. None of them is empty.
        self._slots: dict[float, dict[Xid, float]] = {}
        self._slot_of: dict[Xid, float] = {}
        self._next_s = float("inf")
        self._earlier = asyncio.Event()

    def __len__(self) -> int:
        """Alarms kept."""
        return len(self._slot_of)

    def set(self, xid: Xid, at_s: float) -> None:
        """Wake this transaction at this time, on the monotonic clock, and at no other."""
        if xid in self._slot_of:
            self.drop(xid)
        number = self._slot_of[xid] = at_s // SLOT_S
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
        slot[xid] = at_s
        if at_s < self._next_s:
            self._earlier.set()

    def drop(self, xid: Xid) -> None:
        """Wake this transaction no more."""
        number = self._slot_of.pop(xid, None)
        if number is not None:
            slot = self._slots[number]
            del slot[xid]
            if not slot:
                del self._slots[number]

    def clear(self) -> None:
        """Forget every alarm."""
        self._slot_of.clear()
        self._slots.clear()

    async def run(self) -> None:
        """Ring what is due, until cancelled."""
        while True:
            self._earlier.clear()
            self._next_s = min(self._slots[min(self._slots)].values()) if self._slots else float("inf")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s()):
                    await self._earlier.wait()
            self._ring_due()

    def _wait_s(self) -> float | None:
        return max(0.0, self._next_s - self._clock.monotonic_s()) if self._slots else None

    def _ring_due(self) -> None:
        now_s = self._clock.monotonic_s()
        while due := self._due(now_s):
            for at_s, xid in due:
                # Whoever was woken before may have had it put off, or dropped.
                if self._slots.get(at_s // SLOT_S, {}).get(xid) == at_s:
                    self.drop(xid)
                    self._ring(xid)

    def _due(self, now_s: float) -> list[tuple[float, Xid]]:
        """What is due of the first slot, in order."""
        if not self._slots:
            return []
        return sorted([(at_s, xid) for xid, at_s in self._slots[min(self._slots)].items() if at_s <= now_s])
