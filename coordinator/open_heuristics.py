"""How many branches ended by hand and are not forgotten: what status and metrics show of the log's heuristic ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, Never

import structlog

from coordinator.log.decision_log import DecisionLog, LogUnavailableError

# So many are counted; a log with more says this many.
COUNT_MAX: Final = 1_000
# What other coordinators record or forget is seen this late at most.
LOOK_EVERY_S: Final = 10.0

_LOG: Final = structlog.get_logger(__name__)


class OpenHeuristics:
    """Counts them in the log: steadily while ``run`` runs, and at once after ``look_soon``."""

    __slots__ = ("_log", "_wake", "count")

    def __init__(self, log: DecisionLog) -> None:
        # As the last look found.
        self.count = 0
        self._log = log
        self._wake = asyncio.Event()

    def look_soon(self) -> None:
        """Have ``run`` look now: something was recorded."""
        self._wake.set()

    async def look(self) -> None:
        """Count now. While the log cannot be read, the count stays what it was."""
        try:
            self.count = len(await self._log.list_heuristics(None, COUNT_MAX))
        except LogUnavailableError as error:
            _LOG.info("heuristics_not_counted", error=str(error))

    async def run(self) -> Never:
        """Look, until cancelled."""
        while True:
            self._wake.clear()
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
