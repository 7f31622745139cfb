"""The log's statements see what they waited for, whatever isolation its database or role has by default."""

from __future__ import annotations

import asyncio

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from coordinator.log.postgres import PostgresLog, migrate_log
from tests.contract.worlds import started
from tests.integration.log_observer import observing


async def test_a_number_drawn_while_one_waited_is_not_drawn_again(database: str) -> None:
    """R4: a snapshot from before the wait for the log's lock would not show it."""
    await migrate_log(database)
    name = conninfo_to_dict(database)["dbname"]
    log, other = PostgresLog(database, name="one"), PostgresLog(database, name="two")
    async with observing(database) as observer, observing(database) as holder:
        await started(other, "first")
        default = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'")
        await observer.ask(default.format(sql.Identifier(str(name))).as_bytes())
        await holder.ask(b"BEGIN")
        await holder.ask(b"SELECT log_id FROM txlog.log FOR UPDATE")
        async with asyncio.TaskGroup() as tasks:
            drawing = tasks.create_task(log.open("late", "late:1", 30.0))
            await observer.backend("one-upkeep", "Lock")
            await holder.ask(
                b"INSERT INTO txlog.incarnations (incarnation, coordinator, address, timeline, lease_until)"
                b" SELECT max(incarnation) + 3600, 'ahead', '', max(timeline), now() FROM txlog.incarnations"
            )
            await holder.ask(b"COMMIT")
        ((highest,),) = await observer.ask(b"SELECT max(incarnation) FROM txlog.incarnations")
    await log.close()
    await other.close()
    assert drawing.result().number == highest
