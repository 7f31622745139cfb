"""A pause that others cut short."""

from __future__ import annotations

import asyncio

from coordinator.workflows.nudge import Nudge

LONG_S = 3_600.0
SOON_S = 20.0


async def test_what_is_woken_between_two_pauses_does_not_wait_in_the_next_and_waits_in_the_one_after() -> None:
    nudge = Nudge()
    nudge.poke()
    async with asyncio.timeout(SOON_S):
        await nudge.pause(LONG_S)
    waiting = asyncio.ensure_future(nudge.pause(LONG_S))
    await asyncio.sleep(0)
    assert not waiting.done()
    nudge.poke()
    async with asyncio.timeout(SOON_S):
        await waiting


async def test_nothing_waits_that_is_to_end() -> None:
    nudge = Nudge()
    nudge.end()
    async with asyncio.timeout(SOON_S):
        await nudge.pause(LONG_S)
        await nudge.pause(LONG_S)
