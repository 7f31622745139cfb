"""What attends a participant: it goes on whatever happens to it, and ends with its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from participant_sdk.clock import SystemClock
from sidecars.sidecar import Surroundings, attend

SURROUNDINGS = Surroundings("trading", "dbname=nowhere", SystemClock(), {})


async def test_one_that_fails_is_run_again_and_cancelling_ends_it() -> None:
    runs = 0
    is_third = asyncio.Event()

    async def matcher(surroundings: Surroundings) -> None:
        nonlocal runs
        assert surroundings is SURROUNDINGS
        runs += 1
        if runs < 3:
            raise OSError("the database is gone")
        is_third.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(attend("matcher", matcher, SURROUNDINGS))
    await asyncio.wait_for(is_third.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert runs == 3


async def test_one_that_returns_is_a_fault_of_ours() -> None:
    def matcher(_: Surroundings) -> Coroutine[None, None, None]:
        return asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="matcher returned"):
        await attend("matcher", matcher, SURROUNDINGS)
