"""A bounded number of PostgreSQL connections for one purpose, none shared with another.

Purposes must not share: a branch that waits for a row lock holds its connection, and what
would release the lock is a COMMIT PREPARED that needs one.

A connection goes back only if it is idle and outside any transaction, so nothing is left
behind in it; else it is closed. Closing tells nothing of what its last statement did: the
server may still be doing it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import TupleRow

from participant_sdk.resources.postgres_calls import PreparedCalls
from participant_sdk.resources.postgres_connection import WatchedConnection
from participant_sdk.resources.postgres_strings import ended_tag, pipelined, run_string

CONNECT_TIMEOUT_S: Final = 5
# What RAISE WARNING in a function of the service's own is sent from; every other warning is the server's.
_RAISED_BY_A_FUNCTION: Final = "exec_stmt_raise"

# The weaker levels skip the wait for a synchronous standby; the stronger are the service's choice.
_STRENGTHEN: Final = (
    "select set_config('synchronous_commit', 'on', false)"
    " where current_setting('synchronous_commit') in ('off', 'local')"
)
# A member takes as long to be found in its enum as a function to be called.
_IDLE: Final = TransactionStatus.IDLE
_OFF: Final = PipelineStatus.OFF
_SET: Final = "select set_config(name, value, false) from unnest(%s::text[], %s::text[]) as s (name, value)"

Connection = psycopg.AsyncConnection[TupleRow]
Opening = Callable[[Connection], Awaitable[None]]


class DoubtfulError(psycopg.OperationalError):
    """The server said yes with a warning: the effect is there, but not as durable as it must be.

    It has no SQLSTATE, like the loss of a connection, and leaves as much in doubt.
    """


class Session:
    """One connection, in autocommit, and the server's warnings on it."""

    __slots__ = ("_encoding", "_uses", "_warnings", "_writer", "call", "connection")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._encoding = connection.info.encoding
        self._warnings: list[str] = []
        # A cursor would make one for each statement, which costs more than what it writes.
        self._writer = Transformer(connection)
        self._uses = 0
        # What is called with packed columns; its rows come when all of it is done.
        self.call = PreparedCalls(connection).call
        connection.add_notice_handler(self._note)

    @property
    def is_idle(self) -> bool:
        """Outside any transaction, and usable."""
        pgconn = self.connection.pgconn
        return pgconn.transaction_status == _IDLE and pgconn.pipeline_status == _OFF

    def written(self, template: str, values: Sequence[object]) -> str:
        """A statement with a value written in for each ``%s``. psycopg.DataError where one of them cannot be."""
        literal, encoding = self._writer.as_literal, self._encoding
        return template % tuple(["NULL" if value is None else literal(value).decode(encoding) for value in values])

    async def run(self, text: str) -> str:
        """Run a string of statements in one round trip; the last one's tag. psycopg.Error of the one that fails."""
        results = await self.connection.wait(run_string(self.connection.pgconn, text.encode(self._encoding)))
        return ended_tag(results, self._encoding)

    async def end_each(self, statements: Sequence[str]) -> list[str | psycopg.Error]:
        """End prepared transactions, a statement for each, in one round trip; the tag or the error of each.

        Where some fail, those after the first of them take another. Of other statements, several would share a
        transaction.
        psycopg.OperationalError when the session is lost; what became of them is not known then.
        """
        texts = [text.encode(self._encoding) for text in statements]
        return await self.connection.wait(pipelined(self.connection.pgconn, texts, self._encoding))

    def confirmed(self) -> _Confirming:
        """Raise DoubtfulError at the end of the block if the server warned within it.

        Whatever is to be durable ends in such a block: a cancelled wait for a synchronous standby
        "succeeds", and only warns. The warning's text is translated, so any counts that no function
        of the service raised.
        """
        return _Confirming(self._warnings)

    def count_use(self) -> bool:
        """Count a use; True at each doubling of their number, when everything is to be planned anew.

        Plans are kept, and one made for tables that were nearly empty reads them whole. Tables grow as
        the uses do, so no such plan lives on until they are large.
        """
        self._uses += 1
        return self._uses & (self._uses - 1) == 0

    async def forget_plans(self) -> None:
        """Have everything planned anew."""
        await self.connection.execute("discard plans")

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING" and notice.source_function != _RAISED_BY_A_FUNCTION:
            self._warnings.append(notice.message_primary or "a warning without words")


class _Confirming:
    """What ``confirmed`` gives. Written out, as ``_Lending`` is: a generator for each use costs several times this."""

    __slots__ = ("_warnings",)

    def __init__(self, warnings: list[str]) -> None:
        self._warnings = warnings

    def __enter__(self) -> None:
        self._warnings.clear()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._warnings:
            raise DoubtfulError(self._warnings[0])


class Lane:
    """Up to ``size`` connections to one database, opened when first needed; a user beyond the size waits.

    ``settings`` are set for each session, then ``opening`` is awaited with its connection.
    ``cursor_factory`` makes the cursors that its connection gives: the default one sends a statement
    with its parameters written in, so that several can travel as one string.
    """

    __slots__ = ("_cursor_factory", "_dsn", "_idle", "_is_closed", "_opening", "_places", "_settings", "size")

    def __init__(
        self,
        dsn: str,
        size: int,
        settings: Mapping[str, str] | None = None,
        *,
        opening: Opening | None = None,
        cursor_factory: type[psycopg.AsyncCursor[Any]] = psycopg.AsyncClientCursor,
    ) -> None:
        self.size = size
        self._dsn = dsn
        # That a wait for a standby was cancelled is told by a warning alone, so warnings must come through.
        self._settings = {"client_min_messages": "warning", **(settings or {})}
        self._opening = opening
        self._cursor_factory = cursor_factory
        self._places = asyncio.Semaphore(size)
        # Last in, first out: little traffic stays on one warm connection.
        self._idle: list[Session] = []
        self._is_closed = False

    def session(self) -> _Lending:
        """Lend a session for the time of a block. psycopg.OperationalError when the server cannot be reached."""
        return _Lending(self)

    async def lend(self) -> Session:
        """Lend a session, which must be taken back. psycopg.OperationalError when the server cannot be reached."""
        await self._places.acquire()
        try:
            session = await self._take()
        except BaseException:
            # Cancelled, too: nobody would ever give the place back.
            self._places.release()
            raise
        if session.count_use():
            try:
                await session.forget_plans()
            except BaseException:
                # As above: with its place; whether it is good for another is seen there.
                await self.take_back(session)
                raise
        return session

    async def take_back(self, session: Session) -> None:
        """Take back a session that was lent, to be lent again if it is as good as new."""
        try:
            if session.is_idle and not self._is_closed:
                self._idle.append(session)
            else:
                await self._drop(session)
        finally:
            self._places.release()

    async def close(self) -> None:
        """Close what is idle now, and what is lent out as it comes back: a call that was cancelled may still end."""
        self._is_closed = True
        await self._close_idle()

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().connection.close()

    async def _drop(self, session: Session) -> None:
        broke = session.connection.broken
        await session.connection.close()
        if broke:
            # The server has gone, or has been restarted: the others are dead too, and do not know it.
            await self._close_idle()

    async def _take(self) -> Session:
        while self._idle:
            session = self._idle.pop()
            if session.is_idle:
                return session
            await session.connection.close()
        return await self._open()

    async def _open(self) -> Session:
        connection = await WatchedConnection.connect(
            self._dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, cursor_factory=self._cursor_factory
        )
        try:
            await connection.execute(_STRENGTHEN)
            await connection.execute(_SET, (list(self._settings), list(self._settings.values())))
            if self._opening is not None:
                await self._opening(connection)
        except BaseException:
            # Cancelled, too: nobody else knows of it yet.
            await connection.close()
            raise
        return Session(connection)


class _Lending:
    """What ``session`` gives."""

    __slots__ = ("_lane", "_session")

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._session: Session | None = None

    async def __aenter__(self) -> Session:
        self._session = session = await self._lane.lend()
        return session

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await self._lane.take_back(session)
