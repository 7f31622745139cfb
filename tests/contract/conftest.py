"""Every test of the contract runs on the log in memory and on the one on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from coordinator.log.decision_log import DecisionLog
from coordinator.log.postgres import migrate_log
from tests.contract.worlds import MemoryWorld, PostgresWorld, World


@pytest.fixture
async def memory_world() -> World:
    return MemoryWorld()


@pytest.fixture
async def postgres_world(database: str) -> AsyncIterator[World]:
    await migrate_log(database)
    async with AsyncExitStack() as closing:
        yield PostgresWorld(database, closing)


@pytest.fixture(params=["memory_world", "postgres_world"])
def world(request: pytest.FixtureRequest) -> World:
    return request.getfixturevalue(request.param)


@pytest.fixture
def log(world: World) -> DecisionLog:
    return world.handle()
