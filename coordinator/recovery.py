"""Recovery: what a fenced incarnation left unfinished is driven to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from coordinator.engine import Engine
from coordinator.incarnation import IncarnationLife
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.phases import FINISHED
from coordinator.protocol.recovery import fold
from coordinator.protocol.timing import Timing
from participant_sdk.batching import Batcher

# So many are read back and sent at once; between two slices everything else has its turn.
SLICE_MAX: Final = 100
# More than a log can leave unfinished: every transaction of every coordinator that ever held one.
QUEUE_MAX: Final = 10_000_000

_LOG: Final = structlog.get_logger(__name__)


class _Left(NamedTuple):
    incarnation: int
    stored: StoredDecision


class Recovery:
    """Redoes decided transactions; undecided ones need nothing: their participants ask, and hear ROLLBACK (R7).

    ``run`` must run: what was adopted waits for it.
    """

    __slots__ = ("_batcher", "_engine", "_idle", "_life", "_timing")

    def __init__(self, engine: Engine, timing: Timing) -> None:
        self._engine = engine
        self._timing = timing
        self._batcher: Batcher[_Left] = Batcher(self._drive, cap=SLICE_MAX, bound=QUEUE_MAX)
        self._idle = asyncio.Event()
        self._idle.set()

    def connect(self, life: IncarnationLife) -> None:
        """Attach the life that reports adopted incarnations."""
        self._life = life

    def adopt(self, incarnation: int, decisions: Sequence[StoredDecision]) -> None:
        """Queue a fenced incarnation's decisions, in order of their sequence."""
        for stored in decisions:
            self._batcher.put(_Left(incarnation, stored))
        if decisions:
            self._idle.clear()
            _LOG.info("redo", incarnation=incarnation, decisions=len(decisions))

    async def run(self) -> None:
        """Drive what was adopted, slice by slice, until cancelled."""
        await self._batcher.run()

    async def driven(self) -> None:
        """Wait until everything adopted so far is in the engine's hands."""
        await self._idle.wait()

    async def _drive(self, left: list[_Left]) -> None:
        for incarnation in dict.fromkeys(each.incarnation for each in left):
            self._drive_all(incarnation, [each.stored for each in left if each.incarnation == incarnation])
        if not len(self._batcher):
            self._idle.set()
        await asyncio.sleep(0)

    def _drive_all(self, incarnation: int, decisions: Sequence[StoredDecision]) -> None:
        driven, silent = fold(decisions, self._timing)
        for stored in silent:
            self._life.finished(incarnation, stored.sequence)
        for transaction in driven:
            held = self._engine.find(transaction.xid)
            if held is None:
                self._engine.drive(transaction, f"decided by incarnation {incarnation}")
            elif held.transaction.phase in FINISHED:
                # Driven before, and a stale checkpoint has hidden it.
                self._life.finished(incarnation, transaction.sequence)
