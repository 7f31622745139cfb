"""Money followed: what a load should have changed in the ledgers, and what it did."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Final

import psycopg

from participant_sdk.client_errors import OutcomeUnknown
from participant_sdk.client_results import Committed, Ending
from participant_sdk.load.tally import Execute
from participant_sdk.load.transfers import Operations

CONNECT_TIMEOUT_S: Final = 10
_NOTHING: Final = Decimal(0)
_SIGNS: Final = {"credit_account": Decimal(1), "debit_account": Decimal(-1)}
_TOTAL: Final = "select coalesce(sum(balance), 0) from bookkeeper.accounts where currency = %s"


class Inflow:
    """Executes, and adds up what committed transactions brought into the ledgers, less what they took out.

    It is from ``least`` to ``most``: transactions whose outcome is unknown may have done their part or not.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self.least = self.most = _NOTHING

    async def execute(self, operations: Operations) -> Ending:
        """Execute; see ``TransactionClient.execute``."""
        net = net_inflow(operations)
        try:
            ending = await self._execute(operations)
        except OutcomeUnknown:
            self.least += min(net, _NOTHING)
            self.most += max(net, _NOTHING)
            raise
        if isinstance(ending, Committed):
            self.least += net
            self.most += net
        return ending


def net_inflow(operations: Operations) -> Decimal:
    """What a workload's operations bring into the ledgers if they commit; nothing, for what only moves money."""
    return sum((_SIGNS[name] * _amount(written) for _, name, written in operations if name in _SIGNS), _NOTHING)


async def money_in(dsn: str, currency: str) -> Decimal:
    """All the money of a bookkeeper's users, read from its database. psycopg.Error where it cannot be read."""
    async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=CONNECT_TIMEOUT_S) as connection:
        row = await (await connection.execute(_TOTAL, [currency])).fetchone()
    return row[0] if row else _NOTHING


def _amount(written: object) -> Decimal:
    return Decimal(json.loads(str(written))["amount"])
