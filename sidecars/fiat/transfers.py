"""What came in at the bank, read into ``fiat.bank_transfers``: a deposit is recorded only if the bank told of it."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Final

import psycopg
import structlog

from participant_sdk.backoff import Backoff
from sidecars.fiat.bank import Bank, TransferPage, UnclearError
from sidecars.fiat.outbox import CONNECT_TIMEOUT_S, idle
from sidecars.fiat.settings import bank_settings
from sidecars.fiat.statements import statement
from sidecars.sidecar import Surroundings

# How long a bank that can wait for a transfer does so, and how soon one that cannot is asked again.
WAIT_S: Final = 20.0
PAUSE_S: Final = 1.0
# How soon one that did not answer is asked again: later each time that it does not.
PAUSE_FIRST_S: Final = 0.2
PAUSE_LONGEST_S: Final = 10.0
# What is kept of a line that cannot be read, which is its own key: an index holds no more than 2,704 bytes of it.
TOLD_MAX_CHARS: Final = 2_000

_KEEP: Final = statement("keep_transfers")
_CURSOR: Final = "select cursor from fiat.bank_cursor"

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def read_transfers(surroundings: Surroundings) -> None:
    """Read the bank's list on and on, until cancelled. An attendant of fiat."""
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
            page = await _told(bank, after, surroundings.participant)
            await _keep(connection, page, surroundings.participant)
            # A bank that goes on nowhere would be asked, and would tell the same, without end.
            is_last = page.following == after or not (page.transfers or page.unusable)
            if is_last and surroundings.clock.monotonic_s() - began_s < PAUSE_S:
                await asyncio.sleep(PAUSE_S)


async def _told(bank: Bank, after: str, participant: str) -> TransferPage:
    """Ask for what came after a cursor until the bank tells it."""
    # Anew for each page: a bank that answers now and then is not asked more seldom for that.
    backoff = Backoff(random.Random(), first_s=PAUSE_FIRST_S, cap_s=PAUSE_LONGEST_S)  # noqa: S311 - it spreads retries
    while True:
        try:
            return await bank.transfers(after, WAIT_S)
        except UnclearError as error:
            _log.warning("bank_list_unclear", participant=participant, error=str(error))
        await backoff.wait()


async def _keep(connection: psycopg.AsyncConnection, page: TransferPage, participant: str) -> None:
    found = {
        "transfers": "[" + ",".join(each.model_dump_json() for each in page.transfers) + "]",
        "unusable": [json.dumps(each.told)[:TOLD_MAX_CHARS] for each in page.unusable],
        "reasons": [each.why for each in page.unusable],
        "following": page.following,
    }
    for told, why in await (await connection.execute(_KEEP, found)).fetchall():
        _log.error("bank_doubted", participant=participant, told=told, why=why)
