"""Who has reported since the log was connected to last (R15).

The answers hold under one generation of the log. When that rises, everything known is stale from
that moment on, whether or not anybody has noticed yet: so every question compares it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coordinator.log.decision_log import DecisionLog


class Reported:
    """The configured participants, and which of them hold nothing that the log does not know.

    A name that is not configured has never reported. Listeners are called in the caller's task and
    must not block. Mutable with slots: ``is_complete`` is asked before every write of the log.
    """

    __slots__ = ("_generation", "_log", "_missing", "_on_reported", "_on_turned", "participants")

    def __init__(self, log: DecisionLog, participants: Iterable[str]) -> None:
        self.participants = tuple(participants)
        self._log = log
        self._generation = log.generation
        self._missing: dict[str, None] = dict.fromkeys(self.participants)
        self._on_reported: list[Callable[[], None]] = []
        self._on_turned: list[Callable[[], None]] = []

    @property
    def generation(self) -> int:
        """The log's, now."""
        return self._log.generation

    @property
    def is_complete(self) -> bool:
        """Every configured participant has reported since the log was connected to last."""
        return not self._missing and self._generation == self._log.generation

    def missing(self, participants: Iterable[str] = ()) -> tuple[str, ...]:
        """Those of these participants that have not reported; without names, of all that are configured."""
        names = tuple(participants) or self.participants
        if self._generation != self._log.generation:
            return names
        return tuple(name for name in names if name in self._missing or name not in self.participants)

    def add(self, participant: str, generation: int) -> bool:
        """Count a report that was asked for and judged under this generation; False when that has passed."""
        self.turn()
        if generation != self._generation:
            return False
        if participant in self._missing:
            del self._missing[participant]
            for listener in self._on_reported:
                listener()
        return True

    def withdraw(self, participant: str) -> None:
        """Count the participant as one that has not reported."""
        if participant in self.participants:
            self._missing[participant] = None

    def turn(self) -> bool:
        """Forget every report if the log was connected to anew; whether it was."""
        if self._generation == self._log.generation:
            return False
        self._generation = self._log.generation
        self._missing = dict.fromkeys(self.participants)
        for listener in self._on_turned:
            listener()
        return True

    def whenever_reported(self, listener: Callable[[], None]) -> None:
        """Have this called after each participant's report."""
        self._on_reported.append(listener)

    def whenever_turned(self, listener: Callable[[], None]) -> None:
        """Have this called after the reports were forgotten: they are to be asked for again."""
        self._on_turned.append(listener)
