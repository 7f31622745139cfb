"""Waves: transactions that came one by one begin together, where their machine is short of cores anyway.

A batch costs everybody on its way the same for one transaction as for dozens. Callers who do not wait for each other
come one by one, and so each would travel alone until all cores are full, and then stand in queue behind the others. So
whoever comes waits until half of the wave before have ended, and begins with all who came meanwhile.

Nobody waits where it would be for nothing: while the machine has cores to spare (``contention``), and where ``ENOUGH``
have gathered. Nor for longer than twice what half of a wave usually takes, or at all where that is more than
``USUAL_MAX_S``: then it is not for cores that transactions wait.
"""

from __future__ import annotations

import asyncio
from typing import Final

from coordinator.api.contention import Contention

ENOUGH: Final = 64
# Chosen: well above what half of a wave takes with participants that do one batch at a time.
USUAL_MAX_S: Final = 0.05
# A half is timed for no longer: some of it may never have begun, or all of it waited for what is down.
MEASURED_MAX_S: Final = 10 * USUAL_MAX_S
# How much of the usual time each wave makes up.
_SHARE: Final = 0.2


class Waves:
    """Lets transactions begin, by waves. Whoever comes says so (``came``), awaits ``departure``, and tells its end.

    ``gathered`` is how many have come and not left, ``usual_s`` how long half of a wave usually takes, 0 if unknown.
    """

    __slots__ = (
        "_contention",
        "_departure",
        "_left_s",
        "_measured",
        "_measured_to_end",
        "_timer",
        "_to_end",
        "_wave",
        "gathered",
        "usual_s",
    )

    def __init__(self, contention: Contention | None = None, usual_s: float = 0.0) -> None:
        self._contention = contention or Contention()
        # What all who wait wait for, and what lets them go at the latest.
        self._departure: asyncio.Future[int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.gathered = 0
        # The last wave's number, and how many of it are left of its half.
        self._wave = 0
        self._to_end = 0
        # The wave whose half is being timed, 0 for none, with how many are left of it, and when it left. Not always the
        # last one: where nobody waits, each transaction is a wave.
        self._measured, self._measured_to_end = 0, 0
        self._left_s = 0.0
        self.usual_s = usual_s

    def came(self, count: int) -> None:
        """So many transactions came, and want to begin."""
        self.gathered += count
        if self._departure is not None and self.gathered >= ENOUGH:
            self._depart()

    async def departure(self) -> int:
        """Return when all who came may begin: their wave's number, by which each tells ``ended``."""
        if self._departure is None:
            if self._is_due() or not self._contention.is_high():
                return self._depart()
            loop = asyncio.get_running_loop()
            self._departure = loop.create_future()
            self._timer = loop.call_later(2 * self.usual_s, self._depart)
        # Who is cancelled takes nobody else along.
        return await asyncio.shield(self._departure)

    def ended(self, wave: int) -> None:
        """One transaction of a wave has its answer, or could not even begin."""
        if wave == self._measured:
            self._measured_to_end -= 1
            if self._measured_to_end <= 0:
                self._measure(asyncio.get_running_loop().time())
        if wave == self._wave:
            self._to_end -= 1
            if self._to_end <= 0 and self._departure is not None:
                self._depart()

    def _is_due(self) -> bool:
        return self._to_end <= 0 or self.gathered >= ENOUGH or not 0 < self.usual_s <= USUAL_MAX_S

    def _depart(self) -> int:
        """Let all go who wait; returns their wave."""
        departure, self._departure = self._departure, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wave += 1
        self._to_end, self.gathered = (self.gathered + 1) // 2, 0
        now_s = asyncio.get_running_loop().time()
        if self._measured and now_s - self._left_s > MEASURED_MAX_S:
            self._measure(now_s)
        if not self._measured:
            self._measured, self._measured_to_end, self._left_s = self._wave, self._to_end, now_s
        if departure is not None:
            departure.set_result(self._wave)
        return self._wave

    def _measure(self, now_s: float) -> None:
        took_s = min(now_s - self._left_s, MEASURED_MAX_S)
        self._measured = 0
        self.usual_s += (took_s - self.usual_s) * (_SHARE if self.usual_s else 1)
