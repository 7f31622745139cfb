"""Telling decided transactions' outcomes again, beside their own timers: to one participant, or of one transaction.

A participant may be owed a hundred thousand of them, so they are walked in slices: nothing else
waits longer than for one slice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from coordinator.running import Running
from participant_sdk.ids import Xid

SLICE_MAX: Final = 200


class Resending:
    """Walks the engine's transactions. ``reach`` tells one participant one transaction's outcome again, if it is owed.

    ``run`` must run for what ``soon`` asks for.
    """

    __slots__ = ("_due", "_reach", "_running", "_wake")

    def __init__(self, running: Mapping[Xid, Running], reach: Callable[[Running, str], None]) -> None:
        self._running = running
        self._reach = reach
        # A dictionary for its order.
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()

    def owed(self) -> Counter[str]:
        """How many decided transactions each participant has not acknowledged. It looks at all: not for often."""
        counts: Counter[str] = Counter()
        for running in self._running.values():
            if running.transaction.decision is not None:
                counts.update(running.transaction.branches.owed)
        return counts

    def soon(self, participant: str) -> None:
        """Tell this participant everything that it is owed, beginning in the next step of the loop."""
        self._due[participant] = None
        self._wake.set()

    def one(self, running: Running, participant: str) -> None:
        """Tell this participant one transaction's outcome, if it is owed."""
        self._reach(running, participant)

    async def to(self, participant: str, told: Callable[[Running], None] | None = None) -> None:
        """Tell this participant everything that it is owed now; ``told`` gets each transaction just before."""
        held = list(self._running.values())
        for first in range(0, len(held), SLICE_MAX):
            for running in held[first : first + SLICE_MAX]:
                branch = running.transaction.branches.get(participant)
                if branch is None or branch.done or running.transaction.decision is None:
                    continue
                if told is not None:
                    told(running)
                self._reach(running, participant)
            await asyncio.sleep(0)

    async def run(self) -> None:
        """Do what ``soon`` asks for, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                participant = next(iter(self._due))
                del self._due[participant]
                await self.to(participant)
