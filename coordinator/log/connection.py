"""One dedicated connection to the log's database: statements in, rows or the log's errors out.

What is known after a failure, and what is raised:

- it could not connect: nothing was sent. LogUnavailableError.
- the server answered ERROR: the statement was undone. BadRecordError for a refused value
  (SQLSTATE classes 22 and 23, and 54000, an index row that grew too large), else
  LogUnavailableError.
- the connection broke, the server answered FATAL, or no answer came in time: anything may have
  happened, or may yet. LogUncertainError.
- a WARNING came with the answer: the wait for the standby was cancelled, and the statement is
  done here, but perhaps only here. LogUncertainError.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from coordinator.log.columns import ByteaArray, SmallintArray, UuidArray
from coordinator.log.decision_log import BadRecordError, LogUnavailableError, LogUncertainError
from participant_sdk.ids import Xid

_SESSION: Final = """
SET synchronous_commit = on;
SET statement_timeout = '{statement_s}s';
SET idle_in_transaction_session_timeout = '{statement_s}s';
SET client_min_messages = warning;
SET client_encoding = 'UTF8'
"""

Parameter = str | bytes | float | Int8 | Xid | Sequence[str] | Sequence[int] | None
Query = tuple[bytes, Mapping[str, Parameter]]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds: for a connection, for a statement (the server's own bound), for an answer.

    ``answer_s`` is longer than ``statement_s``, so that mostly the server says what happened.
    """

    connect_s: int = 3
    statement_s: float = 5.0
    answer_s: float = 8.0


class LogConnection:
    """Connects at first use and again after a failure. Statements take turns."""

    def __init__(self, dsn: str, name: str, timeouts: Timeouts) -> None:
        self._dsn = dsn
        self._name = name
        self._timeouts = timeouts
        self._turn = asyncio.Lock()
        self._connection: psycopg.AsyncConnection | None = None
        self._warning = ""

    async def execute(self, query: bytes, parameters: Mapping[str, Parameter]) -> list[TupleRow]:
        """Run one statement in autocommit, and return its rows."""
        async with self._turn:
            connection = await self._connected()
            with self._translated(connection):
                rows = await _rows(connection, query, parameters)
            self._check_warning()
            return rows

    async def execute_together(self, queries: Sequence[Query]) -> list[TupleRow]:
        """Run statements in one transaction, and return the last one's rows."""
        async with self._turn:
            connection = await self._connected()
            rows: list[TupleRow] = []
            with self._translated(connection):
                async with connection.transaction():
                    for query, parameters in queries:
                        rows = await _rows(connection, query, parameters)
            self._check_warning()
            return rows

    async def close(self) -> None:
        """Close it; the next use would open it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _connected(self) -> psycopg.AsyncConnection:
        connection = self._connection
        if connection is not None and connection.pgconn.transaction_status == TransactionStatus.IDLE:
            return connection
        await self.close()
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, connect_timeout=self._timeouts.connect_s, application_name=self._name
            )
            connection.add_notice_handler(self._notice)
            _adapt(connection)
            with _cut_off(connection, self._timeouts.answer_s):
                await connection.execute(_SESSION.format(statement_s=self._timeouts.statement_s).encode())
        except psycopg.Error as error:
            if connection is not None:
                await connection.close()
            raise LogUnavailableError(f"cannot connect to the decision log: {error}") from error
        self._connection = connection
        return connection

    @contextmanager
    def _translated(self, connection: psycopg.AsyncConnection) -> Generator[None]:
        self._warning = ""
        try:
            with _cut_off(connection, self._timeouts.answer_s):
                yield
        except psycopg.Error as error:
            if connection.broken or error.sqlstate is None or error.diag.severity_nonlocalized != "ERROR":
                raise LogUncertainError(f"the decision log's answer was lost: {error}") from error
            if error.sqlstate[:2] in ("22", "23") or error.sqlstate == "54000":
                raise BadRecordError(str(error)) from error
            raise LogUnavailableError(f"the decision log refused: {error}") from error

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            self._warning = diagnostic.message_primary or "a warning without a message"

    def _check_warning(self) -> None:
        warning, self._warning = self._warning, ""
        if warning:
            raise LogUncertainError(f"the decision log warned: {warning}")


async def _rows(
    connection: psycopg.AsyncConnection, query: bytes, parameters: Mapping[str, Parameter]
) -> list[TupleRow]:
    cursor = await connection.execute(query, parameters, prepare=True, binary=True)
    return await cursor.fetchall() if cursor.description else []


@contextmanager
def _cut_off(connection: psycopg.AsyncConnection, after_s: float) -> Generator[None]:
    """Cut the connection when no answer comes in time.

    Cancelling the task would make psycopg cancel the statement, which ends a wait for the standby
    and reports success; a connection that is simply gone leaves the server to finish by itself.
    """
    cut = asyncio.get_running_loop().call_later(after_s, _shut_down, connection)
    try:
        yield
    finally:
        cut.cancel()


def _shut_down(connection: psycopg.AsyncConnection) -> None:
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as wire:
            wire.shutdown(socket.SHUT_RDWR)


class _BinaryDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> Buffer:
        return obj


class _UuidArrayDumper(_BinaryDumper):
    oid = 2951


class _SmallintArrayDumper(_BinaryDumper):
    oid = 1005


class _ByteaArrayDumper(_BinaryDumper):
    oid = 1001


class _XidDumper(_BinaryDumper):
    oid = 2950


class _XidLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> Xid:
        return Xid(data)


def _adapt(connection: psycopg.AsyncConnection) -> None:
    adapters = connection.adapters
    adapters.register_dumper(UuidArray, _UuidArrayDumper)
    adapters.register_dumper(SmallintArray, _SmallintArrayDumper)
    adapters.register_dumper(ByteaArray, _ByteaArrayDumper)
    adapters.register_dumper(Xid, _XidDumper)
    adapters.register_loader("uuid", _XidLoader)
