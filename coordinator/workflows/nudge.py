"""Something that waits between attempts, and can be woken: to try at once, or to end what it waits for."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Nudge:
    """Pauses that others cut short. Mutable: one for each workflow that runs."""

    __slots__ = ("_wake", "is_ending")

    def __init__(self) -> None:
        self.is_ending = False
        self._wake = asyncio.Event()

    def poke(self) -> None:
        """Have what waits try again now."""
        self._wake.set()

    def end(self) -> None:
        """Have what waits come to an end, until ``go_on``: no further attempt is made."""
        self.is_ending = True
        self._wake.set()

    def go_on(self) -> None:
        """Let attempts be made again."""
        self.is_ending = False

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until somebody wakes it: not at all where that was since the last pause, or it is to end."""
        if self.is_ending:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()
