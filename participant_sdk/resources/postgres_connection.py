"""A connection whose waits for the server share one reader, which stays with the event loop while it is of use.

psycopg adds a reader for each wait and takes it away afterwards, and has a timer beside it. To the loop that is a
handle made and closed, and a dozen system calls, for a wait that ends in a millisecond.

A reader that stays can die unnoticed: uvloop calls that of a socket with an error once, as after its server was killed,
closes the handle, and calls never again. So a wait that is long tries the socket from time to time, and watches it
anew, and one that is under way when the connection is closed ends with it: no wait depends on being called.

Two descriptors for each connection; the loop keeps it until it is closed.
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
LOOK_EVERY_S: Final = 0.1

# psycopg's own.
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
    # Looks from time to time while there are waits; the one that it found at its last look.
    _look_timer: asyncio.TimerHandle | None = None
    _seen: asyncio.Future[None] | None = None

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
        if self._look_timer is not None:
            self._look_timer.cancel()
            self._look_timer = None
        if self._watched is not None:
            self._look_away()
            os.close(self._watched)
            self._watched = None
        await super().close()
        if self._waiter is not None and not self._waiter.done():
            # It finds the connection closed, and says so.
            self._waiter.set_result(None)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._is_watching:
            self._watch(loop)
        if self._look_timer is None:
            self._look_timer = loop.call_later(LOOK_EVERY_S, self._look)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop call. psycopg.OperationalError where there is no descriptor left to do it by."""
        try:
            if self._watched is None:
                self._watched = os.dup(self.fileno())
            loop.add_reader(self._watched, self._came)
        except OSError as error:
            raise psycopg.OperationalError(f"the connection cannot be watched: {error}") from error
        self._is_watching = True

    def _came(self) -> None:
        if self._waiter is None:
            # Nobody will read it now, the end of the connection perhaps, and the loop would call again and again.
            self._look_away()
        elif not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        """Have a wait that is as old as the last look try the socket, whatever the loop says of it."""
        waiter = self._waiter
        if waiter is None:
            self._look_timer = self._seen = None
            return
        if waiter is self._seen and not waiter.done():
            self._look_away()
            waiter.set_result(None)
        self._seen = waiter
        self._look_timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _look_away(self) -> None:
        if self._is_watching and self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._is_watching = False

    async def _cancel(self, gen: PQGen[Result]) -> None:
        """Have the server end it, in time or not: who finds the connection still at work then closes it."""
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
