"""Dedicated connections to a participant's database: as many as batches run at once, opened when first used.

A connection that broke is closed and replaced by the next user. Nothing is pooled beyond
that: the hot path always finds its prepared statements and kept plans where it left them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from psycopg import AsyncConnection, pq, sql
from psycopg.rows import TupleRow

from participant_sdk.resources import packed_arrays

CONNECT_TIMEOUT_S: Final = 5

# Batches are looked up by index, row by row, in pages that are in memory. The planner takes an array for ten
# elements and prefers reading a small table whole; with these it does so only up to a few dozen rows.
_SETTINGS: Final = """
set synchronous_commit = on;
set lock_timeout = '2s';
set statement_timeout = '30s';
set idle_in_transaction_session_timeout = '30s';
set jit = off;
set plan_cache_mode = force_generic_plan;
set enable_seqscan = off;
set enable_hashjoin = off;
set enable_mergejoin = off;
set random_page_cost = 0.1;
set seq_page_cost = 0.1;
"""


@dataclass(slots=True)
class Dedicated:
    """One connection's place. ``worker`` is the session's number among all live ones of this database."""

    connection: AsyncConnection[TupleRow] | None = None
    worker: int = 0
    uses: int = 0


class DedicatedConnections:
    """``count`` places for connections in autocommit that find the service's functions in ``schema``."""

    def __init__(self, dsn: str, schema: str, count: int) -> None:
        self._dsn = dsn
        self._schema = schema
        # Last in, first out: little traffic stays on one warm connection.
        self._places: asyncio.LifoQueue[Dedicated] = asyncio.LifoQueue()
        self._all = [Dedicated() for _ in range(count)]
        for place in self._all:
            self._places.put_nowait(place)

    @asynccontextmanager
    async def acquire(self) -> AsyncGenerator[tuple[AsyncConnection[TupleRow], int]]:
        """Take a connection, and its worker's number, for a while; wait while all are taken.

        psycopg.OperationalError when the database cannot be reached. What leaves a transaction open,
        a cancelled user too, loses the connection: nothing of it is kept.
        """
        place = await self._places.get()
        try:
            connection = place.connection
            if connection is None or connection.closed:
                connection = await self._connect(place)
            await _forget_early_plans(connection, place)
            yield connection, place.worker
        finally:
            held = place.connection
            if held is not None and held.info.transaction_status != pq.TransactionStatus.IDLE:
                await held.close()
            self._places.put_nowait(place)

    async def close(self) -> None:
        """Close all. Nobody may be using one."""
        for place in self._all:
            if place.connection is not None:
                await place.connection.close()

    async def _connect(self, place: Dedicated) -> AsyncConnection[TupleRow]:
        connection = await AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
        try:
            packed_arrays.register(connection)
            await connection.execute(_SETTINGS)
            await connection.execute(sql.SQL("set search_path = {}, pincex").format(sql.Identifier(self._schema)))
            row = await (await connection.execute("select pincex.claim_worker()")).fetchone()
        except BaseException:
            # Cancelled, too: half set up, it must not be found by the next user.
            await connection.close()
            raise
        place.connection = connection
        place.worker = row[0] if row else 0
        place.uses = 0
        return connection


async def _forget_early_plans(connection: AsyncConnection[TupleRow], place: Dedicated) -> None:
    """Have everything planned anew at each doubling of a connection's uses.

    Plans are kept, and one made for tables that were nearly empty reads them whole. Tables grow as
    the uses do, so no such plan lives on until they are large.
    """
    place.uses += 1
    if place.uses & (place.uses - 1) == 0:
        await connection.execute("discard plans")
