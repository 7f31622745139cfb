"""Clusters for tests of faults: one for each module, on servers of its own, whole again after every test."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from coordinator.embedded import EmbeddedPostgres, Shutdown
from tests.crash.opening import fill_till
from tests.crash.processes import Cluster, cluster

_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Servers:
    """The log's server, and the one that all participants share."""

    log: EmbeddedPostgres
    participants: EmbeddedPostgres

    async def database(self, name: str) -> str:
        """Make a database of the cluster where it belongs."""
        server = self.log if name == "txlog" else self.participants
        return await asyncio.to_thread(server.create_database, name)


@pytest.fixture(scope="module")
def servers(server_folder: Path) -> Iterator[Servers]:
    """Two servers that force their commits to disk."""
    folder = server_folder / f"crash-{next(_numbers)}"
    folder.mkdir(mode=0o711)
    limits = {"max_connections": "60", "max_prepared_transactions": "60"}
    running = Servers(
        EmbeddedPostgres(folder / "log", settings=limits, orphaned=Shutdown.IMMEDIATE),
        EmbeddedPostgres(folder / "participants", settings=limits, orphaned=Shutdown.IMMEDIATE),
    )
    for server in (running.log, running.participants):
        server.start()
    yield running
    for server in (running.log, running.participants):
        server.stop(Shutdown.IMMEDIATE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    """Two coordinators, two sidecars and the bank, with money in the till."""
    folder = tmp_path_factory.mktemp("cluster")
    async with cluster(folder, servers.database, coordinators=2, bank=True) as running:
        await fill_till(running)
        yield running


@pytest.fixture
def prefix() -> str:
    """A name for a trial that no other has."""
    return f"t{next(_numbers)}"
