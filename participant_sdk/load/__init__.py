"""The load generator: workloads, a closed and an open loop that run them, and what came of it.

    async with TransactionClient(addresses) as client, client.stream(in_flight=64) as stream:
        report = await ClosedLoop(stream.execute, iter(Transfers("a", "b", accounts=1000)), 64).run(10, 1)

As a program, so that it has a process of its own: ``python -m participant_sdk.load --help``.
"""

from participant_sdk import grpc_core  # noqa: F401  # pyright: ignore[reportUnusedImport]  First: gRPC reads what it sets.
from participant_sdk.load.closed_loop import ClosedLoop
from participant_sdk.load.empty import Empty
from participant_sdk.load.mixed import Mixed
from participant_sdk.load.open_loop import OpenLoop
from participant_sdk.load.order import InvalidOrderError, Order
from participant_sdk.load.report import OpenReport, Report
from participant_sdk.load.smallbank import SmallBank
from participant_sdk.load.tally import Execute
from participant_sdk.load.transfers import Operations, SplitTransfers, Transfers

__all__ = [
    "ClosedLoop",
    "Empty",
    "Execute",
    "InvalidOrderError",
    "Mixed",
    "OpenLoop",
    "OpenReport",
    "Operations",
    "Order",
    "Report",
    "SmallBank",
    "SplitTransfers",
    "Transfers",
]
