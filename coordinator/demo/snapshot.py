"""Everything that is known at the end of the day: the rows of all databases, and what bank and chain say themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from coordinator.demo.callers import Callers
from participant_sdk.testing import System

LOG: Final = "txlog"
PARTICIPANTS: Final = ("bookkeeper", "trading", "settlement", "fiat", "wallet")
COMMITTED: Final = 3

_SQL: Final = files("coordinator.demo") / "sql"
_BRANCHES: Final = "select b.xid, b.phase, coalesce(b.vote, 0) as vote from pincex.branches as b"
_DECISIONS: Final = "select d.xid, d.decision = 1 as is_commit, d.prepared, d.request_id from txlog.decisions as d"
_WORKFLOWS: Final = (
    "select w.workflow_id, w.kind, (array['RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED'])[w.phase] as state,"
    " w.stuck, w.request_id from txlog.workflows as w"
)
_POSITIONS: Final = "select p.user_id, p.currency, p.net as balance, 0 as held from settlement.positions as p"

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Account:
    """Money of a user in one currency, and how much of it is held for something."""

    user_id: str
    currency: str
    balance: Decimal
    held: Decimal


@dataclass(frozen=True, slots=True)
class Move:
    """Money that came into the exchange, above zero, or left it; ``kind`` is what became of it."""

    user_id: str
    currency: str
    amount: Decimal
    name: str
    kind: str
    fee: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Fill:
    """A trade between two orders."""

    trade_id: str
    symbol: str
    amount: Decimal
    price: Decimal
    buyer_id: str
    seller_id: str
    buy_order_id: str
    sell_order_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch at a participant."""

    xid: UUID
    phase: int
    vote: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A row of the decision log."""

    xid: UUID
    is_commit: bool
    prepared: list[str] | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Ran:
    """A workflow, as the log has it."""

    workflow_id: UUID
    kind: str
    state: str
    stuck: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Something that must come to nothing at the end, and how many of it there are."""

    what: str
    many: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it. ``bank`` is by currency; ``chain_paid`` by address."""

    accounts: Sequence[Account]
    bank_moves: Sequence[Move]
    chain_moves: Sequence[Move]
    fills: Sequence[Fill]
    trades: Sequence[Fill]
    positions: Sequence[Account]
    branches: Mapping[str, Sequence[Branch]]
    decisions: Sequence[Decision]
    workflows: Sequence[Ran]
    bank: Mapping[str, Mapping[str, Any]]
    chain: Mapping[str, Decimal]
    chain_paid: Sequence[tuple[str, Decimal]]


async def take(callers: Callers) -> Snapshot:
    """Read everything, once nothing changes any more. psycopg.Error, NoAnswerError."""
    system = callers.system
    totals = await callers.company("chain", "GET", "/development/totals")
    payments = (await callers.company("chain", "GET", "/development/payments"))["payments"]
    return Snapshot(
        accounts=await _rows(system, "bookkeeper", Account, _text("bookkeeper_accounts")),
        bank_moves=await _rows(system, "fiat", Move, _text("fiat_moves")),
        chain_moves=await _rows(system, "wallet", Move, _text("wallet_moves")),
        fills=await _rows(system, "trading", Fill, _text("trading_fills")),
        trades=await _rows(system, "settlement", Fill, _text("settlement_trades")),
        positions=await _rows(system, "settlement", Account, _POSITIONS),
        branches={name: await _rows(system, name, Branch, _BRANCHES) for name in PARTICIPANTS},
        decisions=await _rows(system, LOG, Decision, _DECISIONS),
        workflows=await _rows(system, LOG, Ran, _WORKFLOWS),
        bank=await callers.company("bank", "GET", "/development/totals"),
        chain={name: Decimal(amount) for name, amount in totals.items()},
        chain_paid=[(each["address"], Decimal(each["amount"])) for each in payments],
    )


async def unsettled(system: System) -> list[str]:
    """What is still under way, a sentence each; nothing once all is settled. psycopg.Error."""
    found: list[str] = []
    for name in (LOG, *PARTICIPANTS):
        rows = await _rows(system, name, Unsettled, _text(f"unsettled.{name}"))
        if name != LOG:
            rows += await _rows(system, name, Unsettled, _IN_DOUBT)
        found += [f"{name}: {row.many} {row.what}" for row in rows if row.many]
    return found


_IN_DOUBT: Final = "select 'branches in doubt' as what, count(*) as many from pincex.branches as b where b.phase = 2"


async def _rows(system: System, database: str, kind: type[Row], query: str) -> list[Row]:
    async with await psycopg.AsyncConnection.connect(system.databases[database]) as connection:
        cursor = connection.cursor(row_factory=class_row(kind))
        return await (await cursor.execute(query.encode())).fetchall()


def _text(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")
