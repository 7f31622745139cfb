"""How long to wait before trying again: doubling, jittered, capped."""

from __future__ import annotations

import asyncio
import random
from typing import Final

# Past this the cap has long been reached, and the power would only grow.
_DOUBLINGS_MAX: Final = 32


class Backoff:
    """The waits of one thing that is tried again and again, until ``reset``."""

    __slots__ = ("_attempts", "_cap_s", "_first_s", "_jitter")

    def __init__(self, jitter: random.Random, *, first_s: float, cap_s: float) -> None:
        self._jitter = jitter
        self._first_s = first_s
        self._cap_s = cap_s
        self._attempts = 0

    def next_s(self) -> float:
        """The next wait, in seconds: between half of the doubled one and all of it."""
        full_s = min(self._cap_s, self._first_s * 2.0 ** min(self._attempts, _DOUBLINGS_MAX))
        self._attempts += 1
        return full_s * (0.5 + self._jitter.random() / 2)

    async def wait(self) -> None:
        """Wait once, and make the next wait longer."""
        await asyncio.sleep(self.next_s())

    def reset(self) -> None:
        """Begin again with the first wait."""
        self._attempts = 0
