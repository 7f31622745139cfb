"""What an inquiry is judged by is of one snapshot of PostgreSQL, whatever happens while it is read (R7)."""

from __future__ import annotations

import asyncio

from coordinator.log.postgres import PostgresLog, migrate_log
from tests.contract.worlds import started
from tests.integration.log_observer import observing


async def test_record_and_fence_are_of_one_moment(database: str) -> None:
    """Fenced and without a record is ROLLBACK: a record that came between two looks would be overlooked."""
    await migrate_log(database)
    log = PostgresLog(database, name="one")
    async with observing(database) as observer, observing(database) as owner:
        own = await started(log)
        record = own.record()
        await owner.ask(b"BEGIN")
        await owner.ask(b"LOCK TABLE txlog.incarnations IN ACCESS EXCLUSIVE MODE")
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(log.read([record.xid]))
            await observer.backend("one-reads", "Lock")
            # It decides once more, and is ended, before the reader may look who lives.
            await owner.ask(
                b"INSERT INTO txlog.decisions (xid, incarnation, sequence, decision) VALUES (%s, %s, 1, 1)",
                str(record.xid),
                own.number,
            )
            await owner.ask(b"UPDATE txlog.incarnations SET fenced_at = now(), fenced_by = 0")
            await owner.ask(b"COMMIT")
    await log.close()
    snapshot = reading.result()
    assert snapshot.incarnations[own.number].fenced
    assert record.xid in snapshot.decisions
