"""Waiting longer after each failure, with jitter, so that coordinators do not come back in step."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

FIRST_S: Final = 0.01
LONGEST_S: Final = 1.0


class Backoff:
    """Doubles from 10 ms to one second; each wait is between half of that and the whole."""

    __slots__ = ("_next_s", "_random")

    def __init__(self, random: Random) -> None:
        self._random = random
        self._next_s = FIRST_S

    async def wait(self) -> None:
        """Wait once, and make the next wait longer."""
        wait_s = self._next_s * self._random.uniform(0.5, 1.0)
        self._next_s = min(LONGEST_S, 2 * self._next_s)
        await asyncio.sleep(wait_s)

    def reset(self) -> None:
        """Begin from the shortest wait again: something succeeded."""
        self._next_s = FIRST_S
