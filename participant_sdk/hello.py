"""How a coordinator and a participant introduce themselves, as plain values.

A session opens with an ``Introduction`` and its ``Welcome``, and the coordinator introduces
itself again whenever it reconnected to its log (R15).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

CLOCKS_APART_MAX_MS: Final = 60_000

# An incarnation is greatest(last + 1, Unix seconds): one further ahead than this was never drawn from a log.
INCARNATION_AHEAD_MAX_S: Final = 86_400

CLOCKS_APART: Final = "CLOCKS_APART"
EPOCH_IMPLAUSIBLE: Final = "EPOCH_IMPLAUSIBLE"
EPOCH_STALE: Final = "EPOCH_STALE"
LOG_MISMATCH: Final = "LOG_MISMATCH"


@dataclass(frozen=True, slots=True)
class Introduction:
    """A coordinator: its log, itself, the life of it that speaks, and where to ask (all coordinators).

    ``pruned_below_unix_ms``: transactions with older xids have ended everywhere (R14); 0 for none.
    ``number`` counts a session's introductions from 1; 0 outside of one.
    """

    log_id: str
    coordinator: str
    incarnation: int
    epoch: int
    coordinator_addresses: tuple[str, ...] = ()
    pruned_below_unix_ms: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """A participant: its name, clock, adopted epoch, and the highest sequence applied per incarnation.

    ``session`` says that it serves Session. ``refusal`` is a reason in capitals, or empty: welcome.
    ``number`` is that of the introduction it answers; 0 where it is not said.
    """

    participant: str
    clock_unix_ms: int
    epoch: int
    watermarks: Mapping[int, int] = field(default_factory=dict[int, int])
    operations: tuple[str, ...] = ()
    session: bool = True
    refusal: str = ""
    number: int = 0


def is_plausible(incarnation: int, unix_ms: int) -> bool:
    """Whether an incarnation or epoch can have been drawn by now, at most a day ahead of this clock.

    Adopted once, a higher number shuts out every true coordinator; so a made-up one must not be.
    """
    return incarnation <= unix_ms // 1000 + INCARNATION_AHEAD_MAX_S


def holds_later_epoch(welcome: Welcome, participant: str, epoch: int, unix_ms: int) -> bool:
    """Whether this participant itself says that it holds a higher epoch, and one that a log can have drawn by now."""
    is_said = welcome.participant == participant and welcome.refusal in ("", EPOCH_STALE)
    return is_said and welcome.epoch > epoch and is_plausible(welcome.epoch, unix_ms)


def clocks_apart(one_unix_ms: int, other_unix_ms: int) -> bool:
    """Whether two wall clocks differ by more than a minute (R10)."""
    return abs(one_unix_ms - other_unix_ms) > CLOCKS_APART_MAX_MS
