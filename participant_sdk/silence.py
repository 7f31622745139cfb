"""Whether a participant that owes answers is still there.

A stopped process (SIGSTOP, a frozen machine) keeps its connections and says nothing. A long
batch of work says nothing either. So silence is only a suspicion: whoever watches then asks
something that is answered at once, and believes the answer, or its absence.
"""

from __future__ import annotations

import asyncio
from typing import Final

from participant_sdk.clock import Clock

SILENCE_S: Final = 5.0


class Silence:
    """Counts one session's messages without an answer, and how long nothing was heard meanwhile.

    Each message is answered once, so a count is enough; a participant that answers more often
    than it was asked makes it lower, never negative.
    """

    __slots__ = ("_answered", "_clock", "_limit_s", "_owing", "_since_s", "_unanswered")

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._unanswered = 0
        self._since_s = 0.0
        self._owing = asyncio.Event()
        self._answered = asyncio.Event()

    def begin(self) -> None:
        """A new session: nothing is owed on it yet."""
        self._unanswered = 0
        self._owing.clear()

    def sent(self, messages: int) -> None:
        """So many messages left."""
        if not messages:
            return
        if not self._unanswered:
            self._since_s = self._clock.monotonic_s()
        self._unanswered += messages
        self._owing.set()

    def heard(self, answers: int) -> None:
        """A frame came, with so many answers."""
        self._since_s = self._clock.monotonic_s()
        self._answered.set()
        self._unanswered = max(0, self._unanswered - answers)
        if not self._unanswered:
            self._owing.clear()

    async def suspected(self) -> None:
        """Return once answers are owed and nothing was heard for the limit."""
        while True:
            await self._owing.wait()
            left_s = self._since_s + self._limit_s - self._clock.monotonic_s()
            if left_s <= 0:
                self._answered.clear()
                return
            await asyncio.sleep(left_s)

    async def broken(self) -> None:
        """Return once anything was heard since it was suspected."""
        await self._answered.wait()
