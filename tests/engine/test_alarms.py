"""Alarms ring in time and in order, and what ringing raises is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager

import pytest

from coordinator.alarms import SLOT_S, Alarms
from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid, XidSource

CLOCK = SystemClock()
XIDS = XidSource(7)


@contextmanager
def ringing(alarms: Alarms) -> Generator[asyncio.Task[None]]:
    task = asyncio.create_task(alarms.run())
    try:
        yield task
    finally:
        task.cancel()


def collect(count: int) -> tuple[list[Xid], asyncio.Event, Callable[[Xid], None]]:
    rung: list[Xid] = []
    enough = asyncio.Event()

    def ring(xid: Xid) -> None:
        rung.append(xid)
        if len(rung) == count:
            enough.set()

    return rung, enough, ring


async def test_they_ring_in_order_of_time_each_once() -> None:
    rung, enough, ring = collect(3)
    alarms = Alarms(CLOCK, ring)
    one, two, three = (XIDS.next(0) for _ in range(3))
    now_s = CLOCK.monotonic_s()
    with ringing(alarms):
        alarms.set(three, now_s + 0.03)
        alarms.set(one, now_s + 0.01)
        alarms.set(two, now_s + 5.0)
        alarms.set(two, now_s + 0.02)
        await enough.wait()
    assert rung == [one, two, three]


async def test_they_ring_in_order_whatever_slots_they_lie_in() -> None:
    rung, enough, ring = collect(4)
    alarms = Alarms(CLOCK, ring)
    xids = [XIDS.next(0) for _ in range(4)]
    now_s = CLOCK.monotonic_s()
    with ringing(alarms):
        for xid, slots in zip(xids, (1.3, 0.1, 1.2, 0.05), strict=True):
            alarms.set(xid, now_s + slots * SLOT_S)
        # Put off once its slot has come, and so is in order already.
        await asyncio.sleep(0)
        alarms.set(xids[3], now_s + 1.25 * SLOT_S)
        await enough.wait()
    assert rung == [xids[1], xids[2], xids[3], xids[0]]
    assert len(alarms) == 0


async def test_an_alarm_set_while_it_sleeps_for_a_later_one_rings_first() -> None:
    rung, enough, ring = collect(1)
    alarms = Alarms(CLOCK, ring)
    early, late = XIDS.next(0), XIDS.next(0)
    with ringing(alarms):
        alarms.set(late, CLOCK.monotonic_s() + 60)
        await asyncio.sleep(0)
        alarms.set(early, CLOCK.monotonic_s())
        await enough.wait()
    assert rung == [early]


async def test_an_alarm_that_was_put_off_rings_at_its_last_time_and_once() -> None:
    rung, enough, ring = collect(3)
    alarms = Alarms(CLOCK, ring)
    often, once, last = (XIDS.next(0) for _ in range(3))
    now_s = CLOCK.monotonic_s()
    for at_s in (0.0, 0.01, 0.03, 0.02):
        alarms.set(often, now_s + at_s)
    alarms.set(once, now_s + 0.015)
    alarms.set(last, now_s + 0.04)
    with ringing(alarms):
        await enough.wait()
    assert rung == [once, often, last]


async def test_alarms_put_off_to_a_time_that_has_come_too_ring_at_once() -> None:
    rung, enough, ring = collect(1)
    alarms = Alarms(CLOCK, ring)
    xid = XIDS.next(0)
    now_s = CLOCK.monotonic_s()
    alarms.set(xid, now_s - 2.0)
    alarms.set(xid, now_s - 1.0)
    with ringing(alarms):
        await enough.wait()
    assert rung == [xid]


async def test_what_is_dropped_or_put_off_by_another_that_rings_does_not_ring_with_it() -> None:
    rung, enough, ring = collect(2)

    def ring_and_meddle(xid: Xid) -> None:
        if xid == first:
            alarms.drop(dropped)
            alarms.set(put_off, now_s + 0.01)
        ring(xid)

    alarms = Alarms(CLOCK, ring_and_meddle)
    first, dropped, put_off = (XIDS.next(0) for _ in range(3))
    now_s = CLOCK.monotonic_s()
    alarms.set(first, now_s - 0.003)
    alarms.set(dropped, now_s - 0.002)
    alarms.set(put_off, now_s - 0.001)
    with ringing(alarms):
        await enough.wait()
    assert rung == [first, put_off]
    assert len(alarms) == 0


async def test_what_was_dropped_or_replaced_does_not_ring_and_is_not_kept() -> None:
    rung, enough, ring = collect(1)
    alarms = Alarms(CLOCK, ring)
    kept, dropped = XIDS.next(0), XIDS.next(0)
    now_s = CLOCK.monotonic_s()
    for later in range(100):
        alarms.set(dropped, now_s + 60 - SLOT_S / 3 * later)
    alarms.set(kept, now_s)
    assert len(alarms) == 2
    alarms.drop(dropped)
    alarms.drop(dropped)
    assert len(alarms) == 1
    with ringing(alarms):
        await enough.wait()
    assert rung == [kept]
    alarms.set(kept, now_s)
    alarms.clear()
    assert len(alarms) == 0


async def test_what_ringing_raises_ends_the_run_and_is_seen() -> None:
    """A coordinator whose alarms have stopped must not go on."""

    def ring(xid: Xid) -> None:
        raise RuntimeError(f"cannot ring for {xid}")

    alarms = Alarms(CLOCK, ring)
    alarms.set(XIDS.next(0), CLOCK.monotonic_s())
    with pytest.raises(RuntimeError, match="cannot ring"):
        await alarms.run()
