"""A bank on XA as a process: ``python -m tests.benchmarks.xa_bank --name … --dsn … --listen …``.

It serves a bookkeeper's debits and credits as plain SQL, each branch a prepared transaction.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Final

import uvloop

import participant_sdk.grpc_core  # noqa: F401  # pyright: ignore[reportUnusedImport]  First: gRPC reads what it sets.
from participant_sdk import collector
from participant_sdk.resources.postgres_operations import Statement
from participant_sdk.resources.postgres_xa import PostgresXaResource
from participant_sdk.server import serving

_OF: Final = "where user_id = %(user_id)s and currency = %(currency)s"
OPERATIONS: Final = {
    "debit_account": Statement(f"update accounts set balance = balance - %(amount)s::bigint {_OF}"),
    "credit_account": Statement(f"update accounts set balance = balance + %(amount)s::bigint {_OF}"),
}


async def _serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with (
        PostgresXaResource.open(options.name, options.dsn, OPERATIONS) as bank,
        serving(bank, options.listen, coordinators=(options.coordinators,), worker_count=options.workers),
    ):
        collector.settle()
        await stopping.wait()


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.xa_bank")
    for name in ("--name", "--dsn", "--listen", "--coordinators"):
        parser.add_argument(name, required=True)
    parser.add_argument("--workers", type=int, default=2)
    uvloop.run(_serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
