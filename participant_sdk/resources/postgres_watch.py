"""How a conversation with the server waits: by a reader that stays with the event loop from one wait to the next.

psycopg adds a reader for each wait and takes it away afterwards, and a timer beside it; to the loop that is a handle
made and closed, and a dozen system calls, for a wait that ends in a millisecond.

The socket is watched under a file descriptor of its own, so that psycopg, where it waits itself, takes nothing away.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Final, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait

CANCEL_TIMEOUT_S: Final = 5.0

Result = TypeVar("Result")


class Watch:
    """One connection's socket, watched from the first conversation until ``close``. One conversation at a time."""

    __slots__ = ("_connection", "_fileno", "_is_reading", "_waiter")

    def __init__(self, connection: psycopg.AsyncConnection[TupleRow]) -> None:
        self._connection = connection
        self._fileno: int | None = None
        self._is_reading = False
        self._waiter: asyncio.Future[None] | None = None

    async def drive(self, conversation: PQGen[Result]) -> Result:
        """Have a conversation to its end, and return its result; raises what it raises.

        A cancelled caller has what the server is at cancelled, and waits for the end, but not for long.
        """
        try:
            wanted = next(conversation)
            while wanted == Wait.R:
                try:
                    await self._readable()
                except asyncio.CancelledError:
                    await self._cancel(conversation, wanted)
                    raise
                wanted = conversation.send(Ready.R)
        except StopIteration as end:
            result: Result = end.value
            return result
        # The server does not take all at once, as it seldom does not.
        return await self._connection.wait(_rest(conversation, wanted))

    def close(self) -> None:
        """Watch no more. Idempotent."""
        if self._fileno is not None:
            self._look_away()
            os.close(self._fileno)
            self._fileno = None

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._is_reading:
            if self._fileno is None:
                self._fileno = os.dup(self._connection.fileno())
            loop.add_reader(self._fileno, self._came)
            self._is_reading = True
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _came(self) -> None:
        if self._waiter is None:
            # It is another's to read, or the end of the connection: the loop would call again and again.
            self._look_away()
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _look_away(self) -> None:
        if self._is_reading and self._fileno is not None:
            asyncio.get_running_loop().remove_reader(self._fileno)
            self._is_reading = False

    async def _cancel(self, conversation: PQGen[object], wanted: Wait) -> None:
        if self._connection.pgconn.transaction_status != TransactionStatus.ACTIVE:
            return
        with suppress(psycopg.Error):
            await self._connection.cancel_safe(timeout=CANCEL_TIMEOUT_S)
            await self._connection.wait(_rest(conversation, wanted), timeout=CANCEL_TIMEOUT_S)


def _rest(conversation: PQGen[Result], wanted: Wait) -> PQGen[Result]:
    """A conversation from here on, which waits for this."""
    while True:
        ready = yield wanted
        try:
            wanted = conversation.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result
