"""Recovery: what a fenced incarnation left unfinished is driven to its end.

It may be a hundred thousand transactions, so they are driven at the pace at which participants
acknowledge them: told all at once, most would be told again, and flagged as stuck, only because
others were before them. One who does not acknowledge at all slows that down and stops nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

import structlog

from coordinator.engine import Engine
from coordinator.incarnation import IncarnationLife
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.outcome import is_readable
from coordinator.protocol.phases import FINISHED
from coordinator.protocol.recovery import fold
from coordinator.protocol.timing import Timing
from participant_sdk.batching import Batcher
from participant_sdk.ids import Xid

# So many are read back and sent at once; between two slices everything else has its turn.
SLICE_MAX: Final = 100
# So many may be unacknowledged before the next slice waits for them, but never longer than this for each slice.
WINDOW: Final = 1_000
PATIENCE_S: Final = 0.1
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

    __slots__ = ("_batcher", "_engine", "_idle", "_life", "_room", "_timing", "_under_way")

    def __init__(self, engine: Engine, timing: Timing) -> None:
        self._engine = engine
        self._timing = timing
        self._batcher: Batcher[_Left] = Batcher(self._drive, cap=SLICE_MAX, bound=QUEUE_MAX)
        self._idle = asyncio.Event()
        self._idle.set()
        # Driven and not finished, as far as they are counted.
        self._under_way: dict[Xid, None] = {}
        self._room = asyncio.Event()

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

    def finished(self, xid: Xid) -> None:
        """Count a transaction as finished, one that was adopted or any other."""
        if self._under_way:
            self._under_way.pop(xid, None)
            if len(self._under_way) < WINDOW:
                self._room.set()

    async def driven(self) -> None:
        """Wait until everything adopted so far is in the engine's hands."""
        await self._idle.wait()

    async def _drive(self, left: list[_Left]) -> None:
        for incarnation in dict.fromkeys(each.incarnation for each in left):
            self._drive_all(incarnation, [each.stored for each in left if each.incarnation == incarnation])
        if not len(self._batcher):
            self._idle.set()
        await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        await asyncio.sleep(0)
        if len(self._under_way) < WINDOW:
            return
        self._room.clear()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._room.wait()
        except TimeoutError:
            # Somebody does not acknowledge. What is under way stays so, and is not waited for any more.
            for xid in list(islice(self._under_way, SLICE_MAX)):
                del self._under_way[xid]

    def _drive_all(self, incarnation: int, decisions: Sequence[StoredDecision]) -> None:
        driven, silent = fold(decisions, self._timing)
        decided_unix_ms = {stored.record.xid: stored.decided_unix_ms for stored in decisions}
        for stored in decisions:
            if not is_readable(stored.record.results):
                _LOG.error("results_unreadable", transaction_id=str(stored.record.xid), incarnation=incarnation)
        for stored in silent:
            self._life.finished(incarnation, stored.sequence)
        for transaction in driven:
            held = self._engine.find(transaction.xid)
            if held is None:
                self._under_way[transaction.xid] = None
                self._engine.drive(
                    transaction, f"decided by incarnation {incarnation}", decided_unix_ms[transaction.xid]
                )
            elif held.transaction.phase in FINISHED:
                # Driven before, and a stale checkpoint has hidden it.
                self._life.finished(incarnation, transaction.sequence)
