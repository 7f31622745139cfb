"""The acknowledgements that recovery waits for, beside those that the engine counts for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from coordinator.protocol import heuristics
from coordinator.protocol.effects import HeuristicRecord
from participant_sdk.ids import Xid
from participant_sdk.xa import Ack, AckKind, Decision


class Round:
    """What one participant was told in one pass, and which of it it has acknowledged.

    ``ended`` counts branches at their end.
    """

    __slots__ = ("_empty", "_ends", "_open", "_refused", "ended")

    def __init__(self) -> None:
        self.ended = 0
        # Those that asked for another try, and the acknowledgements that may tell of a heuristic.
        self._refused: list[Xid] = []
        self._ends: list[tuple[Xid, Decision, Ack]] = []
        self._open: dict[Xid, Decision] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """How many are told and not acknowledged."""
        return len(self._open)

    @property
    def refused(self) -> int:
        """How many asked for another try."""
        return len(self._refused)

    @property
    def left(self) -> list[Xid]:
        """Those that were told and are not at their end."""
        return [*self._open, *self._refused]

    def heuristics(self, participant: str) -> list[HeuristicRecord]:
        """The ends that this participant acknowledged against, or without, what it was told."""
        return [
            HeuristicRecord(xid, participant, heuristic, ack.message)
            for xid, outcome, ack in self._ends
            if (heuristic := heuristics.of_ack(ack.kind, outcome)) is not None
        ]

    def told(self, xid: Xid, outcome: Decision) -> None:
        """Count a branch that is told its outcome now."""
        self._open[xid] = outcome
        self._empty.clear()

    def acknowledged(self, outcome: Decision, acks: Sequence[tuple[Xid, Ack]]) -> None:
        """Count acknowledgements; of what was not told in this round, none."""
        for xid, ack in acks:
            if self._open.get(xid) is not outcome:
                continue
            del self._open[xid]
            if ack.kind is AckKind.RETRY:
                self._refused.append(xid)
                continue
            self.ended += 1
            if ack.kind not in (AckKind.DONE, AckKind.ALREADY_DONE):
                self._ends.append((xid, outcome, ack))
        if not self._open:
            self._empty.set()

    async def settled(self, within_s: float) -> None:
        """Wait until everything told is acknowledged, or so many seconds have passed."""
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            return


class Awaited:
    """The rounds under way, by participant. Nearly always there is none, and then it costs nothing."""

    __slots__ = ("_rounds",)

    def __init__(self) -> None:
        self._rounds: dict[str, list[Round]] = {}

    @contextmanager
    def round(self, participant: str) -> Generator[Round]:
        """A round with this participant, for the time of the block."""
        begun = Round()
        self._rounds.setdefault(participant, []).append(begun)
        try:
            yield begun
        finally:
            rounds = self._rounds[participant]
            rounds.remove(begun)
            if not rounds:
                del self._rounds[participant]

    def acknowledged(self, participant: str, outcome: Decision, acks: Sequence[tuple[Xid, Ack]]) -> None:
        """Tell the rounds with this participant, if there are any."""
        for begun in self._rounds.get(participant, ()):
            begun.acknowledged(outcome, acks)
