"""Statements sent as they are, and their results, without a cursor.

Where only the tag of what ran is asked for, a cursor costs the client more than all the rest. These are
conversations as psycopg's own generators have them: ``AsyncConnection.wait`` drives them, and when it is
cancelled, it cancels what the server is at and waits for the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

_DONE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY)


def run_string(pgconn: PGconn, text: bytes) -> PQGen[list[PGresult]]:
    """Send a string of statements, and return the results of those that ran: up to the first that failed."""
    pgconn.send_query(text)
    return (yield from generators.execute(pgconn))


def pipelined(pgconn: PGconn, statements: Sequence[bytes], encoding: str) -> PQGen[list[str | psycopg.Error]]:
    """Send statements all at once, each to be run by itself; return the tag or the error of each.

    The connection is left in pipeline mode by whatever keeps this from its end.
    """
    pgconn.enter_pipeline_mode()
    for statement in statements:
        pgconn.send_query_params(statement, None)
        # What fails is left out up to here, and no further; and what must not run in a transaction may run.
        pgconn.pipeline_sync()
    yield from generators.send(pgconn)
    ended: list[str | psycopg.Error] = []
    for _ in statements:
        results = yield from generators.fetch_many(pgconn)
        try:
            ended.append(ended_tag(results, encoding))
        except psycopg.Error as error:
            ended.append(error)
        # The end of its part of the pipeline.
        yield from generators.fetch_many(pgconn)
    pgconn.exit_pipeline_mode()
    return ended


def ended_tag(results: Sequence[PGresult], encoding: str) -> str:
    """The tag of the last result. psycopg.Error of the one that failed, whose words are in this encoding."""
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding)
        if result.status not in _DONE:
            raise psycopg.ProgrammingError(f"a statement that ends as {ExecStatus(result.status).name}")
    return (results[-1].command_status or b"").decode() if results else ""
