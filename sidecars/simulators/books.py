"""A simulator's books: one SQLite file, forced to disk at every commit, so that a kill -9 loses nothing it told.

SQLite works in the caller's thread. A simulator answers one call at a time, so nobody is kept waiting by that
but its own callers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path


class Books:
    """The tables that ``schema`` makes where they are missing, in ``folder``; and what must be true of them."""

    def __init__(self, folder: Path, schema: Traversable, invariants: Traversable) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._invariants = invariants.read_text()
        self._connection = sqlite3.connect(folder / "books.sqlite", isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.execute("pragma foreign_keys = on")
        self._connection.executescript(schema.read_text())

    @contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Do what is in the block wholly and durably, or not at all."""
        self._connection.execute("begin immediate")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("rollback")
            raise
        self._connection.execute("commit")

    def read(self, query: str, *parameters: object) -> list[sqlite3.Row]:
        """The rows of one statement that changes nothing."""
        return self._connection.execute(query, parameters).fetchall()

    def violations(self) -> list[str]:
        """What is broken: the invariants return a row for each, with its name and its details; none is sound."""
        return [f"{name}: {detail}" for name, detail in self._connection.execute(self._invariants)]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
