"""A bounded number of PostgreSQL connections for one purpose, none shared with another.

Purposes must not share: a branch that waits for a row lock holds its connection, and what
would release the lock is a COMMIT PREPARED that needs one.

A connection goes back only if it is idle and outside any transaction, so nothing is left
behind in it; else, or when its user was cancelled, it is closed. Closing tells nothing of
what its last statement did: the server may still be doing it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

CONNECT_TIMEOUT_S: Final = 5
# What RAISE WARNING in a function of the service's own is sent from; every other warning is the server's.
_RAISED_BY_A_FUNCTION: Final = "exec_stmt_raise"

Connection = psycopg.AsyncConnection[TupleRow]


class DoubtfulError(psycopg.OperationalError):
    """The server said yes with a warning: the effect is there, but not as durable as it must be.

    It has no SQLSTATE, like the loss of a connection, and leaves as much in doubt.
    """


class Session:
    """One connection, in autocommit, and the server's warnings on it."""

    __slots__ = ("_warnings", "connection")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._warnings: list[str] = []
        connection.add_notice_handler(self._note)

    @property
    def is_idle(self) -> bool:
        """Outside any transaction, and usable."""
        return not self.connection.closed and self.connection.info.transaction_status is TransactionStatus.IDLE

    def start_watching(self) -> None:
        """Forget earlier warnings: only those of what comes now count in ``check``."""
        self._warnings.clear()

    def check(self) -> None:
        """Raise DoubtfulError if the server has warned since ``start_watching``.

        So says a cancelled wait for a synchronous standby: it "succeeds", and only warns. Its text is
        translated, so any warning counts that no function of the service raised.
        """
        if self._warnings:
            raise DoubtfulError(self._warnings[0])

    def _note(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING" and notice.source_function != _RAISED_BY_A_FUNCTION:
            self._warnings.append(notice.message_primary or "a warning without words")


class Lane:
    """Up to ``size`` connections to one database, opened when first needed.

    ``settings`` are set for each session. A user beyond the size waits.
    """

    __slots__ = ("_dsn", "_idle", "_places", "_settings", "size")

    def __init__(self, dsn: str, size: int, **settings: str) -> None:
        self.size = size
        self._dsn = dsn
        self._settings = settings
        self._places = asyncio.Semaphore(size)
        self._idle: list[Session] = []

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[Session]:
        """Lend a session. psycopg.OperationalError when the server cannot be reached."""
        async with self._places:
            session = await self._take()
            returned = False
            try:
                yield session
                returned = session.is_idle
            finally:
                if returned:
                    self._idle.append(session)
                else:
                    await self._drop(session)

    async def close(self) -> None:
        """Close what is idle. At the end, nobody may use the lane any more."""
        while self._idle:
            await self._idle.pop().connection.close()

    async def _drop(self, session: Session) -> None:
        broke = session.connection.broken
        await session.connection.close()
        if broke:
            # The server has gone, or has been restarted: the others are dead too, and do not know it.
            await self.close()

    async def _take(self) -> Session:
        while self._idle:
            session = self._idle.pop()
            if session.is_idle:
                return session
            await session.connection.close()
        return await self._open()

    async def _open(self) -> Session:
        connection = await psycopg.AsyncConnection[TupleRow].connect(
            self._dsn,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            cursor_factory=psycopg.AsyncClientCursor[Any],  # The row type is the connection's.
        )
        try:
            # The weaker settings skip the wait for a synchronous standby; the stronger are the service's choice.
            await connection.execute(
                "select set_config('synchronous_commit', 'on', false)"
                " where current_setting('synchronous_commit') in ('off', 'local')"
            )
            for name, value in self._settings.items():
                await connection.execute("select set_config(%s, %s, false)", (name, value))
        except BaseException:
            # Cancelled, too: nobody else knows of it yet.
            await connection.close()
            raise
        return Session(connection)
