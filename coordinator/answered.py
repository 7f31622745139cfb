"""What participants answered, a frame at a time, brought to the transactions that it is for.

Nearly all of a frame says the same, so one event and one line of the story serve all that do. What changes is never
shared: events and lines are values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from coordinator.incarnation import IncarnationLife
from coordinator.protocol import events
from coordinator.protocol.transaction import Transaction
from coordinator.running import Running, StoryLine
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.xa import DONE, PREPARED, Ack, Decision, Vote

_COMMIT: Final = Decision.COMMIT


class Answered:
    """Walks the engine's transactions; ``take`` feeds one event to one of them. Both methods return seconds."""

    __slots__ = ("_clock", "_life", "_running", "_take")

    def __init__(
        self,
        running: Mapping[Xid, Running],
        take: Callable[[Running, events.Event, float, StoryLine], None],
        clock: Clock,
        life: IncarnationLife,
    ) -> None:
        self._running = running
        self._take = take
        self._clock = clock
        self._life = life

    def voted(self, participant: str, votes: Sequence[tuple[Xid, Vote]]) -> list[float]:
        """A participant voted, or its votes will not come. Returns how long each that counts took since its begin."""
        now_s, unix_ms = self._clock.monotonic_s(), self._clock.unix_ms()
        event, story = events.Voted(participant, PREPARED), (unix_ms, "voted", participant, PREPARED)
        taken_s: list[float] = []
        for xid, vote in votes:
            running = self._running.get(xid)
            if running is None:
                continue
            if vote is not event.vote:
                event = events.Voted(participant, vote)
                story = (unix_ms, "voted", participant, vote._replace(results=()) if vote.results else vote)
            taken_s.append(now_s - running.began_s)
            self._take(running, event, now_s, story)
        return taken_s

    def acknowledged(self, participant: str, verb: Decision, acks: Sequence[tuple[Xid, Ack]]) -> list[float]:
        """A participant acknowledged outcomes. Returns how long each that counts took since the decision."""
        now_s, unix_ms = self._clock.monotonic_s(), self._clock.unix_ms()
        event, story = events.Acknowledged(participant, DONE), (unix_ms, "acknowledged", participant, DONE.kind)
        taken_s: list[float] = []
        heard: list[Transaction] = []
        for xid, ack in acks:
            running = self._running.get(xid)
            if running is None or running.transaction.decision is not verb:
                continue
            if ack is not event.ack:
                event, story = events.Acknowledged(participant, ack), (unix_ms, "acknowledged", participant, ack.kind)
            taken_s.append(now_s - running.decided_s)
            self._take(running, event, now_s, story)
            heard.append(running.transaction)
        if verb is _COMMIT:
            self._count_applied(participant, heard)
        return taken_s

    def _count_applied(self, participant: str, heard: Sequence[Transaction]) -> None:
        """Tell the log's side how far the participant has applied what was decided: once a frame."""
        applied: dict[int, int] = {}
        # Sequences rise, nearly always, so the last one is looked at first.
        for tx in reversed(heard):
            if tx.sequence > applied.get(tx.incarnation, 0) and tx.branches.has_acknowledged(participant):
                applied[tx.incarnation] = tx.sequence
        for incarnation, sequence in applied.items():
            # Now, not when the others have too: a participant that comes back with less has lost it (R15).
            self._life.applied(incarnation, sequence, participant)
