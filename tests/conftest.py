"""Real servers for tests: one PostgreSQL for the run, an empty database for each test that asks."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

from coordinator.embedded.postgres import EmbeddedPostgres, Shutdown
from coordinator.embedded.redis import EmbeddedRedis
from tests.counting import count_no_others, looking_away
from tests.databases import Databases

MakeDatabase = Callable[[str], Awaitable[str]]

_FOLDER: Final = "pincex-test-"
_numbers = itertools.count(1)

# On a machine that is busy with other tests, no clock decides whether one passes.
settings.register_profile("pincex", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pincex")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that may take longest come first: one that began last would be waited for alone."""
    longest: dict[Path, float] = {}
    for item in items:
        longest[item.path] = max(
            longest.get(item.path, 0.0), *(mark.args[0] for mark in item.iter_markers("timeout")), 0.0
        )
    items.sort(key=lambda item: -longest[item.path])


@pytest.fixture(scope="session", autouse=True)
def few_processes_count() -> None:
    """Not before tests run: pytest-xdist's processes are started by one that runs none, and they do count."""
    count_no_others()


@pytest.fixture(autouse=True)
def is_counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether coverage counts the test."""
    with looking_away() if request.node.get_closest_marker("uncounted") else nullcontext():
        yield


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder for servers' data, removed afterwards; what a killed run left is removed now.

    Not pytest's own: that is closed to the account which PostgreSQL runs as when tests run as root.
    """
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{_FOLDER}*-*"):
        if not Path(f"/proc/{left.name.removeprefix(_FOLDER).partition('-')[0]}").exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL 18 that forces its commits to disk. It cannot outlive the run."""
    server = EmbeddedPostgres(server_folder / "postgres", orphaned=Shutdown.IMMEDIATE)
    server.start()
    yield server
    server.stop(Shutdown.IMMEDIATE)


@pytest.fixture(scope="session")
def empty_databases(postgres: EmbeddedPostgres) -> Databases:
    """Those of the run's server."""
    return Databases(postgres)


@pytest.fixture(scope="session")
def redis(server_folder: Path) -> Iterator[EmbeddedRedis]:
    """A Redis 6.2. Each test has keys of its own in it; one that flushes it may run only beside such as may be lost."""
    server = EmbeddedRedis(server_folder / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def databases(empty_databases: Databases, request: pytest.FixtureRequest) -> AsyncIterator[MakeDatabase]:
    """``await databases("name")`` has an empty database and returns its DSN; all are given back afterwards."""
    lent: list[str] = []
    prefix = re.sub(r"\W+", "_", request.node.name.lower())[:30]

    async def make(name: str) -> str:
        database = f"{prefix}_{next(_numbers)}_{name}"[:63]
        lent.append(database)
        return await asyncio.to_thread(empty_databases.lend, database)

    yield make
    for database in lent:
        await asyncio.to_thread(empty_databases.take_back, database)


@pytest.fixture
async def database(databases: MakeDatabase) -> str:
    """The DSN of one empty database."""
    return await databases("database")
