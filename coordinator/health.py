"""Whether this coordinator is of use, and what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParticipantHealth:
    """One configured participant: whether a session to it is open, and whether it speaks Session."""

    name: str
    address: str
    is_up: bool


@dataclass(frozen=True, slots=True)
class Health:
    """One look at a coordinator. ``log_is_open``: its lease was renewed within its length.

    ``held``: why the log is in HOLD, empty when it is not. ``needing_attention`` counts transactions.
    ``log_problem``: what the log refuses until somebody mends it, or why it could not be opened; else empty.
    """

    coordinator: str
    incarnation: int
    log_id: str
    log_is_open: bool
    stopping: bool
    in_flight: int
    unfinished: int
    participants: tuple[ParticipantHealth, ...]
    held: str = ""
    needing_attention: int = 0
    log_problem: str = ""

    @property
    def is_ready(self) -> bool:
        """Calls are welcome.

        Also while participants are down, even all of them: it would be the same at every other coordinator, and what
        needs none (decisions asked for, intents closed, what operators do) must find its way here all the same.
        """
        return self.log_is_open and not self.stopping

    @property
    def status(self) -> str:
        """DOWN: not ready. DEGRADED: ready, with a participant down, the log in HOLD, or an operator needed. UP."""
        if not self.is_ready:
            return "DOWN"
        needs_somebody = bool(self.held or self.needing_attention or self.log_problem)
        return "UP" if all(each.is_up for each in self.participants) and not needs_somebody else "DEGRADED"
