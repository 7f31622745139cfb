"""Log events that come for hundreds of transactions at once: the first are told, of the rest how many there were.

A participant that is away makes hundreds of transactions need attention within a second. What
each of them is, status and log tell; the lines only have to say that it is so, and how much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Final

import structlog

TOLD_MAX: Final = 10
SUM_UP_EVERY_S: Final = 1.0
# Told by count alone: ``pincex recovery status`` lists them.
COUNTED: Final = frozenset({"transaction_needs_attention"})
# Told one by one all the same, as information: each is a fact of its own, and none may be missed.
DEMOTED: Final = frozenset({"heuristic_outcome"})

Event = MutableMapping[str, object]


@dataclass(slots=True)
class _Burst:
    """One event's. Not frozen: it counts."""

    told: int = 0
    left_out: int = 0


class Bursts:
    """A structlog processor that bounds the events named above. For the event loop's thread alone.

    A burst begins with a line, and is over once a second left nothing out. Past its first ``TOLD_MAX`` lines,
    ``write`` gets one each second, of the event's own level, with ``more``: how many were left out.
    """

    __slots__ = ("_bursts", "_write", "_writes_info")

    def __init__(self, write: Callable[[str, Event], None], *, writes_info: bool) -> None:
        self._write = write
        self._writes_info = writes_info
        self._bursts: dict[str, _Burst] = {}

    def __call__(self, _logger: object, level: str, line: Event) -> Event:
        """Let a line pass, as it is or demoted; structlog.DropEvent for one that is only counted."""
        event = line["event"]
        if not isinstance(event, str) or event not in COUNTED | DEMOTED:
            return line
        burst = self._bursts.get(event)
        if burst is None:
            burst = self._bursts[event] = _Burst()
            self._wait(event, level)
        if burst.told < TOLD_MAX:
            burst.told += 1
            return line
        burst.left_out += 1
        if event in COUNTED or not self._writes_info:
            raise structlog.DropEvent
        line["level"] = "info"
        return line

    def _wait(self, event: str, level: str) -> None:
        asyncio.get_running_loop().call_later(SUM_UP_EVERY_S, self._sum_up, event, level)

    def _sum_up(self, event: str, level: str) -> None:
        burst = self._bursts[event]
        if not burst.left_out:
            del self._bursts[event]
            return
        self._write(level, {"event": event, "more": burst.left_out})
        burst.left_out = 0
        self._wait(event, level)
