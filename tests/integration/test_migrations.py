"""Numbered migrations: once each, in order, in turns, and never changed afterwards."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from coordinator.log.postgres import migrate_log
from participant_sdk.migrations import MigrationError, load, migrate

ACCOUNTS = "CREATE TABLE accounts (account_id bigint PRIMARY KEY);"
HOLDS = "CREATE TABLE holds (account_id bigint REFERENCES accounts);\nINSERT INTO accounts VALUES (1);"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "0001_accounts.sql").write_text(ACCOUNTS)
    (tmp_path / "0002_holds.sql").write_text(HOLDS)
    (tmp_path / "README.md").write_text("Other files are left alone.")
    return tmp_path


async def ask(dsn: str, query: bytes) -> list[tuple[object, ...]]:
    connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
    async with connection:
        return await (await connection.execute(query)).fetchall()


async def test_files_are_applied_once_in_order_and_recorded(database: str, directory: Path) -> None:
    assert await migrate(database, directory, "shop") == ["0001_accounts.sql", "0002_holds.sql"]
    assert await migrate(database, directory, "shop") == []
    (directory / "0003_more.sql").write_text("INSERT INTO shop.accounts VALUES (2)")
    assert await migrate(database, directory, "shop") == ["0003_more.sql"]
    assert await ask(database, b"SELECT account_id FROM shop.accounts ORDER BY 1") == [(1,), (2,)]
    recorded = await ask(database, b"SELECT number, name FROM shop.migrations ORDER BY 1")
    assert recorded == [(1, "0001_accounts.sql"), (2, "0002_holds.sql"), (3, "0003_more.sql")]


async def test_those_who_start_together_take_turns(database: str, directory: Path) -> None:
    applied = await asyncio.gather(*(migrate(database, directory, "shop") for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, 2]


async def test_schemas_have_their_own_migrations(database: str, directory: Path) -> None:
    await migrate(database, directory, "one")
    assert len(await migrate(database, directory, "two")) == 2


async def test_a_failing_file_leaves_nothing_of_itself(database: str, directory: Path) -> None:
    bad = directory / "0002_holds.sql"
    bad.write_text("CREATE TABLE holds (); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match=r"0002_holds\.sql.*division by zero"):
        await migrate(database, directory, "shop")
    bad.write_text(HOLDS)
    assert await migrate(database, directory, "shop") == ["0002_holds.sql"]


async def test_a_file_changed_after_it_was_applied_is_refused(database: str, directory: Path) -> None:
    await migrate(database, directory, "shop")
    (directory / "0001_accounts.sql").write_text(ACCOUNTS + "-- A later thought.")
    with pytest.raises(MigrationError, match=r"0001_accounts\.sql: it was changed"):
        await migrate(database, directory, "shop")


async def test_old_code_accepts_a_newer_schema(database: str, directory: Path) -> None:
    await migrate(database, directory, "shop")
    (directory / "0002_holds.sql").unlink()
    assert await migrate(database, directory, "shop") == []


@pytest.mark.parametrize("strange", ["0003_gap.sql", "0001_twice.sql", "2_short.sql", "0002-dash.sql"])
def test_a_strange_number_or_name_is_refused(tmp_path: Path, strange: str) -> None:
    (tmp_path / "0001_first.sql").write_text("SELECT 1")
    (tmp_path / strange).write_text("SELECT 1")
    with pytest.raises(MigrationError, match="the migration expected here is"):
        load(tmp_path)


async def test_a_role_that_may_create_nothing_finds_the_schema_up_to_date(database: str, directory: Path) -> None:
    """The right to create belongs to whoever migrates; services run without it."""
    await migrate(database, directory, "shop")
    role = f"reader_{secrets.token_hex(4)}"
    make = f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA shop TO {role}; GRANT SELECT ON shop.migrations TO {role}"
    await run(database, f"{make}; ALTER ROLE {role} LOGIN PASSWORD '{role}'")
    try:
        as_role = make_conninfo(database, user=role, password=role)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await run(as_role, "CREATE SCHEMA IF NOT EXISTS shop")
        assert await migrate(as_role, directory, "shop") == []
    finally:
        await run(database, f"DROP OWNED BY {role}; DROP ROLE {role}")


async def run(dsn: str, statements: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(statements.encode())


async def test_the_decision_logs_migrations_apply(database: str) -> None:
    assert await migrate_log(database)
    assert not await migrate_log(database)
