"""What a participant knows of the decision logs it serves: adopted epochs and coordinators' addresses."""

from __future__ import annotations

from collections.abc import Sequence

from participant_sdk.clock import Clock
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.participant import Participant


class KnownLogs:
    """One participant's acquaintance with logs. Nothing here is needed after a restart but by habit."""

    def __init__(self, participant: Participant, *, clock: Clock) -> None:
        self._participant = participant

    @property
    def log_ids(self) -> Sequence[str]:
        """The logs that introduced themselves since the start, first one first."""
        raise NotImplementedError

    def addresses(self, log_id: str) -> Sequence[str]:
        """The coordinators of a log, as the last introduction named them."""
        raise NotImplementedError

    async def admit(self, log_id: str, epoch: int) -> int:
        """Durably adopt the epoch if it is higher than the one held; return the one held now (R15)."""
        raise NotImplementedError

    async def greet(self, introduction: Introduction, clock_unix_ms: int) -> Welcome:
        """Answer an introduction: a welcome, or a refusal with its reason."""
        raise NotImplementedError
