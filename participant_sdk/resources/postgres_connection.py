"""A connection whose waits for the server share one reader, which stays with the event loop until it is closed.

psycopg adds a reader for each wait and takes it away afterwards, and has a timer beside it. To the loop that is a
handle made and closed, and a dozen system calls, for a wait that ends in a millisecond.
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

_INTERVAL_S: Final = 0.1
_FOR_READING: Final = Wait.R
_CAN_BE_READ: Final = Ready.R

Result = TypeVar("Result")


class WatchedConnection(psycopg.AsyncConnection[TupleRow]):
    """psycopg's connection, but for how it waits. For one event loop."""

    # The socket is watched under a descriptor of its own, so that psycopg takes nothing away where it waits itself.
    _watched: int | None = None
    _is_watching: bool = False
    _waiter: asyncio.Future[None] | None = None

    async def wait(
        self,
        gen: PQGen[Result],
        interval: float = _INTERVAL_S,
        timeout: float | None = None,  # noqa: ASYNC109 - psycopg's
    ) -> Result:
        """Have a conversation with the server to its end, and return its result; raises what it raises.

        A cancelled caller has what the server is at cancelled, and waits for its end, but not for long.
        """
        if timeout is not None:
            return await super().wait(gen, interval, timeout)
        try:
            wanted = next(gen)
            while wanted == _FOR_READING:
                try:
                    await self._readable()
                except asyncio.CancelledError:
                    await self._cancel(gen)
                    raise
                wanted = gen.send(_CAN_BE_READ)
        except StopIteration as end:
            result: Result = end.value
            return result
        # The server does not take all at once; or whoever asks listens while he talks.
        return await super().wait(_rest(gen, wanted), interval)

    async def close(self) -> None:
        """Close it, and watch no more. Idempotent."""
        if self._watched is not None:
            self._look_away()
            os.close(self._watched)
            self._watched = None
        await super().close()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._is_watching:
            if self._watched is None:
                self._watched = os.dup(self.fileno())
            loop.add_reader(self._watched, self._came)
            self._is_watching = True
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _came(self) -> None:
        if self._waiter is None:
            # Nobody will read it now, the end of the connection perhaps, and the loop would call again and again.
            self._look_away()
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _look_away(self) -> None:
        if self._is_watching and self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._is_watching = False

    async def _cancel(self, gen: PQGen[Result]) -> None:
        if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
            return
        with suppress(psycopg.Error):
            await self.cancel_safe(timeout=CANCEL_TIMEOUT_S)
            await super().wait(_rest(gen, _FOR_READING), timeout=CANCEL_TIMEOUT_S)


def _rest(gen: PQGen[Result], wanted: Wait) -> PQGen[Result]:
    """A conversation from here on, which waits for this."""
    while True:
        ready = yield wanted
        try:
            wanted = gen.send(ready)
        except StopIteration as end:
            result: Result = end.value
            return result
