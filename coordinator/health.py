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
    """One look at a coordinator. ``log_is_open``: its lease was renewed within its length."""

    coordinator: str
    incarnation: int
    log_id: str
    log_is_open: bool
    stopping: bool
    in_flight: int
    unfinished: int
    participants: tuple[ParticipantHealth, ...]

    @property
    def is_ready(self) -> bool:
        """Calls are welcome."""
        return self.log_is_open and not self.stopping

    @property
    def status(self) -> str:
        """DOWN: not ready. DEGRADED: ready, but not every participant is up. UP: all is well."""
        if not self.is_ready:
            return "DOWN"
        return "UP" if all(participant.is_up for participant in self.participants) else "DEGRADED"
