"""Drops what a participant keeps of transactions that have ended everywhere (R14).

Only a log's own horizon says so, never this process's clock. It comes with introductions; what
is below it is dropped in small rounds, with pauses four times as long as the rounds, so that
the work of branches always goes first. A round that fails is tried again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Final, NoReturn

import structlog

from participant_sdk.backoff import Backoff
from participant_sdk.clock import Clock
from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Participant

# Branches in one round.
ROUND_LIMIT: Final = 1_000
PAUSE_FIRST_S: Final = 0.05
PAUSE_FACTOR: Final = 4.0
BACKOFF_FIRST_S: Final = 1.0
BACKOFF_CAP_S: Final = 60.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Pruning:
    """One participant's. ``pruned`` counts the branches dropped, ``failures`` the rounds that failed."""

    def __init__(
        self,
        participant: Participant,
        logs: KnownLogs,
        *,
        clock: Clock,
        jitter: random.Random,
        round_limit: int = ROUND_LIMIT,
    ) -> None:
        self.pruned = 0
        self.failures = 0
        self._participant = participant
        self._logs = logs
        self._clock = clock
        self._backoff = Backoff(jitter, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
        self._round_limit = round_limit
        self._done: dict[str, int] = {}

    async def run(self) -> NoReturn:
        """Prune whenever a horizon has risen, until cancelled."""
        while True:
            await self._prune_all(await self._logs.horizons())

    async def _prune_all(self, horizons: Mapping[str, int]) -> None:
        for log_id, horizon in horizons.items():
            while horizon > self._done.get(log_id, 0):
                began_s = self._clock.monotonic_s()
                try:
                    dropped = await self._participant.prune(log_id, horizon, self._round_limit)
                except Exception as error:  # noqa: BLE001 - dropping must go on
                    # A service's own code may raise anything while its store is away. Nothing is lost by it: what was
                    # not dropped is found again.
                    self.failures += 1
                    _log.warning("pruning_failed", participant=self._participant.name, error=repr(error))
                    await self._backoff.wait()
                    continue
                self._backoff.reset()
                self.pruned += dropped
                if dropped < self._round_limit:
                    self._done[log_id] = horizon
                took_s = self._clock.monotonic_s() - began_s
                await asyncio.sleep(max(PAUSE_FIRST_S, took_s * PAUSE_FACTOR))
