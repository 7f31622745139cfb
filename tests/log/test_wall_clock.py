"""A coordinator's wall clock may be set: its lease is measured by another (R6)."""

from __future__ import annotations

import asyncio

from tests.log.bench import LEASE_S, Bench, Coordinator, virtual_time
from tests.simulation.clocks import SimulatedClock
from tests.simulation.loop import SimulatedLoop

HOUR_MS = 3_600_000


def with_a_clock_of_their_own(bench: Bench) -> None:
    """Let the coordinators to come have another clock than the log."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    bench.clock = SimulatedClock(loop)


def is_fenced(bench: Bench, coordinator: Coordinator) -> bool:
    return bench.store.tables.incarnations[coordinator.number].fenced_by is not None


@virtual_time
async def test_one_whose_clock_is_set_back_renews_on(bench: Bench) -> None:
    rival = await bench.coordinator("rival")
    with_a_clock_of_their_own(bench)
    own = await bench.coordinator("own")
    for coordinator in (rival, own):
        coordinator.live()
    await asyncio.sleep(4 * LEASE_S)
    bench.clock.jump(-HOUR_MS)
    await asyncio.sleep(4 * LEASE_S)
    assert not is_fenced(bench, own)


@virtual_time
async def test_one_whose_clock_is_set_ahead_fences_no_earlier(bench: Bench) -> None:
    """Nobody is fenced before one's own lease was renewed unbroken for its whole length."""
    gone = await bench.coordinator("gone")
    with_a_clock_of_their_own(bench)
    own = await bench.coordinator("own")
    gone.append(gone.record())
    await asyncio.sleep(4 * LEASE_S)
    own.live()
    for _ in range(4):
        await asyncio.sleep(LEASE_S / 5)
        bench.clock.jump(int(LEASE_S / 2 * 1000))
    assert not is_fenced(bench, gone)
    await asyncio.sleep(LEASE_S)
    assert is_fenced(bench, gone)
