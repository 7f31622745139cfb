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
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import psycopg
import structlog
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import TupleRow
from psycopg.types.numeric import Int8

from coordinator.log.columns import ByteaArray, SmallintArray, UuidArray
from coordinator.log.decision_log import BadRecordError, LogUnavailableError, LogUncertainError
from participant_sdk.ids import Xid
from participant_sdk.resources.postgres_calls import PreparedCalls

# A refusal that stays is told of this often.
LOUD_EVERY_S: Final = 60.0
PROBLEM_MAX_CHARS: Final = 200
# Classes of SQLSTATE that pass: standby (25), deadlock (40), resources (53), locks (55), shutdown, cancellation (57).
_PASSING: Final = ("25", "40", "53", "55", "57")

_LOG: Final = structlog.get_logger(__name__)

_SESSION: Final = """
SET synchronous_commit = on;
SET default_transaction_isolation = 'read committed';
SET statement_timeout = '{statement_s}s';
SET idle_in_transaction_session_timeout = '{statement_s}s';
SET client_min_messages = warning;
SET client_encoding = 'UTF8'
"""

Parameter = str | bytes | bool | float | Int8 | Xid | Sequence[str] | Sequence[int] | None
Run = Callable[[bytes, Mapping[str, Parameter]], Awaitable[list[TupleRow]]]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds: for a connection, for a statement (the server's own bound), for an answer.

    ``answer_s`` is longer than ``statement_s``, so that mostly the server says what happened.
    """

    connect_s: int = 3
    statement_s: float = 5.0
    answer_s: float = 8.0


class LogConnection:
    """Connects at first use and again after a failure. Statements take turns.

    ``on_connected`` is called for each connection made, before anything is read or written over it.
    """

    def __init__(self, dsn: str, name: str, timeouts: Timeouts, on_connected: Callable[[], None]) -> None:
        self._dsn = dsn
        self._name = name
        self._timeouts = timeouts
        self._on_connected = on_connected
        # How often it connected.
        self.made = 0
        self._turn = asyncio.Lock()
        self._connection: psycopg.AsyncConnection | None = None
        self._calls: PreparedCalls
        self._warning = ""
        # When each SQLSTATE that no retry mends was last told of, by the loop's clock.
        self._told_s: dict[str, float] = {}
        # What the server refuses so, by statement, until it takes that statement again.
        self._refusals: dict[bytes, str] = {}

    @property
    def problem(self) -> str:
        """What the server refuses and no retry is likely to mend; empty where nothing is known of that kind."""
        return next(iter(self._refusals.values()), "")

    async def connect(self) -> None:
        """Connect, unless it is connected."""
        async with self._turn:
            await self._connected()

    async def replace(self) -> None:
        """Connect anew, unless a statement is under way: that one will find out by itself."""
        if not self._turn.locked():
            async with self._turn:
                await self.close()
                await self._connected()

    async def execute(self, query: bytes, parameters: Mapping[str, Parameter]) -> list[TupleRow]:
        """Run one statement in autocommit, and return its rows."""
        async with self._turn:
            connection = await self._connected()
            with self._translated(connection, query):
                rows = await _rows(connection, query, parameters)
            self._check_warning()
            return rows

    async def call(
        self, statement: bytes, parameters: Sequence[bytes], *, may_be_first: bool = True
    ) -> list[tuple[Any, ...]]:
        """Run one statement in autocommit with parameters in binary form, and return its rows.

        One that may not be the first on its connection is not sent on a new one: LogUnavailableError.
        """
        async with self._turn:
            before = self._connection
            connection = await self._connected()
            if connection is not before and not may_be_first:
                raise LogUnavailableError("the decision log was connected to again; write it again")
            with self._translated(connection, statement):
                rows = await self._calls.call(statement, parameters, tuple)
            self._check_warning()
            return rows

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Run]:
        """Run statements in one transaction, which an exception undoes. Each has the time of one to be answered."""
        async with self._turn:
            connection = await self._connected()
            with self._translated(connection, b"transaction") as patience:

                async def run(query: bytes, parameters: Mapping[str, Parameter]) -> list[TupleRow]:
                    rows = await _rows(connection, query, parameters)
                    patience.renew()
                    return rows

                async with connection.transaction():
                    yield run
            self._check_warning()

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
            self.made += 1
            self._on_connected()
            connection.add_notice_handler(self._notice)
            _adapt(connection)
            self._calls = PreparedCalls(connection)
            with _Patience(connection, self._timeouts.answer_s):
                await connection.execute(_SESSION.format(statement_s=self._timeouts.statement_s).encode())
        except psycopg.Error as error:
            if connection is not None:
                await connection.close()
            raise LogUnavailableError(f"cannot connect to the decision log: {error}") from error
        self._connection = connection
        return connection

    @contextmanager
    def _translated(self, connection: psycopg.AsyncConnection, what: bytes) -> Generator[_Patience]:
        self._warning = ""
        try:
            with _Patience(connection, self._timeouts.answer_s) as patience:
                yield patience
            self._refusals.pop(what, None)
        except psycopg.Error as error:
            if connection.broken or error.sqlstate is None or error.diag.severity_nonlocalized != "ERROR":
                raise LogUncertainError(f"the decision log's answer was lost: {error}") from error
            if error.sqlstate[:2] in ("22", "23") or error.sqlstate == "54000":
                raise BadRecordError(str(error)) from error
            self._note_refusal(what, error.sqlstate, error)
            raise LogUnavailableError(f"the decision log refused (SQLSTATE {error.sqlstate}): {error}") from error

    def _note_refusal(self, what: bytes, sqlstate: str, error: psycopg.Error) -> None:
        """Keep, and say loudly once a minute, what the server refuses and no retry is likely to mend: a person must."""
        if sqlstate[:2] in _PASSING:
            return
        self._refusals[what] = f"SQLSTATE {sqlstate}: {(error.diag.message_primary or str(error))[:PROBLEM_MAX_CHARS]}"
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_s.get(sqlstate, -LOUD_EVERY_S) < LOUD_EVERY_S:
            return
        self._told_s[sqlstate] = now_s
        _LOG.error("decision_log_refuses", connection=self._name, sqlstate=sqlstate, error=str(error))

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


class _Patience:
    """Cuts the connection when no answer comes in time; ``renew`` gives the next statement as long.

    Cancelling the task would make psycopg cancel the statement, which ends a wait for the standby
    and reports success; a connection that is simply gone leaves the server to finish by itself.
    """

    def __init__(self, connection: psycopg.AsyncConnection, after_s: float) -> None:
        self._connection = connection
        self._after_s = after_s

    def __enter__(self) -> Self:
        self._cut = asyncio.get_running_loop().call_later(self._after_s, _shut_down, self._connection)
        return self

    def __exit__(self, *_: object) -> None:
        self._cut.cancel()

    def renew(self) -> None:
        """Begin to wait anew."""
        self._cut.cancel()
        self.__enter__()


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
