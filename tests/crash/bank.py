"""A participant on XA: a service of its own whose effects are rows, one for each branch that took effect."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence
from typing import Final

import psycopg

from participant_sdk.resources.postgres_operations import Statement
from participant_sdk.resources.postgres_xa import PostgresXaResource
from participant_sdk.server import serving

NAME: Final = "bank"
_TABLE: Final = "create table if not exists credits (request text not null, amount numeric not null, xid uuid not null)"
_CREDIT: Final = (
    "insert into credits (request, amount, xid)"
    " values (%(request)s, %(amount)s::numeric, current_setting('pincex.branch')::uuid)"
)
# One that returns something goes to the server step by step, and keeps its result first.
_TOLD: Final = f"{_CREDIT} returning request"
OPERATIONS: Final = {"credit": Statement(_CREDIT), "credit_told": Statement(_TOLD, returns=True)}


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="tests.crash.bank")
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--coordinators", default="")
    options = parser.parse_args(arguments)
    coordinators = [address for address in options.coordinators.split(",") if address]
    asyncio.run(_serve(options.dsn, options.listen, coordinators))
    return 0


async def _serve(dsn: str, listen: str, coordinators: Sequence[str]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(_TABLE.encode())
    async with (
        PostgresXaResource.open(NAME, dsn, OPERATIONS) as resource,
        serving(resource, listen, coordinators=coordinators, worker_count=1),
    ):
        await stopping.wait()
