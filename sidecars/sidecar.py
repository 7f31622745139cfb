"""What a sidecar is made of: the service that takes part, and what attends it on the same database.

An attendant is work that belongs to no branch: matching what was placed, sending what was queued. It runs
beside the participant, from its start to its end, and finds everything that it needs to know in the database:
it may be killed between any two statements, and be run by two processes at once for a moment.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog

from participant_sdk.backoff import Backoff
from participant_sdk.clock import Clock
from participant_sdk.resources.reservation import ReservationService

PAUSE_FIRST_S: Final = 0.2
PAUSE_LONGEST_S: Final = 10.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where an attendant works: its participant's name and database, the time, and the process's environment."""

    participant: str
    dsn: str
    clock: Clock
    environment: Mapping[str, str]


Attendant = Callable[[Surroundings], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True)
class Simulator:
    """Another company's system, played by a process of ours for development.

    ``python -m module --listen host:port --folder path`` serves it; its URL goes to the sidecar in ``variable``.
    """

    module: str
    variable: str


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A service, its attendants by name, and who plays the company that it talks to in development."""

    service: ReservationService
    attendants: Mapping[str, Attendant] = field(default_factory=dict[str, Attendant])
    simulator: Simulator | None = None


async def attend(name: str, attendant: Attendant, surroundings: Surroundings) -> None:
    """Run an attendant until cancelled: again after a pause whenever it fails, for the participant must go on."""
    backoff = Backoff(random.Random(), first_s=PAUSE_FIRST_S, cap_s=PAUSE_LONGEST_S)  # noqa: S311 - it spreads retries
    while True:
        began_s = surroundings.clock.monotonic_s()
        try:
            await attendant(surroundings)
        except Exception as error:  # noqa: BLE001 - its database holds what is to be done, and the next run finds it
            if surroundings.clock.monotonic_s() - began_s > PAUSE_LONGEST_S:
                backoff.reset()
            pause_s = backoff.next_s()
            _log.warning(
                "attendant_failed",
                participant=surroundings.participant,
                attendant=name,
                error=f"{type(error).__name__}: {error}",
                retry_in_s=round(pause_s, 3),
            )
            await asyncio.sleep(pause_s)
        else:
            raise RuntimeError(f"the attendant {name} returned; it is to run until it is cancelled")
