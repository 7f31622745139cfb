"""How durably each statement of the decision log writes, whatever the database says (R5, R7)."""

from __future__ import annotations

from coordinator.log.decision_log import Checkpoint, OperatorAction
from coordinator.log.postgres import PostgresLog, migrate_log
from coordinator.protocol.effects import HeuristicRecord
from participant_sdk.xa import Heuristic
from tests.contract.worlds import started
from tests.integration.log_observer import observing

TABLES = ("checkpoints", "decisions", "heuristics", "incarnations", "log", "operator_actions")


async def test_everything_but_a_checkpoint_is_written_with_synchronous_commit(database: str) -> None:
    await migrate_log(database)
    async with observing(database) as observer:
        name = database.rsplit("/", 1)[1].partition("?")[0]
        await observer.ask(f'ALTER DATABASE "{name}" SET synchronous_commit = off'.encode())
        await observer.ask(b"CREATE TABLE public.seen (written text, setting text)")
        await observer.ask(
            b"CREATE FUNCTION public.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            b" INSERT INTO public.seen VALUES (TG_TABLE_NAME, current_setting('synchronous_commit')); RETURN NULL;"
            b" END $$"
        )
        for table in TABLES:
            await observer.ask(
                f"CREATE TRIGGER see AFTER INSERT OR UPDATE ON txlog.{table} EXECUTE FUNCTION public.see()".encode()
            )
        log = PostgresLog(database)
        own = await started(log)
        record = own.record()
        await own.append(record)
        await log.checkpoint(Checkpoint(own.number, 1))
        await log.record_heuristics([HeuristicRecord(record.xid, "bookkeeper", Heuristic.COMMIT, "by hand")])
        await log.record_action(OperatorAction("RESOLVE", "it had to be"))
        await log.resign((await started(log, "two")).incarnation)
        await log.hold("lost")
        await log.close()
        seen = await observer.ask(b"SELECT DISTINCT written, setting FROM public.seen ORDER BY written")
    assert seen == [(table, "off" if table == "checkpoints" else "on") for table in TABLES]
