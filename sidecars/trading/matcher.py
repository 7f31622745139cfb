"""Matching, beside the participant and outside of every branch: one matcher for each book.

A matcher keeps its book in memory and the database keeps the truth: which entry was matched last. It reads the
entries after that one, matches them, and records fills, orders, events and the new last entry in one statement, which
does nothing unless the last entry is still the one that the book in memory stands at. So it may be killed anywhere,
be stopped and go on, or run in two processes: each entry is matched once. Whatever the matcher is not sure of, it
throws away its book and reads it again.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from functools import partial
from typing import Final, assert_never

import psycopg
import structlog

from sidecars.sidecar import Surroundings, attend
from sidecars.trading.book import Book
from sidecars.trading.book_store import BookStore

# What one statement records, about: an order that sweeps a deep book may bring more fills, and all at once.
ENTRIES_MAX: Final = 500
FILLS_MAX: Final = 2_000
CONNECTIONS: Final = 3
# Orders that enter a book are told at once. This is for when that was missed, in whatever way.
LOOK_AGAIN_S: Final = 5.0
# Where another process matches a book, this one goes on only after it has left entries alone for so long.
STAND_BY_S: Final = 1.0
CONNECT_TIMEOUT_S: Final = 5

_LISTEN: Final = b"listen trading_book"
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Round(Enum):
    """What a matcher's round came to."""

    MATCHED = auto()
    IDLE = auto()
    OVERTAKEN = auto()


class BookMatcher:
    """One book's matcher. Use it from one task."""

    def __init__(self, symbol: str, store: BookStore) -> None:
        self.symbol = symbol
        self._store = store
        # With the place up to which it is matched. None while what it holds is not sure to be what is recorded.
        self._known: tuple[Book, int] | None = None

    async def round(self) -> Round:
        """Match the next entries, if there are any. psycopg.Error or BrokenBookError; it may be called again then."""
        book, matched = self._known or await self._store.load(self.symbol)
        self._known = None
        entries = await self._store.entries(self.symbol, matched, ENTRIES_MAX)
        if not entries:
            self._known = book, matched
            return Round.IDLE
        outcome = book.match(entries, through=matched, fills_max=FILLS_MAX)
        if not await self._store.record(self.symbol, matched, outcome):
            return Round.OVERTAKEN
        self._known = book, outcome.through
        return Round.MATCHED

    async def stand_by(self) -> None:
        """Return when entries have waited for a while and nobody has matched any."""
        before = await self._store.progress(self.symbol)
        while True:
            await asyncio.sleep(STAND_BY_S)
            now = await self._store.progress(self.symbol)
            if now.matched == before.matched < before.last:
                return
            before = now


async def match_orders(surroundings: Surroundings) -> None:
    """Match every book of trading's database until cancelled; a book that fails is tried again, and stops no other."""
    store = BookStore.open(surroundings.dsn, CONNECTIONS)
    try:
        async with asyncio.TaskGroup() as group:
            await attend("listener", _Matching(store, group).listen, surroundings)
    finally:
        await store.close()


class _Matching:
    """The matchers of all books, each a task, and what wakes them."""

    def __init__(self, store: BookStore, group: asyncio.TaskGroup) -> None:
        self._store = store
        self._group = group
        self._wakes: dict[str, asyncio.Event] = {}

    async def listen(self, surroundings: Surroundings) -> None:
        """Wake matchers as orders enter their books. psycopg.Error when the connection is lost."""
        connection = await psycopg.AsyncConnection.connect(
            surroundings.dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        )
        async with connection:
            await connection.execute(_LISTEN)
            # What entered before we listened.
            for symbol in await self._store.symbols():
                self._wake(symbol, surroundings)
            async for told in connection.notifies():
                self._wake(told.payload, surroundings)

    def _wake(self, symbol: str, surroundings: Surroundings) -> None:
        wake = self._wakes.get(symbol)
        if wake is None:
            wake = self._wakes[symbol] = asyncio.Event()
            matching = partial(self._match, symbol, wake)
            self._group.create_task(attend(f"matcher of {symbol}", matching, surroundings))
        wake.set()

    async def _match(self, symbol: str, wake: asyncio.Event, _: Surroundings) -> None:
        matcher = BookMatcher(symbol, self._store)
        while True:
            wake.clear()
            came_to = await matcher.round()
            match came_to:
                case Round.MATCHED:
                    pass
                case Round.IDLE:
                    await _woken(wake)
                case Round.OVERTAKEN:
                    _log.info("book_matched_elsewhere", symbol=symbol)
                    await matcher.stand_by()
                case _:
                    assert_never(came_to)


async def _woken(wake: asyncio.Event) -> None:
    """Return when woken, or after a while."""
    try:
        async with asyncio.timeout(LOOK_AGAIN_S):
            await wake.wait()
    except TimeoutError:
        return
