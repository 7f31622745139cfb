"""Every test of the contract runs on the log in memory and on the one on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from coordinator.embedded.redis import EmbeddedRedis
from coordinator.locks.lock_store import LockStore
from coordinator.log.decision_log import DecisionLog
from coordinator.log.postgres import migrate_log
from tests.conftest import MakeDatabase
from tests.contract.branch_subjects import Subject, http_inventory, memory_bank, reservation_book, xa_bank
from tests.contract.lock_worlds import LockWorld, MemoryLockWorld, RedisLockWorld
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


@pytest.fixture(params=["memory", "postgres_xa", "reservation", "http"])
async def subject(request: pytest.FixtureRequest, databases: MakeDatabase, tmp_path: Path) -> AsyncIterator[Subject]:
    """Each kind of participant, for the contract that all of them keep."""
    match request.param:
        case "memory":
            opened = memory_bank()
        case "postgres_xa":
            opened = xa_bank(await databases("bank"))
        case "http":
            opened = http_inventory(await databases("inventory"), tmp_path)
        case _:
            opened = reservation_book(await databases("book"))
    async with opened as participating:
        yield participating


@pytest.fixture(params=["memory", "redis"])
async def lock_world(request: pytest.FixtureRequest) -> AsyncIterator[LockWorld]:
    if request.param == "memory":
        yield MemoryLockWorld()
        return
    server: EmbeddedRedis = request.getfixturevalue("redis")
    world = RedisLockWorld(server)
    yield world
    await world.close()


@pytest.fixture
def locks(lock_world: LockWorld) -> LockStore:
    return lock_world.handle()
