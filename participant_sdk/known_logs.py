"""What a participant knows of the decision logs it serves: epochs, coordinators' addresses, pruning horizons.

Epochs are durable at the participant; what is kept here saves asking it for every frame.
Addresses and horizons are learned anew from introductions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from participant_sdk.clock import Clock
from participant_sdk.hello import (
    CLOCKS_APART,
    EPOCH_IMPLAUSIBLE,
    EPOCH_STALE,
    Introduction,
    Welcome,
    clocks_apart,
    is_plausible,
)
from participant_sdk.participant import Participant
from participant_sdk.resources.admission import CLOCK_SKEW_MAX_MS, PREPARE_WINDOW_MS
from participant_sdk.wire import InvalidFieldError

# No horizon is believed that is younger: a Prepare of an xid above it might still be let in, and must meet its
# tombstone (R10).
HORIZON_AGE_MIN_MS: Final = PREPARE_WINDOW_MS + CLOCK_SKEW_MAX_MS

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
        self._horizons: dict[str, int] = {}
        self._horizon_rose = asyncio.Event()

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

    def is_plausible(self, incarnation: int) -> bool:
        """Whether an incarnation can have been drawn by now, by this participant's clock."""
        return is_plausible(incarnation, self._clock.unix_ms())

    async def horizons(self) -> Mapping[str, int]:
        """Wait until a log's pruning horizon rises; return all logs', in Unix milliseconds (R14)."""
        await self._horizon_rose.wait()
        self._horizon_rose.clear()
        return dict(self._horizons)

    async def admit(self, log_id: str, epoch: int) -> int:
        """Durably adopt the epoch if it is higher than the one held; return the one held now (R15).

        A caller whose epoch is lower than the answer speaks for an older timeline of the log.
        InvalidFieldError for one that cannot have been drawn by now; ParticipantFailedError when the
        participant cannot say.
        """
        held = self._epochs.get(log_id, 0)
        if held and epoch <= held:
            return held
        if not self.is_plausible(epoch):
            raise InvalidFieldError("epoch", f"{EPOCH_IMPLAUSIBLE}: {epoch} is more than a day ahead of the clock here")
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
        elif not (self.is_plausible(introduction.epoch) and self.is_plausible(introduction.incarnation)):
            refusal, epoch = EPOCH_IMPLAUSIBLE, self.epoch(introduction.log_id)
        else:
            epoch = await self.admit(introduction.log_id, introduction.epoch)
            if introduction.epoch < epoch:
                refusal = EPOCH_STALE
            else:
                watermarks = await self._watermarks(introduction.log_id)
                self._addresses[introduction.log_id] = introduction.coordinator_addresses
                self._raise_horizon(introduction, now_unix_ms)
        if refusal:
            _log.warning("coordinator_refused", coordinator=introduction.coordinator, refusal=refusal)
        return Welcome(
            self._participant.name,
            now_unix_ms,
            epoch,
            watermarks,
            self._participant.operations,
            refusal=refusal,
            number=introduction.number,
        )

    def _raise_horizon(self, introduction: Introduction, now_unix_ms: int) -> None:
        log_id, horizon = introduction.log_id, introduction.pruned_below_unix_ms
        if horizon > now_unix_ms - HORIZON_AGE_MIN_MS:
            _log.warning("horizon_refused", log_id=log_id, coordinator=introduction.coordinator, horizon=horizon)
        elif horizon > self._horizons.get(log_id, 0):
            self._horizons[log_id] = horizon
            self._horizon_rose.set()

    async def _watermarks(self, log_id: str) -> dict[int, int]:
        try:
            return dict(await self._participant.watermarks(log_id))
        except Exception as error:
            # As above.
            raise ParticipantFailedError(f"{self._participant.name} could not read watermarks: {error}") from error
