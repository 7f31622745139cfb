"""Which of one incarnation's decisions are finished, and the checkpoint that says so (R14)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from coordinator.log.decision_log import Checkpoint
from coordinator.protocol.effects import StoredDecision
from participant_sdk.ids import Xid

STRAGGLERS_MAX: Final = 10_000


class Completion:
    """Holds the unfinished decisions of one incarnation, in order of their sequence.

    A decision that is still unfinished one checkpoint after it was made becomes a straggler:
    it is named in the checkpoint, so that it does not hold back ``finished_through``. Past
    ``STRAGGLERS_MAX`` the next one does hold it back, and recovery reads more than it must.
    """

    __slots__ = ("_applied", "_incarnation", "_last", "_open", "_seen", "_written")

    def __init__(self, incarnation: int) -> None:
        self._incarnation = incarnation
        self._open: dict[int, Xid] = {}
        self._last = 0
        self._seen = 0
        # The highest sequence that each participant acknowledged as committed.
        self._applied: dict[str, int] = {}
        self._written: Checkpoint | None = None

    def __len__(self) -> int:
        return len(self._open)

    def decided(self, sequence: int, xid: Xid) -> None:
        """Count a decision as made. Sequences rise from call to call; some may be left out."""
        if sequence <= self._last:
            raise ValueError(f"sequence {sequence} comes after {self._last}")
        self._open[sequence] = xid
        self._last = sequence

    def take_over(self, unfinished: Iterable[StoredDecision]) -> Sequence[StoredDecision]:
        """Hold what another incarnation left, by sequence, and return what was not held before.

        All of it counts as straggling. What is not above all that was ever held is left out.
        """
        new = [stored for stored in unfinished if stored.sequence > self._last]
        for stored in new:
            self.decided(stored.sequence, stored.record.xid)
        self._seen = self._last
        return new

    def finished(self, sequence: int) -> None:
        """Count a decision as finished. Idempotent."""
        self._open.pop(sequence, None)

    def applied(self, sequence: int, participant: str) -> None:
        """Count a decision as acknowledged by a participant as committed, whoever else is owed it. Idempotent."""
        if self._applied.get(participant, 0) < sequence:
            self._applied[participant] = sequence

    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint to write now; None when the last one written still says it all."""
        stragglers = [xid for _, xid in self._stragglers()]
        rest = next(islice(self._open, len(stragglers), None), None)
        through = self._last if rest is None else rest - 1
        checkpoint = Checkpoint(self._incarnation, through, frozenset(stragglers), dict(self._applied))
        self._seen = self._last
        return None if checkpoint == self._written else checkpoint

    def wrote(self, checkpoint: Checkpoint) -> None:
        """Remember what the log was told."""
        self._written = checkpoint

    def _stragglers(self) -> Iterable[tuple[int, Xid]]:
        for sequence, xid in islice(self._open.items(), STRAGGLERS_MAX):
            if sequence > self._seen:
                return
            yield sequence, xid
