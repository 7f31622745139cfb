"""The databases fail under load: cut in mid-commit, stopped at once, without slots, connections or room.

Each test ends with every client told, and the databases saying the same.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack

import psutil
import psycopg
import pytest

from coordinator.embedded import EmbeddedPostgres, Shutdown
from tests.crash.checks import read
from tests.crash.conftest import Servers
from tests.crash.processes import Cluster
from tests.crash.trials import WITHIN_S, commits_of, go_on, judged

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

_TERMINATE = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where application_name like '%%-appends' and state = 'active' and wait_event is not null"
)
_OURS = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where pid <> pg_backend_pid() and application_name <> 'taker' and backend_type = 'client backend'"
)


async def test_backends_terminated_during_the_commit_of_decisions(up: Cluster, prefix: str) -> None:
    """R5: an append whose result is unknown is written again; what it did, it did once."""
    terminated = 0
    async with judged(up, prefix) as load:
        async with await psycopg.AsyncConnection.connect(up.dsns["txlog"], autocommit=True) as connection:
            async with asyncio.timeout(WITHIN_S):
                while terminated < 12:
                    row = await (await connection.execute(_TERMINATE)).fetchone()
                    terminated += 0 if row is None else int(row[0])
        await go_on(load)


@pytest.mark.parametrize("which", [("log",), ("participants",), ("log", "participants")], ids="+".join)
async def test_servers_that_stop_at_once_and_come_back(
    up: Cluster, servers: Servers, prefix: str, which: Sequence[str]
) -> None:
    """R1, R8, R9: what was told is on disk."""
    chosen: list[EmbeddedPostgres] = [getattr(servers, name) for name in which]
    async with judged(up, prefix) as load:
        for _ in range(2):
            await go_on(load)
            for server in chosen:
                await asyncio.to_thread(server.stop, Shutdown.IMMEDIATE)
            for server in chosen:
                # In this thread, whose end is what the kernel would tell the server.
                server.start()
        await go_on(load)


async def test_no_slot_for_prepared_transactions_is_left(up: Cluster, servers: Servers, prefix: str) -> None:
    """R3, R17: the XA branches' "no" is transient and theirs alone. R18: what is foreign is left alone."""
    other = await asyncio.to_thread(servers.participants.create_database, "foreign")
    gids: list[str] = []
    async with judged(up, prefix) as load, await psycopg.AsyncConnection.connect(other, autocommit=True) as taker:
        for number in itertools.count():
            try:
                await taker.execute("begin")
                await taker.execute("create table if not exists taken (number integer)" if not number else "select 1")
                await taker.execute("select pg_current_xact_id()")
                await taker.execute(f"prepare transaction 'foreign:{prefix}:{number}'".encode())
            except psycopg.errors.OutOfMemory:
                # All slots are taken: 53200, and the transaction is gone.
                break
            gids.append(f"foreign:{prefix}:{number}")
        assert len(gids) > 10
        await commits_of(load, ("bookkeeper", "trading"))
        left = await read(other, "select gid from pg_prepared_xacts where database = current_database()")
        assert {row[0] for row in left} == set(gids), "somebody else's are left alone"
        for gid in gids:
            await taker.execute(f"rollback prepared '{gid}'".encode())
        await commits_of(load, ("bank", "trading"))


async def test_no_connection_is_left(up: Cluster, servers: Servers, prefix: str) -> None:
    """Nobody guesses while a database takes no connections; and then it goes on."""
    async with judged(up, prefix) as load, AsyncExitStack() as stack:
        for server in (servers.log, servers.participants):
            taken = await stack.enter_async_context(AsyncExitStack())
            taker = await taken.enter_async_context(await connected(server))
            # Ours are cut, and the places taken before they are back.
            for _ in range(3):
                await taker.execute(_OURS)
                await take_all(server, taken)
            await asyncio.sleep(1.0)
            await taken.aclose()
            await go_on(load)


async def take_all(server: EmbeddedPostgres, stack: AsyncExitStack) -> None:
    """Take every connection that the server has."""
    while True:
        try:
            await stack.enter_async_context(await connected(server))
        except psycopg.OperationalError:
            return


async def connected(server: EmbeddedPostgres) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True, application_name="taker")


async def test_a_coordinator_without_file_descriptors(up: Cluster, prefix: str) -> None:
    """It opens nothing new for a while, and loses what it had; nobody is told anything wrong."""
    starved = psutil.Process(up.coordinator.pid)
    async with judged(up, prefix) as load:
        _, hard = starved.rlimit(psutil.RLIMIT_NOFILE)
        # Files that are open stay so; the next one would get a number above this.
        starved.rlimit(psutil.RLIMIT_NOFILE, (8, hard))
        for proxy in up.proxies.values():
            proxy.cut()
        async with await psycopg.AsyncConnection.connect(up.dsns["txlog"], autocommit=True) as connection:
            await connection.execute(_OURS)
        await asyncio.sleep(2.0)
        starved.rlimit(psutil.RLIMIT_NOFILE, (hard, hard))
        await go_on(load)
