"""What waits in a table to be sent to another company, and a sender's life: claim, send, write down, wait.

Everything is in the table. Whoever claims a row has it alone until its lease ends; one who dies leaves it to the next.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import psycopg
from psycopg.rows import DictRow, dict_row

from sidecars.fiat.statements import statement

CLAIMED_MAX: Final = 16
CONNECT_TIMEOUT_S: Final = 10
# Nobody has to tell of what is due: it is looked for at least so often.
LOOK_AGAIN_S: Final = 30.0
PAUSE_FIRST_S: Final = 0.2
# Past this the longest pause has long been reached, and the power would only grow.
_DOUBLINGS_MAX: Final = 16

_LISTEN: Final = "listen fiat_outbox"

Connection = psycopg.AsyncConnection[DictRow]


class Outbox:
    """The rows of one table that are due: ``claim_<name>s.sql`` takes some, ``next_<name>.sql`` tells when to look."""

    def __init__(self, name: str, connection: Connection, lease_s: float) -> None:
        self._claim = statement(f"claim_{name}s")
        self._next = statement(f"next_{name}")
        self._connection = connection
        self._lease_s = lease_s

    @classmethod
    @asynccontextmanager
    async def open(cls, name: str, dsn: str, lease_s: float) -> AsyncGenerator[Outbox]:
        """Have a connection of its own until the block ends; what it commits is on disk."""
        connecting = Connection.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, row_factory=dict_row)
        async with await connecting as connection:
            await connection.execute("set synchronous_commit = on")
            await connection.execute(_LISTEN)
            yield cls(name, connection, lease_s)

    async def claims(self) -> AsyncIterator[list[DictRow]]:
        """Rows to be sent, whenever some are due; it never ends."""
        while True:
            rows = await self._fetch(self._claim, {"most": CLAIMED_MAX, "lease_s": self._lease_s})
            if rows:
                yield rows
            else:
                await self._wait()

    async def write(self, statement_text: bytes, parameters: Mapping[str, Any]) -> None:
        """Run a statement that writes down what came of a row."""
        await self._connection.execute(statement_text, parameters)

    async def _wait(self) -> None:
        """Return when something was queued, or is due, or after a while."""
        (row,) = await self._fetch(self._next, {})
        (due_s,) = row.values()
        timeout_s = LOOK_AGAIN_S if due_s is None else min(due_s, LOOK_AGAIN_S)
        _ = [notice async for notice in self._connection.notifies(timeout=timeout_s, stop_after=1)]

    async def _fetch(self, text: bytes, parameters: Mapping[str, Any]) -> list[DictRow]:
        return await (await self._connection.execute(text, parameters)).fetchall()


async def idle() -> None:
    """Wait until cancelled: nothing is configured to be sent to."""
    await asyncio.Event().wait()


def pause_after_s(attempts: int, longest_s: float) -> float:
    """How long to wait after so many attempts: doubling, jittered, capped. The count is the table's, not ours."""
    full_s = min(longest_s, PAUSE_FIRST_S * 2.0 ** min(attempts - 1, _DOUBLINGS_MAX))
    return full_s * (0.5 + random.random() / 2)  # noqa: S311 - it spreads retries
