"""Schema migrations: plain numbered ``.sql`` files, forward only.

A directory holds ``0001_name.sql``, ``0002_name.sql`` and so on, without gaps. Each file is
applied once, in a transaction of its own, and recorded in the schema's table ``migrations``.
Processes that start together take turns by an advisory lock. A database that knows more
migrations than the directory is fine: old code must run on a new schema.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Final

import psycopg
from psycopg import sql

CONNECT_TIMEOUT_S: Final = 10

_FILE: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


class MigrationError(Exception):
    """The directory and the database disagree, or a file does not apply. The message names the file."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    name: str
    text: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the file, by which a later change to it is noticed."""
        return hashlib.sha256(self.text).hexdigest()


def load(directory: Traversable) -> list[Migration]:
    """Read a directory's migrations in order. MigrationError for a gap, a double number or a strange name."""
    files = sorted((entry for entry in directory.iterdir() if entry.name.endswith(".sql")), key=lambda e: e.name)
    migrations: list[Migration] = []
    for expected, entry in enumerate(files, 1):
        match = _FILE.fullmatch(entry.name)
        if match is None or int(match[1]) != expected:
            raise MigrationError(f"{entry.name}: the migration expected here is {expected:04d}_<name>.sql")
        migrations.append(Migration(expected, entry.name, entry.read_bytes()))
    return migrations


async def migrate(dsn: str, directory: Traversable, schema: str) -> list[str]:
    """Bring a schema up to date, creating it where there is none; return the names of the files applied now.

    Where all are applied, the role needs to read the schema's table ``migrations``, and may create nothing.
    The files run with ``search_path`` set to the schema. MigrationError when one fails (those
    before it stay applied) or when an applied one was changed since; psycopg.OperationalError when
    the database cannot be reached.
    """
    migrations = load(directory)
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S)
    async with connection:
        await connection.execute("SET synchronous_commit = on")
        await connection.execute("SET client_min_messages = warning")
        await connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"pincex migrations of {schema}"])
        applied = await _applied(connection, schema)
        todo = [migration for migration in migrations if not _is_applied(migration, applied)]
        for migration in todo:
            await _apply(connection, schema, migration)
    return [migration.name for migration in todo]


async def _applied(connection: psycopg.AsyncConnection, schema: str) -> dict[int, str]:
    """The digests of the schema's applied migrations, by number."""
    name = sql.Identifier(schema)
    # Looked for first: IF NOT EXISTS wants the right to create even where there is nothing to do.
    if not await _exists(connection, b"SELECT to_regnamespace(%s) IS NOT NULL", name):
        await connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    table = sql.Identifier(schema, "migrations")
    if not await _exists(connection, b"SELECT to_regclass(%s) IS NOT NULL", table):
        await connection.execute(
            sql.SQL(
                "CREATE TABLE {} (number integer PRIMARY KEY, name text NOT NULL,"
                " digest text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
            ).format(table)
        )
    cursor = await connection.execute(sql.SQL("SELECT number, digest FROM {}.migrations").format(name))
    return dict(await cursor.fetchall())


async def _exists(connection: psycopg.AsyncConnection, question: bytes, name: sql.Identifier) -> bool:
    row = await (await connection.execute(question, [name.as_string()])).fetchone()
    return row is not None and bool(row[0])


def _is_applied(migration: Migration, applied: dict[int, str]) -> bool:
    digest = applied.get(migration.number)
    if digest is not None and digest != migration.digest:
        raise MigrationError(f"{migration.name}: it was changed after it was applied; write a new migration instead")
    return digest is not None


async def _apply(connection: psycopg.AsyncConnection, schema: str, migration: Migration) -> None:
    name = sql.Identifier(schema)
    try:
        async with connection.transaction():
            await connection.execute(sql.SQL("SET LOCAL search_path TO {}, public").format(name))
            await connection.execute(migration.text)
            await connection.execute(
                sql.SQL("INSERT INTO {}.migrations (number, name, digest) VALUES (%s, %s, %s)").format(name),
                [migration.number, migration.name, migration.digest],
            )
    except psycopg.errors.Error as error:
        if error.sqlstate is None:
            raise
        raise MigrationError(f"{migration.name}: {error}") from error
