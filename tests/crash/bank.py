"""A participant on XA: a service of its own whose effects are rows, one for each branch that took effect."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Final

import psycopg

from participant_sdk.resources.postgres_lane import Connection
from participant_sdk.resources.postgres_operations import Parameters, Statement, XaOperation
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


async def _raise(_connection: Connection, _parameters: Parameters) -> str:
    raise RuntimeError("a service's own mistake")


async def _return_what_nobody_keeps(connection: Connection, _parameters: Parameters) -> str:
    await connection.execute("select pg_current_xact_id()")
    return '"\0"'


# The poisonous ones are told apart by how they spoil a batch.
POISON: Final[Mapping[str, XaOperation]] = {
    "raises": _raise,
    "fails": Statement("select 1 / 0"),
    "cannot_be_kept": _return_what_nobody_keeps,
    "ends_the_transaction": Statement("commit"),
    "kills_its_session": Statement("select pg_terminate_backend(pg_backend_pid())"),
}
OPERATIONS: Final[Mapping[str, XaOperation]] = {
    "credit": Statement(_CREDIT),
    "credit_told": Statement(_TOLD, returns=True),
    **POISON,
}


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
