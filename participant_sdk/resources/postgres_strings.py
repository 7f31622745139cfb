"""Statements sent as they are, and their results, without a cursor.

Where only the tag of what ran is asked for, or parameters come in PostgreSQL's binary form already, a cursor
costs the client more than all the rest. These are conversations as psycopg's own generators have them:
``AsyncConnection.wait`` drives them, and when it is cancelled, it cancels what the server is at and waits for the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

_DONE: Final = (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK, ExecStatus.EMPTY_QUERY)


def run_string(pgconn: PGconn, text: bytes) -> PQGen[list[PGresult]]:
    """Send a string of statements, and return the results of those that ran: up to the first that failed."""
    pgconn.send_query(text)
    return (yield from generators.execute(pgconn))


def pipelined(pgconn: PGconn, statements: Sequence[bytes], encoding: str) -> PQGen[list[str | psycopg.Error]]:
    """Send statements all at once, each a transaction of its own; return the tag or the error of each.

    They are such as end prepared transactions. Such a statement commits at once where it is the first of a pipeline
    (PostgreSQL's documentation, "Message Flow", "Pipelining"), after which the next one is as good as the first. So
    one point of synchronization does for all. What the server leaves out after one that failed is sent again, with
    a point after each: many that fail take no more than two round trips.

    The connection is left in pipeline mode by whatever keeps this from its end.
    """
    pgconn.enter_pipeline_mode()
    for statement in statements:
        pgconn.send_query_params(statement, None)
    pgconn.pipeline_sync()
    yield from generators.send(pgconn)
    ended: list[str | psycopg.Error] = []
    for _ in statements:
        results = yield from generators.fetch_many(pgconn)
        # A connection that breaks may leave some without any.
        if not results or results[-1].status != ExecStatus.PIPELINE_ABORTED:
            ended.append(_tag_or_error(results, encoding))
    # The point of synchronization.
    yield from generators.fetch_many(pgconn)
    left_out = statements[len(ended) :]
    for statement in left_out:
        pgconn.send_query_params(statement, None)
        pgconn.pipeline_sync()
    yield from generators.send(pgconn)
    for _ in left_out:
        ended.append(_tag_or_error((yield from generators.fetch_many(pgconn)), encoding))
        yield from generators.fetch_many(pgconn)
    pgconn.exit_pipeline_mode()
    return ended


def prepare(pgconn: PGconn, name: bytes, text: bytes, encoding: str) -> PQGen[None]:
    """Prepare a statement under a name; its parameters, $1 and so on, are of the types that the server finds."""
    pgconn.send_prepare(name, text)
    last_result((yield from generators.execute(pgconn)), encoding)


def run_prepared(pgconn: PGconn, name: bytes, parameters: Sequence[bytes], encoding: str) -> PQGen[PGresult]:
    """Run a prepared statement, with parameters and columns in binary form."""
    formats = [Format.BINARY] * len(parameters)
    pgconn.send_query_prepared(name, parameters, param_formats=formats, result_format=Format.BINARY)
    return last_result((yield from generators.execute(pgconn)), encoding)


def ended_tag(results: Sequence[PGresult], encoding: str) -> str:
    """The tag of the last result; empty where there is none. psycopg.Error as for ``last_result``."""
    return (last_result(results, encoding).command_status or b"").decode() if results else ""


def _tag_or_error(results: Sequence[PGresult], encoding: str) -> str | psycopg.Error:
    try:
        return ended_tag(results, encoding)
    except psycopg.Error as error:
        return error


def last_result(results: Sequence[PGresult], encoding: str) -> PGresult:
    """The last of the results. psycopg.Error of the one that failed, whose words are in this encoding."""
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding)
        if result.status not in _DONE:
            raise psycopg.ProgrammingError(f"a statement that ends as {ExecStatus(result.status).name}")
    return results[-1]
