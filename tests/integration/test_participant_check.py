"""``pincex participant check``: what is broken in a participant's database, and the exit codes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner, Result

from coordinator.cli import make_app
from tests.conftest import MakeDatabase
from tests.integration.participations import participating


async def check(*arguments: str) -> Result:
    """Run the command: in a thread of its own, since it has a loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, make_app(), ["participant", "check", *arguments])


@pytest.mark.parametrize("name", ["bookkeeper", "settlement"])
async def test_a_sound_database_ends_with_0_and_a_broken_one_with_1(database: str, name: str) -> None:
    async with participating(database, name):
        pass
    sound = await check(name, "--dsn", database)
    assert (sound.exit_code, sound.stdout) == (0, f"every invariant of {name} holds\n")
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute(
            "insert into pincex.branches (log, branch, xid, phase, vote) values (1, 7, gen_random_uuid(), 3, 1)"
        )
    broken = await check(name, "--dsn", database)
    assert broken.exit_code == 1
    assert broken.stdout.startswith("broken: BRANCH_WITHOUT_")
    told = json.loads((await check(name, "--dsn", database, "--json")).stdout)
    assert (told["participant"], told["holds"], len(told["violations"])) == (name, False, 1)


async def test_the_database_may_come_by_the_environment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with participating(database, "settlement"):
        pass
    monkeypatch.setenv("PINCEX_PARTICIPANT_DSN", database)
    assert (await check("settlement")).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "named"),
    [
        (("bank", "--dsn", "host=127.0.0.1 port=1"), 2, "invalid choice: 'bank'"),
        (("bookkeeper", "--dsn", "nonsense"), 2, "--dsn: "),
        (
            ("bookkeeper", "--data", "/nowhere"),
            2,
            "--dsn: required, as no development system keeps its data in /nowhere",
        ),
        (("bookkeeper", "--dsn", "host=127.0.0.1 port=1 dbname=x"), 4, "could not be checked: connection failed"),
        ((), 2, "Missing argument 'name'"),
    ],
)
async def test_what_keeps_it_from_checking_is_told(arguments: tuple[str, ...], exit_code: int, named: str) -> None:
    told = await check(*arguments)
    assert (told.exit_code, named in " ".join(told.output.split())) == (exit_code, True), told.output
    if arguments:
        told = await check(*arguments, "--json")
        assert (told.exit_code, named in json.loads(told.stdout)["error"]) == (exit_code, True)


async def test_a_database_that_is_another_s_is_told_and_no_password(databases: MakeDatabase, tmp_path: Path) -> None:
    told = await check("bookkeeper", "--dsn", await databases("empty"))
    assert told.exit_code == 4
    assert 'relation "bookkeeper.accounts" does not exist' in " ".join(told.stderr.split())
    assert "postgres:" not in told.stderr
    assert "password" not in told.stderr
