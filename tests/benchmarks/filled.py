"""The product over a log that has finished millions of transactions, in turns with one over an empty log."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import psycopg
from psycopg import sql

from participant_sdk.migrations import migrate
from tests.benchmarks.ledgers import SQL
from tests.benchmarks.product import checked_product
from tests.benchmarks.run import Run
from tests.benchmarks.targets import EMPTY_LOG, FILLED, FILLED_LOG
from tests.benchmarks.transfers import wanted

IN_FLIGHT: Final = (1, 64, 512)
ROUNDS: Final = 5
FILLED_AT_ONCE: Final = 500_000
LOG_ID: Final = "00000000000000dd"
_INDEXES: Final = (
    "select i.indexname, i.indexdef from pg_indexes as i where i.schemaname = 'txlog' and i.tablename = 'decisions'"
    " and i.indexname <> 'decisions_pkey'"
)


async def measure_filled(run: Run) -> None:
    """Transfers over both logs, at several concurrencies."""
    log = run.database("txlog_filled")
    run.console.print(f"filling a log with {run.plan.finished:,} finished transactions: this takes minutes")
    await fill(log, run.plan.finished)
    async with checked_product(run) as empty, checked_product(run, log=log) as filled:
        for _ in run.rounds(ROUNDS):
            for in_flight in IN_FLIGHT:
                run.record(await empty.measure(EMPTY_LOG, wanted(run, in_flight)))
                figure = await filled.measure(FILLED_LOG, wanted(run, in_flight))
                figure.values[FILLED] = float(run.plan.finished)
                run.record(figure)


async def fill(log: str, finished: int) -> None:
    """Make a log in a fresh database in which an incarnation has committed and finished so many transactions.

    The indexes that are not in the order of the rows are made afterwards: that is several times faster.
    """
    await migrate(log, files("coordinator.log") / "migrations", "txlog")
    async with await psycopg.AsyncConnection.connect(log, autocommit=True) as connection:
        await connection.execute("insert into txlog.log (log_id) values (%s)", (LOG_ID,))
        indexes = await (await connection.execute(_INDEXES)).fetchall()
        for name, _ in indexes:
            await connection.execute(sql.SQL("drop index txlog.{}").format(sql.Identifier(name)))
        query = (SQL / "fill.sql").read_bytes()
        for first in range(1, finished + 1, FILLED_AT_ONCE):
            last = min(first + FILLED_AT_ONCE - 1, finished)
            await connection.execute(query, {"first": first, "last": last, "finished": finished})
        for _, definition in indexes:
            await connection.execute(definition.encode())
        await connection.execute((SQL / "fill_incarnation.sql").read_bytes(), {"finished": finished})
        await connection.execute("vacuum analyze txlog.decisions")
        await connection.execute("checkpoint")
