"""The participants' books: their accounts before a benchmark, and what must be true of them afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from importlib import resources
from pathlib import Path
from typing import Final

import psycopg

from participant_sdk.migrations import migrate

SQL: Final = Path(__file__).parent / "sql"
CURRENCY: Final = "USD"
START_BALANCE: Final = 1_000_000
SETTLE_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.1
UNFINISHED: Final = (SQL / "unfinished.sql").read_bytes()
_COMMITS: Final = (SQL / "commits.sql").read_bytes()


class Kind(Enum):
    """What keeps a participant's books: a sidecar, by its name, or the bank on XA."""

    BOOKKEEPER = "bookkeeper"
    TRADING = "trading"
    SETTLEMENT = "settlement"
    FIAT = "fiat"
    WALLET = "wallet"
    XA = "xa"


@dataclass(frozen=True, slots=True)
class Ledger:
    """One participant's database."""

    name: str
    dsn: str
    kind: Kind = Kind.BOOKKEEPER


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What one participant holds at rest."""

    money: Decimal
    committed: int
    in_doubt: int


@dataclass(frozen=True, slots=True)
class LogState:
    """How many transactions a decision log has committed, in all and with each participant prepared."""

    commits: int
    prepared: Mapping[str, int]


def numbered(accounts: int) -> list[str]:
    """The users of transfers: "0" to ``accounts`` - 1."""
    return [str(number) for number in range(accounts)]


async def make_schema(dsn: str, kind: Kind) -> None:
    """Bring a fresh database to a sidecar's schema."""
    await migrate(dsn, resources.files("participant_sdk.resources") / "reservation_migrations", "pincex")
    await migrate(dsn, resources.files(f"sidecars.{kind.value}") / "migrations", kind.value)


async def make_ledger(dsn: str, users: Sequence[str]) -> None:
    """Bring a fresh database to a bookkeeper's schema, with a funded account of each of these users."""
    await make_schema(dsn, Kind.BOOKKEEPER)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            (SQL / "seed.sql").read_bytes(), {"users": list(users), "currency": CURRENCY, "balance": START_BALANCE}
        )
        await connection.execute("vacuum analyze")


async def make_xa_bank(dsn: str, users: Sequence[str]) -> None:
    """Bring a fresh database to an XA bank's schema, with a funded account of each of these users."""
    await migrate(dsn, resources.files("participant_sdk.resources") / "postgres_xa_migrations", "pincex_xa")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute((SQL / "xa_bank.sql").read_bytes())
        await connection.execute(
            "insert into accounts select u.name, %s, %s from unnest(%s::text[]) as u (name)",
            (CURRENCY, START_BALANCE, list(users)),
        )
        await connection.execute("vacuum analyze")


async def read_ledger(dsn: str, kind: Kind = Kind.BOOKKEEPER) -> LedgerState:
    """What the participant holds now."""
    match kind:
        case Kind.BOOKKEEPER:
            query = SQL / "state.sql"
        case Kind.XA:
            query = SQL / "xa_state.sql"
        case _:
            query = SQL / "branches.sql"
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute(query.read_bytes())).fetchone()
    if row is None:
        raise RuntimeError("a select without a row")
    return LedgerState(*row)


async def violations(dsn: str, kind: Kind = Kind.BOOKKEEPER) -> list[str]:
    """What a sidecar's own invariants find wrong, a sentence each; none is sound."""
    query = resources.files(f"sidecars.{kind.value}") / "invariants.sql"
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        rows = await (await connection.execute(query.read_bytes())).fetchall()
    return [f"{name}: {detail}" for name, detail in rows]


async def read_log(dsn: str) -> LogState:
    """What the decision log holds of the incarnations that live, or lived last."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        rows = await (await connection.execute(_COMMITS)).fetchall()
    prepared = {name: count for name, count in rows if name is not None}
    return LogState(sum(count for name, count in rows if name is None), prepared)


async def settled(log: str, ledgers: Sequence[Ledger]) -> list[LedgerState]:
    """The ledgers' states once nothing is unfinished or in doubt, or when that takes too long."""
    ends_s = asyncio.get_running_loop().time() + SETTLE_S
    while True:
        async with await psycopg.AsyncConnection.connect(log) as connection:
            row = await (await connection.execute(UNFINISHED)).fetchone()
        states = [await read_ledger(ledger.dsn, ledger.kind) for ledger in ledgers]
        owed = (row[0] if row else 0) + sum(state.in_doubt for state in states)
        if not owed or asyncio.get_running_loop().time() > ends_s:
            return states
        await asyncio.sleep(LOOK_AGAIN_S)


def disagreements(
    names: Sequence[str],
    before: Sequence[LedgerState],
    after: Sequence[LedgerState],
    told: int,
    log: LogState,
    *,
    closed: bool = True,
) -> list[str]:
    """Where ledgers, the log and what clients were told do not agree, a sentence each; none is sound.

    ``told`` is how many commits clients were told of, ``log`` what was written since ``before``. In a ``closed``
    system money only moves between the ledgers; in others each ledger's own invariants account for it.
    """
    found: list[str] = []
    gained = sum(new.money - old.money for old, new in zip(before, after, strict=True))
    if closed and gained:
        found.append(f"money is not conserved: the ledgers together changed by {gained}")
    if told != log.commits:
        found.append(f"counts of commits disagree: clients were told of {told}, the log holds {log.commits}")
    for name, old, new in zip(names, before, after, strict=True):
        branches, decided = new.committed - old.committed, log.prepared.get(name, 0)
        if branches != decided:
            found.append(f"counts of branches disagree: {name} committed {branches}, the log decided {decided}")
    in_doubt = sum(state.in_doubt for state in after)
    if in_doubt:
        found.append(f"{in_doubt} branches are in doubt")
    return found
