"""Which decisions of ended incarnations are finished, as far as the log has been told (R14)."""

from __future__ import annotations

import asyncio
from typing import Final

from coordinator.log.decision_log import DecisionLog
from coordinator.protocol.effects import StoredDecision
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid

# An incarnation's unfinished decisions may be a hundred thousand rows: however many ask, they are read this seldom.
KEPT_S: Final = 2.0
KEPT_MAX: Final = 8


class Finishes:
    """Reads what incarnations left unfinished, for people who look. What has just finished is seen seconds later."""

    __slots__ = ("_clock", "_kept", "_log", "_turn")

    def __init__(self, log: DecisionLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._turn = asyncio.Lock()
        # By incarnation, the one read last at the end: when, and what was unfinished.
        self._kept: dict[int, tuple[float, frozenset[Xid]]] = {}

    async def is_finished(self, stored: StoredDecision) -> bool:
        """Every branch of this transaction has acknowledged. LogUnavailableError."""
        async with self._turn:
            return stored.record.xid not in await self._unfinished(stored.incarnation)

    async def _unfinished(self, number: int) -> frozenset[Xid]:
        now_s = self._clock.monotonic_s()
        read_s, unfinished = self._kept.get(number, (-KEPT_S, frozenset[Xid]()))
        if now_s - read_s < KEPT_S:
            return unfinished
        unfinished = frozenset([row.record.xid for row in await self._log.unfinished(number)])
        self._kept.pop(number, None)
        self._kept[number] = (now_s, unfinished)
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return unfinished
