"""Links between coordinators and participants that are cut, half open, one way, slow: under load."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from participant_sdk.faults import Way
from tests.crash.processes import Cluster
from tests.crash.trials import go_on, judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

# How long a fault lasts: longer than a prepare takes, shorter than a lease.
FAULT_S = 1.5
PARTICIPANTS = ("bookkeeper", "trading", "bank")


async def test_links_that_are_cut_again_and_again(up: Cluster, prefix: str) -> None:
    """R2, R10: what was under way is asked again, or rolled back; nothing is done twice."""
    async with judged(up, prefix) as load:
        for name in PARTICIPANTS * 2:
            up.proxies[name].cut()
            await go_on(load, 10)


async def test_a_participant_that_cannot_be_reached(up: Cluster, prefix: str) -> None:
    """R2, R17: its transactions are rolled back, the others go on."""
    async with judged(up, prefix) as load:
        for name in PARTICIPANTS:
            up.proxies[name].cut(refuse=True)
            await asyncio.sleep(FAULT_S)
            up.proxies[name].restore()
            await go_on(load, 10)


@pytest.mark.parametrize("ways", [(Way.UP,), (Way.DOWN,), (Way.UP, Way.DOWN)], ids=["up", "down", "half open"])
async def test_a_link_that_carries_nothing_one_way_or_both(up: Cluster, prefix: str, ways: Sequence[Way]) -> None:
    """R2, R5, R12: silence is no answer, and no end."""
    async with judged(up, prefix) as load:
        for name in PARTICIPANTS:
            for way in ways:
                up.proxies[name].hold(way)
            await asyncio.sleep(FAULT_S)
            up.proxies[name].restore()
            await go_on(load, 10)


async def test_links_that_are_cut_while_they_are_held(up: Cluster, prefix: str) -> None:
    """Votes and acknowledgements are lost on the way, after they were given."""
    async with judged(up, prefix) as load:
        for name in PARTICIPANTS:
            up.proxies[name].hold(Way.DOWN)
            await asyncio.sleep(0.3)
            up.proxies[name].cut()
            up.proxies[name].restore()
            await go_on(load, 10)


async def test_slow_links(up: Cluster, prefix: str) -> None:
    """R16: late votes are no votes; slow ones are."""
    async with judged(up, prefix) as load:
        for name in PARTICIPANTS:
            up.proxies[name].slow(Way.UP, 0.05)
            up.proxies[name].slow(Way.DOWN, 0.1)
        await go_on(load)
        for proxy in up.proxies.values():
            proxy.restore()
        await go_on(load)
