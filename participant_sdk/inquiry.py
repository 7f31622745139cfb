"""In doubt: a participant that voted yes and hears nothing asks, for ever (R12).

It never decides alone. COMMIT and ROLLBACK are applied through the workers, like any other;
PENDING is asked again; FORGOTTEN is an alert for an operator, and the branch is left alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from participant_sdk.clock import Clock
from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Participant
from participant_sdk.worker import Workers


class NoAnswerError(Exception):
    """The coordinator could not be asked, or could not say. It tells nothing of the decision (R7, R19)."""


class Coordinators(Protocol):
    """How to ask a coordinator: over gRPC, or in the simulation."""

    async def decision(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        """Ask the coordinator at an address. NoAnswerError when it cannot be reached or cannot say, in bounded time."""
        ...


class Inquiry:
    """Brings one participant's branches in doubt to their end."""

    def __init__(
        self,
        participant: Participant,
        workers: Workers,
        logs: KnownLogs,
        coordinators: Coordinators,
        *,
        clock: Clock,
        jitter: random.Random,
        addresses: Sequence[str] = (),
        patience_s: float = 5.0,
        backoff_cap_s: float = 30.0,
    ) -> None:
        self._participant = participant

    async def run(self) -> None:
        """Look for branches in doubt, at once and then steadily, and ask about each, until cancelled."""
        raise NotImplementedError
