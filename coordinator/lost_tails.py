"""Participants that lost their tail are told again what they had acknowledged (R15).

Only the one concerned is told, page by page, each page until all of it is acknowledged: nothing is held for it
but that page, whoever else is away, and however much was lost. What the engine still owes to others is reopened
there, so that it is finished only after this participant, too, has acknowledged it again.

Several participants are told side by side: one that is away keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, Never

import structlog

from coordinator.awaited import Awaited
from coordinator.engine import Engine
from coordinator.heuristic_keeper import HeuristicKeeper
from coordinator.log.decision_log import BACKOFF_CAP_S, BACKOFF_FIRST_S, DecisionLog, LogUnavailableError
from coordinator.log.group_commit import GroupCommit
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.phases import FINISHED
from coordinator.running import Running
from participant_sdk.backoff import Backoff
from participant_sdk.ids import Xid
from participant_sdk.link import Link
from participant_sdk.xa import Decision

PAGE: Final = 500
# What is not acknowledged by then is told again.
ACKNOWLEDGED_WITHIN_S: Final = 5.0

_LOG: Final = structlog.get_logger(__name__)


class LostTails:
    """Tells them. ``connect`` comes once, before ``run``, which must run for anything to happen."""

    def __init__(
        self,
        log: DecisionLog,
        commit: GroupCommit,
        engine: Engine,
        awaited: Awaited,
        heuristics: HeuristicKeeper,
        *,
        random: Random,
    ) -> None:
        self._log = log
        self._commit = commit
        self._engine = engine
        self._awaited = awaited
        self._heuristics = heuristics
        self._random = random
        # Above which sequences each is to be told, by participant and incarnation.
        self._above: dict[str, dict[int, int]] = {}

    def connect(self, links: Mapping[str, Link]) -> None:
        """Attach the ways to the participants."""
        self._links = links
        self._wakes = {name: asyncio.Event() for name in links}

    def add(self, participant: str, above: Mapping[int, int]) -> None:
        """Have a participant told every retained COMMIT of its above these sequences, by incarnation."""
        self._above[participant] = dict(above)
        self._wakes[participant].set()

    async def run(self) -> None:
        """Tell whoever was added, until cancelled. Failures of the log are met by trying again."""
        async with asyncio.TaskGroup() as tasks:
            for name in self._links:
                tasks.create_task(self._mind(name))

    async def _mind(self, name: str) -> Never:
        backoff = Backoff(self._random, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
        while True:
            await self._wakes[name].wait()
            self._wakes[name].clear()
            told = await self._tell_all(name, self._above.pop(name), backoff)
            _LOG.info("redo", participant=name, transactions=told)

    async def _tell_all(self, name: str, above: dict[int, int], backoff: Backoff) -> int:
        told = 0
        while True:
            generation = self._log.generation
            try:
                rows = await self._log.commits_above(name, above, PAGE)
                # Another coordinator's row can be seen before it is durable (R7).
                await self._commit.confirm()
            except LogUnavailableError as error:
                _LOG.warning("decision_log_read_failed", participant=name, error=str(error))
                await backoff.wait()
                continue
            backoff.reset()
            if generation != self._log.generation:
                # What confirmed them may be of another log than they are (R15).
                continue
            await self._tell(name, rows, backoff)
            above |= {stored.incarnation: stored.sequence for stored in rows}
            told += len(rows)
            if len(rows) < PAGE:
                return told

    async def _tell(self, name: str, rows: Sequence[StoredDecision], backoff: Backoff) -> None:
        """Tell one page, until all of it is acknowledged or the engine's."""
        left = {stored.record.xid: stored for stored in rows if not self._reopen(name, stored.record.xid)}
        while left:
            with self._awaited.round(name) as round_:
                for xid, stored in left.items():
                    round_.told(xid, Decision.COMMIT)
                    self._links[name].commit(xid, stored.incarnation, stored.sequence)
                await round_.settled(ACKNOWLEDGED_WITHIN_S)
                # The engine keeps the ends of what it drives.
                ends = [end for end in round_.heuristics(name) if self._held(end.xid) is None]
                self._heuristics.put(ends)
                left = {xid: left[xid] for xid in round_.left}
            if left:
                await backoff.wait()
        backoff.reset()

    def _reopen(self, name: str, xid: Xid) -> bool:
        """Leave a transaction that the engine holds to it; False where it holds none."""
        running = self._held(xid)
        if running is None:
            return False
        if running.transaction.branches.reopen(name):
            self._engine.resending.one(running, name)
        return True

    def _held(self, xid: Xid) -> Running | None:
        running = self._engine.find(xid)
        return None if running is None or running.transaction.phase in FINISHED else running
