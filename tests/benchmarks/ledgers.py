"""The product's ledgers: their accounts before a benchmark, and what must be true of them afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Final

import psycopg

from participant_sdk.migrations import migrate

SQL: Final = Path(__file__).parent / "sql"
CURRENCY: Final = "USD"
START_BALANCE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What one bookkeeper holds at rest."""

    money: Decimal
    committed: int
    in_doubt: int


async def make_ledger(dsn: str, accounts: int) -> None:
    """Bring a fresh database to a bookkeeper's schema, with this many funded accounts."""
    await migrate(dsn, resources.files("participant_sdk.resources") / "reservation_migrations", "pincex")
    await migrate(dsn, resources.files("sidecars.bookkeeper") / "migrations", "bookkeeper")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            (SQL / "seed.sql").read_bytes(), {"accounts": accounts, "currency": CURRENCY, "balance": START_BALANCE}
        )
        await connection.execute("vacuum analyze")


async def read_ledger(dsn: str) -> LedgerState:
    """What the bookkeeper holds now."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute((SQL / "state.sql").read_bytes())).fetchone()
    if row is None:
        raise RuntimeError("a select without a row")
    return LedgerState(*row)


async def violations(dsn: str) -> list[str]:
    """What the bookkeeper's own invariants find wrong, a sentence each; none is sound."""
    query = resources.files("sidecars.bookkeeper") / "invariants.sql"
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        rows = await (await connection.execute(query.read_bytes())).fetchall()
    return [f"{name}: {detail}" for name, detail in rows]


async def count_commits(log_dsn: str) -> int:
    """How many COMMITs the decision log holds."""
    async with await psycopg.AsyncConnection.connect(log_dsn) as connection:
        row = await (await connection.execute("select count(*) from txlog.decisions where decision = 1")).fetchone()
    return row[0] if row else 0


def disagreements(before: list[LedgerState], after: list[LedgerState], told: int, logged: int) -> list[str]:
    """Where two ledgers, the log, and what clients were told do not agree; ``told`` commits moved one unit each."""
    found: list[str] = []
    moved = [after[0].money - before[0].money, after[1].money - before[1].money]
    if moved[0] + moved[1] != 0:
        found.append(f"money is not conserved: the ledgers changed by {moved[0]} and {moved[1]}")
    counts = {
        "clients were told of": told,
        "the decision log holds": logged,
        "the first ledger moved": int(-moved[0]),
        "the second ledger moved": int(moved[1]),
        "the first ledger's branches are": after[0].committed - before[0].committed,
        "the second ledger's branches are": after[1].committed - before[1].committed,
    }
    if len(set(counts.values())) != 1:
        found.append("counts of commits disagree: " + ", ".join(f"{who} {count}" for who, count in counts.items()))
    in_doubt = sum(state.in_doubt for state in after)
    if in_doubt:
        found.append(f"{in_doubt} branches are in doubt")
    return found
