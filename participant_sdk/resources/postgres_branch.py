"""One branch's transaction in PostgreSQL: begin, the operations, the marker, PREPARE TRANSACTION.

What must be watched, each seen on the server:

- PREPARE TRANSACTION of a failed transaction, and outside of one, answers ROLLBACK and no error:
  only the tag ``PREPARE TRANSACTION`` is a yes.
- A lost connection, a cancelled call and a warning leave the branch in doubt: it may be prepared,
  or become so, since the server goes on alone. Nobody guesses (``UnknownError``).
- What changed nothing needs no PREPARE, which would cost two flushes: it commits, and votes READ_ONLY.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg
import structlog
from psycopg.rows import TupleRow
from psycopg.types.string import TextLoader

from participant_sdk.ids import BranchId
from participant_sdk.resources.postgres_errors import CHANGED_NOTHING, is_connection_lost, no_of
from participant_sdk.resources.postgres_lane import Connection, Session
from participant_sdk.resources.postgres_operations import Call, RefusedError, Statement
from participant_sdk.xa import PREPARED, READ_ONLY, Vote, XaCode, transient_no

_PREPARED_TAG: Final = "PREPARE TRANSACTION"

# Of names that are checked as they come in, so that none has to be quoted. Setting is cheaper than set_config().
_BEGIN: Final = "begin; set local pincex.branch = '{}'; set local statement_timeout = {}"
_BEGIN_EMBEDDED: Final = (
    "begin isolation level read committed; set local pincex.branch = '{}'; set local statement_timeout = {};"
    " set local idle_in_transaction_session_timeout = {}"
)
_MARK: Final = "select pincex_xa.mark('{}', '{}', '{}'::uuid); prepare transaction '{}'"

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

KeepResults = Callable[[Sequence[str]], Awaitable[None]]


class UnknownError(Exception):
    """Whether the branch is prepared, or will be, is not known."""


@dataclass(frozen=True, slots=True)
class BranchTransaction:
    """The transaction of one branch on one session.

    ``keep_results`` makes durable what the operations returned; it is awaited before the branch is prepared.
    """

    branch: BranchId
    session: Session
    keep_results: KeepResults

    async def run(self, calls: Sequence[Call], timeout_ms: int) -> Vote:
        """Run the branch and return its vote. UnknownError when that cannot be known.

        Only a vote of PREPARED leaves anything behind. A cancelled caller leaves the branch in doubt.
        """
        field = "operations"
        try:
            if all(isinstance(call.run, Statement) and not call.run.returns for call in calls):
                vote = await self._run_as_one(calls, timeout_ms)
                if vote is not None:
                    return vote
            await self.begin(timeout_ms)
            results: list[str] = []
            for call in calls:
                field = call.field
                results.append(await _run_call(self.session.connection, call))
            return await self.end(tuple(results) if any(results) else ())
        except UnknownError:
            raise
        except RefusedError as error:
            await self.undo()
            return error.vote
        except psycopg.Error as error:
            return await self.refuse(error, field)
        except Exception as error:  # noqa: BLE001 - an operation is the service's code
            # Whatever it raises is this branch's "no" and nobody else's (R17); the transaction is undone.
            _log.exception("operation_failed", transaction_id=str(self.branch.xid), field=field)
            await self.undo()
            return transient_no("OPERATION_FAILED", f"{field}: {type(error).__name__}", xa_code=XaCode.XAER_RMERR)

    async def vote(self) -> Vote:
        """End work that was done outside of ``run``, and vote. UnknownError when that cannot be known."""
        try:
            return await self.end(())
        except psycopg.Error as error:
            return await self.refuse(error, "operations")

    async def begin(self, timeout_ms: int) -> None:
        """Begin the transaction; each of its statements may take ``timeout_ms``."""
        await self.session.run(_BEGIN.format(self.branch.xid, timeout_ms))

    async def begin_embedded(self, timeout_ms: int) -> None:
        """Begin the transaction for work that a service does itself; the server ends it when idle so long."""
        await self.session.run(_BEGIN_EMBEDDED.format(self.branch.xid, timeout_ms, timeout_ms))

    async def end(self, results: tuple[str, ...]) -> Vote:
        """Vote: READ_ONLY where nothing was changed, else mark and prepare. psycopg.Error where that fails."""
        connection = self.session.connection
        cursor = await connection.execute("select pg_current_xact_id_if_assigned() is null")
        row = await cursor.fetchone()
        if row is not None and row[0]:
            cursor = await connection.execute("commit")
            if cursor.statusmessage != "COMMIT":
                return transient_no("TRANSACTION_FAILED", "the branch's transaction had failed before its end")
            return READ_ONLY._replace(results=results)
        if results:
            await self.keep_results(results)
        with self.session.confirmed():
            tag = await self.session.run(self._mark)
        return _prepared(tag)._replace(results=results)

    async def refuse(self, error: psycopg.Error, field: str) -> Vote:
        """Undo the transaction and return the vote that the error means. UnknownError if the connection is lost."""
        if is_connection_lost(error) or self.session.connection.closed:
            raise UnknownError(str(error)) from error
        await self.undo()
        return no_of(error, field)

    async def undo(self) -> None:
        """Roll the transaction back. UnknownError if the connection is lost."""
        try:
            await self.session.connection.execute("rollback")
        except psycopg.Error as error:
            raise UnknownError(str(error)) from error

    @property
    def _mark(self) -> str:
        branch = self.branch
        return _MARK.format(branch.participant, branch.log_id, branch.xid, branch.gid)

    async def _run_as_one(self, calls: Sequence[Call], timeout_ms: int) -> Vote | None:
        """Run all in one round trip; None where nothing is left of it and there is no vote yet."""
        statements = [(call.run, call.parameters) for call in calls if isinstance(call.run, Statement)]
        written = [
            self.session.written(run.template, [given[name] for name in run.places]) for run, given in statements
        ]
        parts = [_BEGIN.format(self.branch.xid, timeout_ms), *written, self._mark]
        try:
            with self.session.confirmed():
                tag = await self.session.run("\n; ".join(parts))
            return _prepared(tag)
        except psycopg.Error as error:
            # Bad data runs again too, step by step, to name the operation that it came from.
            if error.sqlstate != CHANGED_NOTHING and not isinstance(error, psycopg.DataError):
                raise
        await self.undo()
        return None


def _prepared(tag: str) -> Vote:
    """Read the last tag of a string that ends in PREPARE TRANSACTION."""
    if tag == _PREPARED_TAG:
        return PREPARED
    return transient_no("TRANSACTION_FAILED", f"PREPARE TRANSACTION answered {tag}", xa_code=XaCode.RBROLLBACK)


async def _run_call(connection: Connection, call: Call) -> str:
    if not isinstance(call.run, Statement):
        return await call.run(connection, call.parameters)
    cursor = psycopg.AsyncClientCursor[TupleRow](connection)
    for json_type in ("json", "jsonb"):
        # Read into Python, its numbers would be rounded.
        cursor.adapters.register_loader(json_type, TextLoader)
    await cursor.execute(call.run.sql.encode(), dict(call.parameters))
    if not call.run.returns or cursor.description is None:
        return ""
    row = await cursor.fetchone()
    return "" if row is None else str(row[0])
