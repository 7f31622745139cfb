"""Keeps heuristic ends in the log before anybody is told of them (R12)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import structlog

from coordinator.log.decision_log import (
    BACKOFF_CAP_S,
    BACKOFF_FIRST_S,
    DecisionLog,
    LogUnavailableError,
    LogUncertainError,
)
from coordinator.protocol.effects import HeuristicRecord
from participant_sdk.backoff import Backoff
from participant_sdk.batching import Batcher
from participant_sdk.ids import Xid

# More than every branch of all that an engine holds.
QUEUE_MAX: Final = 10_000_000
TOLD_MAX: Final = 10_000

_LOG: Final = structlog.get_logger(__name__)


class HeuristicKeeper:
    """Writes heuristic ends, batch by batch, again and again until they are durable.

    The log keeps each once, so writing again what may have been written is harmless.
    """

    __slots__ = ("_backoff", "_batcher", "_log", "_on_recorded", "_told")

    def __init__(
        self, log: DecisionLog, *, random: Random, on_recorded: Callable[[Sequence[HeuristicRecord]], None]
    ) -> None:
        self._log = log
        self._backoff = Backoff(random, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
        self._on_recorded = on_recorded
        # Those that were logged, by sweep, by acknowledgement or by an operator's call: each is, once.
        self._told: dict[tuple[Xid, str], None] = {}
        self._batcher: Batcher[HeuristicRecord] = Batcher(self._write, bound=QUEUE_MAX)

    def put(self, records: Sequence[HeuristicRecord]) -> None:
        """Queue records; ``on_recorded`` gets each once it is durable."""
        for record in records:
            self._batcher.put(record)

    def is_news(self, record: HeuristicRecord) -> bool:
        """Whether nobody has told of this end yet; from now on somebody has. Of the last TOLD_MAX, that is."""
        key = (record.xid, record.participant)
        if key in self._told:
            return False
        self._told[key] = None
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        return True

    async def run(self) -> None:
        """Write what is queued, until cancelled."""
        await self._batcher.run()

    async def _write(self, records: list[HeuristicRecord]) -> None:
        for record in filter(self.is_news, records):
            _LOG.error(
                "heuristic_outcome",
                transaction_id=str(record.xid),
                participant=record.participant,
                heuristic=record.heuristic.name,
                detail=record.message,
            )
        while True:
            try:
                await self._log.record_heuristics(records)
            except (LogUnavailableError, LogUncertainError) as error:
                _LOG.warning("heuristics_not_recorded", error=str(error))
                await self._backoff.wait()
            else:
                self._backoff.reset()
                self._on_recorded(records)
                return
