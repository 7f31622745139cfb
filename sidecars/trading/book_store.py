"""A book's entries and what they came to, as trading's database keeps them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from importlib.resources import files
from typing import Final, NamedTuple, assert_never

import psycopg
from psycopg.rows import args_row, scalar_row

from participant_sdk.resources.postgres_lane import Lane
from sidecars.trading.book import Book, Outcome
from sidecars.trading.orders import (
    Cancellation,
    Closed,
    Entry,
    Event,
    Fill,
    Order,
    Side,
    Standing,
    TimeInForce,
    Withdrawn,
)

# A stopped process must not keep others from a book: what it sends ends with its statement, and none lasts long.
_SETTINGS: Final = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    # A book is read upward by its index, however small the planner takes the table to be.
    "enable_seqscan": "off",
}

_SQL: Final = files("sidecars.trading") / "sql"
_ENTRIES: Final = (_SQL / "entries.sql").read_bytes()
_WAITING: Final = (_SQL / "waiting.sql").read_bytes()
_PROGRESS: Final = (_SQL / "progress.sql").read_bytes()
_SYMBOLS: Final = b"select m.symbol from trading.matchers as m order by m.symbol"
_RECORD: Final = b"select trading.record_matches(%s, %s, %s, %s::jsonb, %s::jsonb)"


class BrokenBookError(Exception):
    """The database does not hold what it must. Nothing of the book is matched until somebody has looked."""


class Progress(NamedTuple):
    """How far a book is matched, and its last number."""

    matched: int
    last: int


class BookStore:
    """All books of one database, over a lane of connections. Its methods raise psycopg.Error."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    @classmethod
    def open(cls, dsn: str, connections: int) -> BookStore:
        """Make one; connections are opened as they are needed."""
        return cls(Lane(dsn, connections, _SETTINGS, cursor_factory=psycopg.AsyncCursor))

    async def close(self) -> None:
        """Close its connections. Nobody may use it any more."""
        await self._lane.close()

    async def symbols(self) -> Sequence[str]:
        """Every symbol that has a book."""
        async with self._lane.session() as session, session.connection.cursor(row_factory=scalar_row) as cursor:
            return await (await cursor.execute(_SYMBOLS)).fetchall()

    async def progress(self, symbol: str) -> Progress:
        """How far this one is matched."""
        async with (
            self._lane.session() as session,
            session.connection.cursor(row_factory=args_row(Progress), binary=True) as cursor,
        ):
            found = await (await cursor.execute(_PROGRESS, {"symbol": symbol})).fetchone()
        if found is None:
            raise BrokenBookError(f"there is no book of {symbol}")
        return found

    async def load(self, symbol: str) -> tuple[Book, int]:
        """Read a book as matching left it, and how far that came."""
        async with self._lane.session() as session, session.connection.cursor(binary=True) as cursor:
            rows = await (await cursor.execute(_WAITING, {"symbol": symbol})).fetchall()
        if not rows:
            raise BrokenBookError(f"there is no book of {symbol}")
        waiting = [
            Order(sequence, order_id, user_id, Side(side), TimeInForce.GTC, price, amount, filled)
            for _, sequence, order_id, user_id, side, price, amount, filled in rows
            if sequence is not None
        ]
        return Book(symbol, waiting), rows[0][0]

    async def entries(self, symbol: str, after: int, most: int) -> list[Entry]:
        """Read what entered a book next, ``most`` at most. BrokenBookError where a number is missing."""
        async with (
            self._lane.session() as session,
            session.connection.cursor(row_factory=args_row(_entry), binary=True) as cursor,
        ):
            parameters = {"symbol": symbol, "after": after, "most": most}
            entries = await (await cursor.execute(_ENTRIES, parameters, prepare=True)).fetchall()
        for place, entry in enumerate(entries, after + 1):
            if entry.sequence != place:
                raise BrokenBookError(f"the book of {symbol} has no entry {place}, but one {entry.sequence}")
        return entries

    async def record(self, symbol: str, matched: int, outcome: Outcome) -> bool:
        """Make durable what the entries after ``matched`` came to, all of it at once.

        False, and nothing is changed, where another has matched from there. After an error it may be recorded or not.
        """
        events = json.dumps([_event(event) for event in outcome.events])
        standings = json.dumps([_standing(order_id, each) for order_id, each in outcome.standings.items()])
        async with self._lane.session() as session, session.connection.cursor(row_factory=scalar_row) as cursor:
            with session.confirmed():
                await cursor.execute(_RECORD, (symbol, matched, outcome.through, events, standings), prepare=True)
            return bool(await cursor.fetchone())


def _entry(
    place: int,
    is_cancellation: bool,
    order_id: str,
    user_id: str,
    side: int,
    time_in_force: int,
    amount: Decimal | None,
    price: Decimal | None,
) -> Entry:
    if is_cancellation:
        return Cancellation(place, order_id)
    if amount is None:
        return Withdrawn(place)
    return Order(place, order_id, user_id, Side(side), TimeInForce(time_in_force), price, amount)


def _event(event: Event) -> dict[str, object]:
    """Write an event as ``trading.record_matches`` reads it. Amounts as text: JSON's numbers are floats in Python."""
    match event:
        case Fill():
            return {
                "t": event.trade_id,
                "s": event.taker_sequence,
                "n": event.number,
                "e": event.taker_side,
                "p": f"{event.price:f}",
                "a": f"{event.amount:f}",
                "b": event.buy_order_id,
                "c": event.sell_order_id,
                "u": event.buyer_id,
                "v": event.seller_id,
            }
        case Closed():
            return {"i": event.order_id}
        case _:
            assert_never(event)


def _standing(order_id: str, standing: Standing) -> dict[str, object]:
    return {"i": order_id, "f": f"{standing.filled:f}", "s": standing.status, "w": standing.closure}
