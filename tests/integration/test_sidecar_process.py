"""A sidecar as a process: it says when it is ready, stops when told to, and finds what is broken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

import psycopg
import pytest

from sidecars.main import SIDECARS
from tests.counting import counted


async def start(*arguments: str) -> Process:
    command = (sys.executable, "-m", "sidecars.main", *arguments)
    return await asyncio.create_subprocess_exec(*command, stderr=PIPE, env={**os.environ, **counted()})


async def events(process: Process) -> list[dict[str, Any]]:
    _, errors = await process.communicate()
    return [json.loads(line) for line in errors.splitlines()]


@pytest.mark.parametrize("service", SIDECARS)
async def test_a_sidecar_serves_until_it_is_told_to_stop(database: str, service: str) -> None:
    process = await start(service, "--name", "books-2", "--dsn", database, "--listen", "127.0.0.1:0")
    assert process.stderr is not None
    ready = json.loads(await process.stderr.readline())
    assert (ready["message"], ready["participant"], ready["level"]) == ("participant_serving", "books-2", "info")
    _, writer = await asyncio.open_connection("127.0.0.1", ready["port"])
    writer.close()
    process.send_signal(signal.SIGTERM)
    told = [event["message"] for event in await events(process)]
    assert [message for message in told if not message.endswith("_not_configured")] == ["participant_stopping"]
    assert process.returncode == 0
    again = await start(service, "--dsn", database, "--check")
    assert [event["broken"] for event in await events(again)] == [0]
    assert again.returncode == 0


async def test_what_is_broken_is_told(database: str) -> None:
    process = await start("bookkeeper", "--dsn", database, "--listen", "127.0.0.1:0")
    assert process.stderr is not None
    await process.stderr.readline()
    process.terminate()
    await process.wait()
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await connection.execute(
            "insert into bookkeeper.accounts (user_id, currency, balance) values ('u', 'USD', 5), ('v', 'EUR', 0)"
        )
    check = await start("bookkeeper", "--dsn", database, "--check")
    told = [event["violation"].partition(":")[0] for event in await events(check) if "violation" in event]
    assert sorted(told) == ["BALANCE_NOT_JOURNAL", "MONEY_NOT_CONSERVED"]
    assert check.returncode == 1


async def test_a_database_that_is_not_there_is_told_and_ends_it() -> None:
    process = await start("trading", "--dsn", "host=127.0.0.1 port=1 dbname=x", "--listen", "127.0.0.1:0")
    assert [event["message"] for event in await events(process)] == ["participant_failed"]
    assert process.returncode == 1
