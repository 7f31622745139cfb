"""Statements that a connection keeps prepared, called with parameters in PostgreSQL's binary form.

For what is sent with every batch: nothing is converted that is binary already, and there is no cursor. Rows are read
by psycopg's loaders, as a cursor's are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult

from participant_sdk.resources.postgres_strings import prepare, run_prepared

# The statement is not prepared here any more (DISCARD ALL, a pooler), or what it returns is not what it was. The
# server says so before it begins.
_UNPREPARED: Final = ("26000", "0A000")

Row = TypeVar("Row")


class PreparedCalls:
    """The calls over one connection, which must be in nobody else's use meanwhile."""

    __slots__ = ("_connection", "_encoding", "_made", "_names")

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._encoding = connection.info.encoding
        # The names of what is prepared here, by text, and how many names were given out.
        self._names: dict[bytes, bytes] = {}
        self._made = 0

    async def call(
        self, statement: bytes, parameters: Sequence[bytes], row: Callable[[Sequence[Any]], Row]
    ) -> list[Row]:
        """Run a statement, prepared at its first call, and return its rows, each made by ``row``.

        Its text has $1 and so on for the parameters. psycopg.Error. When it is cancelled, the server may have
        done it all the same.
        """
        was_prepared = statement in self._names
        try:
            result = await self._run(statement, parameters)
        except psycopg.DatabaseError as error:
            if error.sqlstate not in _UNPREPARED or not was_prepared:
                raise
            del self._names[statement]
            if self._connection.pgconn.transaction_status != TransactionStatus.IDLE:
                raise
            result = await self._run(statement, parameters)
        # Most calls return none, and need nobody to read them.
        if not result.ntuples:
            return []
        reading = Transformer(self._connection)
        reading.set_pgresult(result)
        return reading.load_rows(0, result.ntuples, row)

    async def _run(self, statement: bytes, parameters: Sequence[bytes]) -> PGresult:
        wait, pgconn = self._connection.wait, self._connection.pgconn
        name = self._names.get(statement)
        if name is None:
            self._made += 1
            name = f"pincex_{self._made}".encode()
            await wait(prepare(pgconn, name, statement, self._encoding))
            self._names[statement] = name
        return await wait(run_prepared(pgconn, name, parameters, self._encoding))
