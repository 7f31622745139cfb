"""Waves: transactions that came one by one begin together, where their machine is short of cores anyway.

A batch costs everybody on its way the same for one transaction as for dozens. Callers who do not wait for each other
come one by one, and so each would travel alone until all cores are full, and then stand in queue behind the others. So
whoever comes waits until half of the wave before have ended, and begins with all who came meanwhile.

Nobody waits where it would be for nothing: while the machine has cores to spare (``contention``), while fewer than
``FEW`` are under way, and where ``ENOUGH`` have gathered. Nor for longer than twice what half of a wave usually takes,
or at all where that is more than ``USUAL_MAX_S``: then it is not for cores that transactions wait.
"""

from __future__ import annotations

import asyncio
from typing import Final

from coordinator.api.contention import Contention

ENOUGH: Final = 64
# While fewer are under way, nobody waits: taking turns, two callers would take twice as long.
FEW: Final = 2
# Chosen: above what half of a wave takes with participants that do one batch at a time.
USUAL_MAX_S: Final = 0.05
# A half is timed for no longer, though some of it may wait for what is down.
MEASURED_MAX_S: Final = 0.5
# How much of the usual time each wave makes up, and how many times the usual it counts for at most: one that waits for
# what is down says little of the others.
_SHARE: Final = 0.2
_OUTLIER: Final = 3


class Wave:
    """How many of those who left together have begun, and how many of these have ended."""

    __slots__ = ("began", "ended", "left_s")

    def __init__(self, left_s: float) -> None:
        self.left_s = left_s
        self.began = 0
        self.ended = 0

    def is_half_over(self) -> bool:
        """Whether half of those who began have ended; also where none have begun."""
        return 2 * self.ended >= self.began


class Waves:
    """Lets transactions begin, by waves. Whoever comes says so (``came``) and awaits ``departure``.

    Then each is to tell that it ``begins``, at once, and that it has ``ended``, exactly once. ``gathered`` is how many
    came since the last departure, ``usual_s`` how long half of a wave usually takes, 0 if unknown.
    """

    __slots__ = ("_contention", "_departure", "_last", "_measured", "_timer", "_under_way", "gathered", "usual_s")

    def __init__(self, contention: Contention | None = None, usual_s: float = 0.0) -> None:
        self._contention = contention or Contention()
        # What all who wait wait for, and what lets them go at the latest.
        self._departure: asyncio.Future[Wave] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._under_way = 0
        self._last = Wave(0.0)
        # The wave that is being timed. Not always the last one: where nobody waits, each transaction is a wave.
        self._measured: Wave | None = None
        self.gathered = 0
        self.usual_s = usual_s

    def came(self, count: int) -> None:
        """So many transactions came, and want to begin."""
        self.gathered += count
        if self._departure is not None and self.gathered >= ENOUGH:
            self._depart()

    async def departure(self) -> Wave:
        """Return when all who came may begin: their wave."""
        if self._departure is None:
            if self._is_due() or not self._contention.is_high():
                return self._depart()
            loop = asyncio.get_running_loop()
            self._departure = loop.create_future()
            self._timer = loop.call_later(2 * self.usual_s, self._depart)
        # Who is cancelled takes nobody else along.
        return await asyncio.shield(self._departure)

    def begins(self, wave: Wave, count: int) -> None:
        """So many transactions of a wave begin."""
        self._under_way += count
        wave.began += count

    def ended(self, wave: Wave) -> None:
        """One transaction of a wave has its answer, could not begin after all, or its caller has left."""
        self._under_way -= 1
        wave.ended += 1
        if wave is self._measured and wave.is_half_over():
            self._measure(asyncio.get_running_loop().time())
        if self._departure is not None and self._is_due():
            self._depart()

    def _is_due(self) -> bool:
        return (
            self._last.is_half_over()
            or self._under_way < FEW
            or self.gathered >= ENOUGH
            or not 0 < self.usual_s <= USUAL_MAX_S
        )

    def _depart(self) -> Wave:
        """Let all go who wait; returns their wave."""
        departure, self._departure = self._departure, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.gathered = 0
        now_s = asyncio.get_running_loop().time()
        self._last = Wave(now_s)
        if self._measured is not None and now_s - self._measured.left_s > MEASURED_MAX_S:
            self._measure(now_s)
        if self._measured is None:
            self._measured = self._last
        if departure is not None:
            departure.set_result(self._last)
        return self._last

    def _measure(self, now_s: float) -> None:
        if self._measured is None or not self._measured.began:
            # Whoever was to begin has left.
            self._measured = None
            return
        took_s = min(now_s - self._measured.left_s, MEASURED_MAX_S)
        self._measured = None
        if self.usual_s:
            self.usual_s += (min(took_s, _OUTLIER * self.usual_s) - self.usual_s) * _SHARE
        else:
            self.usual_s = took_s
