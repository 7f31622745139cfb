"""A synchronous standby that is named and not there: every commit waits, until somebody cancels the wait.

That "succeeds": the effect is there and visible, and only a warning says that no standby has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.integration.xa_bank import run_sql

_WAITING = """
select pid, query_start from pg_stat_activity
where datname = current_database() and wait_event = 'SyncRep' order by query_start
"""


@asynccontextmanager
async def missing_standby(dsn: str) -> AsyncGenerator[None]:
    """Name a standby that is not there, for the time of the block. Waits end by themselves afterwards."""
    try:
        await lose_standby(dsn)
        yield
    finally:
        await find_standby(dsn)


async def lose_standby(dsn: str) -> None:
    """Return once commits wait; the names are known to sessions a moment before the waiting begins."""
    await _name_standby(dsn, "nobody")
    is_waiting = False
    while not is_waiting:
        probing = asyncio.create_task(run_sql(dsn, "select pg_logical_emit_message(true, 'probe', '')"))
        while not probing.done() and not is_waiting:
            is_waiting = await _waiting(dsn) != []
        if is_waiting:
            await cancel_wait(dsn)
        await probing


async def find_standby(dsn: str) -> None:
    """Name none any more."""
    await _name_standby(dsn, "")


async def wait_until_waiting(dsn: str, *tasks: asyncio.Task[object]) -> None:
    """Wait until as many sessions wait for the standby as there are tasks; none may end before."""
    while len(await _waiting(dsn)) < len(tasks):
        ended = [task.result() for task in tasks if task.done()]
        assert ended == [], "answered before it was durable"
    assert not any(task.done() for task in tasks)


async def cancel_wait(dsn: str) -> None:
    """Cancel the longest wait, as an operator might, and see it end; the session may wait for more at once."""
    wait = (await _waiting(dsn))[0]
    await run_sql(dsn, f"select pg_cancel_backend({wait[0]})")
    while wait in await _waiting(dsn):
        pass


async def _waiting(dsn: str) -> list[tuple[object, ...]]:
    return await run_sql(dsn, _WAITING)


async def _name_standby(dsn: str, name: str) -> None:
    await run_sql(dsn, f"alter system set synchronous_standby_names = '{name}'", "select pg_reload_conf()")
    while await run_sql(dsn, "show synchronous_standby_names") != [(name,)]:
        pass
