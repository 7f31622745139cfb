"""The contract of ``DecisionLog``: who may fence whom, each condition where no other one helps (R6)."""

from __future__ import annotations

import asyncio

from coordinator.log.decision_log import AppendStatus, DecisionLog
from tests.contract.worlds import SHORT_LEASE_S, Coordinator, fenced_by, started


async def expired(log: DecisionLog, *coordinators: Coordinator) -> None:
    """Wait until the leases of these have run out by the log's clock."""
    numbers = {coordinator.number for coordinator in coordinators}
    async with asyncio.timeout(10):
        while any(live.lease_left_s >= 0 for live in (await log.standing()).live if live.number in numbers):  # noqa: ASYNC110 - There is no event.
            await asyncio.sleep(SHORT_LEASE_S / 5)


async def is_fenced(log: DecisionLog, coordinator: Coordinator) -> bool:
    return coordinator.number not in {live.number for live in (await log.standing()).live}


async def test_among_those_who_are_fenced_is_none_that_lives(log: DecisionLog) -> None:
    living, gone = await started(log, "living"), await started(log, "gone", SHORT_LEASE_S)
    own = await started(log, "own")
    await living.append(living.record())
    await gone.append(gone.record())
    await fenced_by(log, own, [gone.number])
    assert (await living.append()).status is AppendStatus.WRITTEN


async def test_one_whose_own_lease_ran_out_fences_nobody(log: DecisionLog) -> None:
    gone, late = await started(log, "gone", SHORT_LEASE_S), await started(log, "late", SHORT_LEASE_S)
    await gone.append(gone.record())
    await expired(log, gone, late)
    assert not await log.fence_expired(late.incarnation)
    assert not await is_fenced(log, gone)


async def test_one_that_is_fenced_within_its_lease_fences_nobody(log: DecisionLog) -> None:
    """Invariant 7."""
    gone, ended = await started(log, "gone", SHORT_LEASE_S), await started(log, "ended")
    await gone.append(gone.record())
    await log.resign(ended.incarnation)
    await expired(log, gone)
    await log.fence_expired(ended.incarnation)
    assert not await is_fenced(log, gone)
