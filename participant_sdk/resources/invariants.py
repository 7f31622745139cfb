"""What must always be true of a participant's database, asked of the database itself."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from typing import Final

import psycopg

CONNECT_TIMEOUT_S: Final = 10


async def violations(dsn: str, query: Traversable) -> list[str]:
    """Run a service's invariants, one statement and so one snapshot, and tell what is broken; none is sound.

    The statement returns a row for each violation: its name and its details. It reads the whole
    database, and so takes a while on a large one. psycopg.OperationalError when it cannot be reached.
    """
    async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        rows = await (await connection.execute(query.read_bytes())).fetchall()
    return [f"{name}: {detail}" for name, detail in rows]
