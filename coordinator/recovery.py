"""Recovery: what a fenced incarnation left unfinished is driven to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from coordinator.engine import Engine
from coordinator.incarnation import IncarnationLife
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.phases import FINISHED
from coordinator.protocol.recovery import fold
from coordinator.protocol.timing import Timing

_LOG: Final = structlog.get_logger(__name__)


class Recovery:
    """Redoes decided transactions; undecided ones need nothing: their participants ask, and hear ROLLBACK (R7)."""

    def __init__(self, engine: Engine, timing: Timing) -> None:
        self._engine = engine
        self._timing = timing

    def connect(self, life: IncarnationLife) -> None:
        """Attach the life that reports adopted incarnations."""
        self._life = life

    def adopt(self, incarnation: int, decisions: Sequence[StoredDecision]) -> None:
        """Drive a fenced incarnation's decisions, in order of their sequence."""
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
        if decisions:
            _LOG.info("redo", incarnation=incarnation, transactions=len(driven))
