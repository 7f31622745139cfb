"""A participant's process for the kit to kill: KIND, ``--dsn``, ``--listen``.

The bookkeeper, trading and the bank on XA as they ship, but asking sooner when in doubt. The bank also
works under an xid when told so on ``--work``, a port that takes lines: log id, xid, number, milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid
from participant_sdk.participant import Participant
from participant_sdk.resources.postgres_operations import Statement
from participant_sdk.resources.postgres_xa import PostgresXaResource
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.server import serving
from sidecars.main import SIDECARS
from tests.conformance.hosts import NAME, PATIENCE_S
from tests.contract.branch_subjects import BANK_OPERATIONS

_SLOWLY: Final = """
with slept as materialized (select pg_sleep(0.4))
update accounts set balance = balance + %(amount)s from slept where name = %(account)s
"""
_CREDIT: Final = "update accounts set balance = balance + 1 where name = 'alice'"


async def serve(kind: str, dsn: str, listen: str, work: int) -> None:
    """Serve until killed."""
    async with AsyncExitStack() as stack:
        participant: Participant
        if kind == NAME:
            operations = {**BANK_OPERATIONS, "slow_credit": Statement(_SLOWLY)}
            bank = await stack.enter_async_context(PostgresXaResource.open(NAME, dsn, operations))
            doing = await asyncio.start_server(_Worker(bank).serve, "127.0.0.1", work)
            await stack.enter_async_context(doing)
            participant = bank
        else:
            opened = ReservationResource.open(kind, SIDECARS[kind].service, dsn, SystemClock())
            participant = await stack.enter_async_context(opened)
        await stack.enter_async_context(serving(participant, listen, patience_s=PATIENCE_S))
        await asyncio.Event().wait()


class _Worker:
    """The bank's own door: whoever writes a line has it work under that branch."""

    def __init__(self, bank: PostgresXaResource) -> None:
        self._bank = bank

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what the line says, and say so."""
        log_id, xid, number, remaining_ms = (await reader.readline()).decode().split()
        work = await self._bank.enlist(log_id, Xid.parse(xid), int(number), int(remaining_ms) / 1000)
        async with work.operation() as connection:
            await connection.execute(_CREDIT)
        writer.write(b"done\n")
        await writer.drain()
        writer.close()


def main(arguments: Sequence[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="tests.conformance.sidecar")
    parser.add_argument("kind", choices=(NAME, *SIDECARS))
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--work", type=int, default=0)
    options = parser.parse_args(arguments)
    asyncio.run(serve(options.kind, options.dsn, options.listen, options.work))
    return 0
