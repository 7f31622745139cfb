"""What a participant knows of the decision logs it serves: adopted epochs and coordinators' addresses.

Epochs are durable at the participant; what is kept here saves asking it for every frame.
Addresses are learned anew from each introduction.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from participant_sdk.clock import Clock
from participant_sdk.hello import CLOCKS_APART, EPOCH_STALE, Introduction, Welcome, clocks_apart
from participant_sdk.participant import Participant

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class ParticipantFailedError(Exception):
    """The participant raised where it was to answer. Nothing is known, and nothing was promised."""


class KnownLogs:
    """One participant's acquaintance with logs; shared by its sessions, unary calls and inquiries."""

    def __init__(self, participant: Participant, *, clock: Clock) -> None:
        self._participant = participant
        self._clock = clock
        self._epochs: dict[str, int] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}

    @property
    def log_ids(self) -> Sequence[str]:
        """The logs that introduced themselves since the start, first one first."""
        return tuple(self._addresses)

    def addresses(self, log_id: str) -> Sequence[str]:
        """The coordinators of a log, as the last introduction named them."""
        return self._addresses.get(log_id, ())

    def epoch(self, log_id: str) -> int:
        """The epoch held, as far as it was asked for since the start; 0 if it was not."""
        return self._epochs.get(log_id, 0)

    async def admit(self, log_id: str, epoch: int) -> int:
        """Durably adopt the epoch if it is higher than the one held; return the one held now (R15).

        A caller whose epoch is lower than the answer speaks for an older timeline of the log.
        ParticipantFailedError when the participant cannot say.
        """
        held = self._epochs.get(log_id, 0)
        if held and epoch <= held:
            return held
        try:
            adopted = await self._participant.adopt_epoch(log_id, epoch)
        except Exception as error:
            # A service's own code may raise anything; whoever asked must not act on it.
            raise ParticipantFailedError(f"{self._participant.name} could not adopt an epoch: {error}") from error
        # Two callers may have adopted at the same time; the higher one stands.
        self._epochs[log_id] = max(adopted, self._epochs.get(log_id, 0))
        return self._epochs[log_id]

    async def greet(self, introduction: Introduction, clock_unix_ms: int) -> Welcome:
        """Answer an introduction: a welcome, or a refusal with its reason.

        The epoch is durable before anything is reported (R15). Clocks more than a minute apart are
        refused, because an xid's age would mean nothing (R10). ParticipantFailedError when the
        participant cannot say.
        """
        now_unix_ms = self._clock.unix_ms()
        refusal, watermarks = "", dict[int, int]()
        if clocks_apart(clock_unix_ms, now_unix_ms):
            refusal, epoch = CLOCKS_APART, self.epoch(introduction.log_id)
        else:
            epoch = await self.admit(introduction.log_id, introduction.epoch)
            if introduction.epoch < epoch:
                refusal = EPOCH_STALE
            else:
                watermarks = await self._watermarks(introduction.log_id)
                self._addresses[introduction.log_id] = introduction.coordinator_addresses
        if refusal:
            _log.warning("coordinator_refused", coordinator=introduction.coordinator, refusal=refusal)
        return Welcome(
            self._participant.name, now_unix_ms, epoch, watermarks, self._participant.operations, refusal=refusal
        )

    async def _watermarks(self, log_id: str) -> dict[int, int]:
        try:
            return dict(await self._participant.watermarks(log_id))
        except Exception as error:
            # As above.
            raise ParticipantFailedError(f"{self._participant.name} could not read watermarks: {error}") from error
