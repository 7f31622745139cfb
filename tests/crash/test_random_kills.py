"""Kills that choose no moment, and kills in the middle of recovering from kills."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import pytest
import pytest_asyncio

from tests.crash.conftest import Servers
from tests.crash.opening import fill_till
from tests.crash.processes import Cluster, cluster
from tests.crash.runs import Runner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

SEED: Final = 20
# From before it has opened the log until after it may fence others.
LIFE_S: Final = (0.3, 4.5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    """One coordinator, so that nobody else recovers."""
    async with cluster(tmp_path_factory.mktemp("cluster"), servers.database, bank=True) as running:
        await fill_till(running)
        yield running


async def test_anything_is_killed_at_any_moment(up: Cluster) -> None:
    runner = Runner(up, "any", SEED)
    for _ in range(4):
        run = await runner.kill_anything()
        assert run.is_good, "\n".join(run.complaints)


async def test_a_coordinator_is_killed_twenty_times_while_it_recovers(up: Cluster) -> None:
    """Invariant 8: however often recovery begins anew, it ends, and has done everything once."""
    run = await Runner(up, "loop", SEED).crash_loop(20, LIFE_S)
    assert run.is_good, "\n".join(run.complaints)
