"""What came in at the bank, read into ``fiat.bank_transfers``: a deposit is recorded only if the bank told of it."""

from __future__ import annotations

import asyncio
import json
from typing import Final

import psycopg
import structlog

from sidecars.fiat.bank import Bank, TransferPage
from sidecars.fiat.outbox import CONNECT_TIMEOUT_S, idle
from sidecars.fiat.settings import bank_settings
from sidecars.fiat.statements import statement
from sidecars.sidecar import Surroundings

# How long a bank that can wait for a transfer does so, and how soon one that cannot is asked again.
WAIT_S: Final = 20.0
PAUSE_S: Final = 1.0
# What is kept of a line that cannot be read, which is its own key: an index holds no more than 2,704 bytes of it.
TOLD_MAX_CHARS: Final = 2_000

_KEEP: Final = statement("keep_transfers")
_CURSOR: Final = "select cursor from fiat.bank_cursor"

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def read_transfers(surroundings: Surroundings) -> None:
    """Read the bank's list on and on, until cancelled. An attendant of fiat; UnclearError ends it, to be run again."""
    settings = bank_settings(surroundings.environment)
    if settings is None:
        await idle()
        return
    async with (
        await psycopg.AsyncConnection.connect(
            surroundings.dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S
        ) as connection,
        Bank.open(settings) as bank,
    ):
        while True:
            row = await (await connection.execute(_CURSOR)).fetchone()
            began_s = surroundings.clock.monotonic_s()
            after = "" if row is None else row[0]
            page = await bank.transfers(after, WAIT_S)
            await _keep(connection, page, surroundings.participant)
            # A bank that goes on nowhere would be asked, and would tell the same, without end.
            is_last = page.following == after or not (page.transfers or page.unusable)
            if is_last and surroundings.clock.monotonic_s() - began_s < PAUSE_S:
                await asyncio.sleep(PAUSE_S)


async def _keep(connection: psycopg.AsyncConnection, page: TransferPage, participant: str) -> None:
    found = {
        "transfers": "[" + ",".join(each.model_dump_json() for each in page.transfers) + "]",
        "unusable": [json.dumps(each.told)[:TOLD_MAX_CHARS] for each in page.unusable],
        "reasons": [each.why for each in page.unusable],
        "following": page.following,
    }
    for told, why in await (await connection.execute(_KEEP, found)).fetchall():
        _log.error("bank_doubted", participant=participant, told=told, why=why)
