"""Introductions on one session that have no answer yet, and which of the answers are to be told.

An answer reports what the participant had applied when it was made. Once the log was connected
to anew, answers to earlier introductions say nothing of it (R15): so each has a number, which
its answer repeats, and what was asked before is outdated.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from participant_sdk.clock import Clock


@dataclass(slots=True)
class _Asked:
    """One introduction. Not frozen: it may be outdated before its answer comes."""

    is_told: bool
    sent_at_s: float


class Greetings:
    """One session's. ``begin`` comes first."""

    __slots__ = ("_asked", "_clock", "_number", "_sent")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._number = 0
        self._asked: dict[int, _Asked] = {}
        self._sent = asyncio.Event()

    def begin(self) -> None:
        """A new session."""
        self._number = 0
        self._asked.clear()

    def ask(self, *, is_told: bool) -> int:
        """Count an introduction that leaves now; return its number."""
        self._number += 1
        self._asked[self._number] = _Asked(is_told, self._clock.monotonic_s())
        if is_told:
            self._sent.set()
        return self._number

    def outdate(self) -> None:
        """Tell none of the answers that are under way."""
        for asked in self._asked.values():
            asked.is_told = False

    def answered(self, number: int) -> bool:
        """Whether this answer is to be told. One without a number answers the oldest; one twice is told once."""
        if not number:
            number = next(iter(self._asked), 0)
        asked = self._asked.pop(number, None)
        return asked is not None and asked.is_told

    async def overdue(self, limit_s: float) -> None:
        """Return once an introduction whose answer is to be told has waited for so long."""
        while True:
            await self._sent.wait()
            sent_at_s = min((asked.sent_at_s for asked in self._asked.values() if asked.is_told), default=None)
            if sent_at_s is None:
                self._sent.clear()
                continue
            left_s = sent_at_s + limit_s - self._clock.monotonic_s()
            if left_s <= 0:
                return
            await asyncio.sleep(left_s)
