"""The decision log's connections to PostgreSQL, and how its statements' rows are read.

One connection does nothing but appends, one nothing but reads, and one the rest, so that none
of them waits for another kind. All of them have ``synchronous_commit = on``; the checkpoint's
statement alone turns it off for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from typing import Any, Final

from psycopg.rows import TupleRow

from coordinator.log.connection import LogConnection, Parameter, Timeouts
from coordinator.log.decision_log import LogUnavailableError, LogUncertainError
from coordinator.log.postgres_workflows import PostgresWorkflows
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from participant_sdk.ids import RequestId
from participant_sdk.xa import Decision

DEFAULT_TIMEOUTS: Final = Timeouts()


class PostgresStatements:
    """Three connections, and the statements of ``sql/*.sql`` by name."""

    def __init__(self, dsn: str, *, name: str = "pincex-coordinator", timeouts: Timeouts = DEFAULT_TIMEOUTS) -> None:
        self._generation = 0
        self._appends = LogConnection(dsn, f"{name}-appends", timeouts, self._connected)
        self._reads = LogConnection(dsn, f"{name}-reads", timeouts, self._connected)
        self._upkeep = LogConnection(dsn, f"{name}-upkeep", timeouts, self._connected)
        folder = files("coordinator.log") / "sql"
        self._sql: Final = {
            entry.name.removesuffix(".sql"): entry.read_bytes()
            for entry in folder.iterdir()
            if entry.name.endswith(".sql")
        }
        self._workflows = PostgresWorkflows(dsn, name, timeouts, self._sql)

    @property
    def workflows(self) -> PostgresWorkflows:
        """The statements about workflows, on connections of their own."""
        return self._workflows

    @property
    def generation(self) -> int:
        """How often one of the connections was made: each may have met another log (R15)."""
        return self._generation

    @property
    def problem(self) -> str:
        """What the server refuses and no retry is likely to mend; empty where nothing is known of that kind."""
        connections = (self._appends, self._reads, self._upkeep, self._workflows)
        return next((each.problem for each in connections if each.problem), "")

    async def close(self) -> None:
        """Close the connections. Nothing is written."""
        for connection in (self._appends, self._reads, self._upkeep, self._workflows):
            await connection.close()

    def _connected(self) -> None:
        self._generation += 1

    async def _append(self, parameters: Sequence[bytes], *, may_be_first: bool) -> list[tuple[Any, ...]]:
        """Run the statement of an append.

        If it had to connect again, the others do so now: each new connection makes every participant report
        anew, and they had better not come one after the other.
        """
        made = self._appends.made
        try:
            return await self._appends.call(self._sql["append"], parameters, may_be_first=may_be_first)
        finally:
            if self._appends.made != made:
                with suppress(LogUnavailableError):
                    await self._reads.replace()
                    await self._upkeep.replace()

    async def _read(self, name: str, parameters: Mapping[str, Parameter]) -> list[TupleRow]:
        return await read_only(self._reads, self._sql[name], parameters)

    async def _keep(self, name: str, parameters: Mapping[str, Parameter]) -> list[TupleRow]:
        return await self._upkeep.execute(self._sql[name], parameters)


async def read_only(connection: LogConnection, query: bytes, parameters: Mapping[str, Parameter]) -> list[TupleRow]:
    """Run a statement that changes nothing: whatever happened to it, it is only no answer."""
    try:
        return await connection.execute(query, parameters)
    except LogUncertainError as error:
        raise LogUnavailableError(str(error)) from error


def stored_decision(row: TupleRow) -> StoredDecision:
    """A row of ``decisions``, its columns in the order in which every statement reads them."""
    xid, decision, prepared, tenant, request_id, digest, reason, results, incarnation, sequence, decided_unix_ms = row
    request = None if request_id is None else RequestId(tenant, request_id)
    record = DecisionRecord(
        xid, Decision(decision), tuple(prepared or ()), request, digest or b"", reason or "", results or ""
    )
    return StoredDecision(record, incarnation, sequence, decided_unix_ms)
