"""Money and branches followed: what a load should have changed at the participants, and what it did."""

from __future__ import annotations

import json
from collections import Counter
from decimal import Decimal
from typing import Any, Final, LiteralString

import psycopg

from participant_sdk.client_errors import OutcomeUnknown
from participant_sdk.client_results import Committed, Ending
from participant_sdk.ids import Xid
from participant_sdk.load.tally import Execute
from participant_sdk.load.transfers import Operations
from participant_sdk.xa import VoteKind

CONNECT_TIMEOUT_S: Final = 10
_NOTHING: Final = Decimal(0)
_SIGNS: Final = {"credit_account": Decimal(1), "debit_account": Decimal(-1)}
_TOTAL: Final = "select coalesce(sum(balance), 0) from bookkeeper.accounts where currency = %s"
_COMMITTED: Final = "select count(*) from pincex.branches where phase = 3 and xid >= %s::uuid"


class Inflow:
    """Executes, and adds up what committed transactions brought into the ledgers of a currency, and took out.

    It is from ``least`` to ``most``: transactions whose outcome is unknown may have done their part or not.
    ``branches`` are those of the transactions that committed, by participant, without those that only read.
    """

    def __init__(self, execute: Execute, currency: str) -> None:
        self._execute = execute
        self._currency = currency
        self.least = self.most = _NOTHING
        self.branches: Counter[str] = Counter()

    async def execute(self, operations: Operations) -> Ending:
        """Execute; see ``TransactionClient.execute``."""
        net = net_inflow(operations, self._currency)
        try:
            ending = await self._execute(operations)
        except OutcomeUnknown:
            self.least += min(net, _NOTHING)
            self.most += max(net, _NOTHING)
            raise
        if isinstance(ending, Committed):
            self.least += net
            self.most += net
            self.branches.update(
                branch.participant
                for branch in ending.branches
                if branch.vote is not None and branch.vote.kind is VoteKind.PREPARED
            )
        return ending


def net_inflow(operations: Operations, currency: str) -> Decimal:
    """What a workload's operations bring in of a currency if they commit; nothing, for what only moves money."""
    moved = [(_SIGNS[name], json.loads(str(written))) for _, name, written in operations if name in _SIGNS]
    return sum((sign * Decimal(each["amount"]) for sign, each in moved if each["currency"] == currency), _NOTHING)


async def money_in(dsn: str, currency: str) -> Decimal:
    """All the money of a bookkeeper's users, read from its database. psycopg.Error where it cannot be read."""
    total: Decimal = await _read(dsn, _TOTAL, currency)
    return total


async def committed_in(dsn: str, since: Xid) -> int:
    """How many branches a participant has committed, from an xid on: older ones are pruned meanwhile. psycopg.Error."""
    count: int = await _read(dsn, _COMMITTED, str(since))
    return count


async def has_books(dsn: str, schema: str) -> bool:
    """Whether a participant's database has this schema. psycopg.Error where it cannot be asked."""
    found: bool = await _read(dsn, "select to_regnamespace(%s) is not null", schema)
    return found


async def _read(dsn: str, query: LiteralString, *parameters: str) -> Any:  # Whatever the query selects.
    async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None  # noqa: S101 - each of the queries has one row.
    return row[0]
