"""The load generator as a program: ``python -m participant_sdk.load --help``.

It writes its report to standard output as one line of JSON; with ``--progress`` a line
``{"progress": …}`` each second before it; with ``--follow-money`` the report has ``inflow_least`` and
``inflow_most`` too, decimals. SIGINT ends the load early, with a report of what was.

Exit codes: 0 done; 1 an open loop's report is not to be trusted, as it says; 2 bad usage, or the
coordinator refuses what is sent; 4 no coordinator answers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from dataclasses import asdict
from typing import Final

import uvloop

from participant_sdk.client_errors import ClientError, UnavailableError
from participant_sdk.client_results import Wait
from participant_sdk.load.closed_loop import ClosedLoop
from participant_sdk.load.open_loop import OpenLoop
from participant_sdk.load.order import TRANSFER, WORKLOADS, InvalidOrderError, Order
from participant_sdk.load.report import OpenReport, Report

EXIT_OK: Final = 0
EXIT_UNTRUSTWORTHY: Final = 1
EXIT_BAD_REQUEST: Final = 2
EXIT_UNAVAILABLE: Final = 4
PROGRESS_EVERY_S: Final = 1.0


def main() -> int:
    """Run one load and write its report; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        order = _order(arguments)
    except InvalidOrderError as error:
        parser.error(str(error))
    ended = _load(order, progress=arguments.progress)
    if isinstance(ended, ClientError):
        sys.stderr.write(f"{ended}\n")
        return EXIT_UNAVAILABLE if isinstance(ended, UnavailableError) else EXIT_BAD_REQUEST
    report, money = ended
    _write(asdict(report) | money)
    if isinstance(report, OpenReport) and not report.trustworthy:
        sys.stderr.write(f"the latencies are not true: {report.distrust}\n")
        return EXIT_UNTRUSTWORTHY
    return EXIT_OK


def _load(order: Order, *, progress: bool) -> tuple[Report, dict[str, str]] | ClientError:
    """The load's report, or why it could not go on: the first of the errors, as all callers meet the same one."""
    failed: ClientError | None = None
    try:
        return uvloop.run(_run(order, progress=progress))
    except* ClientError as errors:
        failed = _first(errors)
    return failed


async def _run(order: Order, *, progress: bool) -> tuple[Report, dict[str, str]]:
    async with order.connected() as ready, asyncio.TaskGroup() as group:
        loop = ready.loop
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, loop.stop)
        telling = group.create_task(_tell(loop)) if progress else None
        report = await loop.run(order.seconds, order.warm_up_s)
        if telling is not None:
            telling.cancel()
        if ready.inflow is None:
            return report, {}
        return report, {"inflow_least": str(ready.inflow.least), "inflow_most": str(ready.inflow.most)}


async def _tell(loop: ClosedLoop | OpenLoop) -> None:
    while True:
        await asyncio.sleep(PROGRESS_EVERY_S)
        _write({"progress": asdict(loop.progress())})


def _write(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _first(errors: BaseExceptionGroup[ClientError]) -> ClientError:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def _order(arguments: argparse.Namespace) -> Order:
    named = arguments.participants.split(",") if arguments.participants else ()
    return Order(
        coordinators=tuple(arguments.coordinators.split(",")),
        workload=arguments.workload,
        participants=tuple(named or dict.fromkeys((arguments.debited, arguments.credited))),
        accounts=arguments.accounts,
        hot_spot=arguments.hot_spot,
        currency=arguments.currency,
        rate_per_s=arguments.rate,
        in_flight=arguments.in_flight,
        seconds=arguments.seconds,
        warm_up_s=arguments.warm_up,
        wait=Wait.DECIDED if arguments.decided else Wait.APPLIED,
        unary=arguments.unary,
        follow_money=arguments.follow_money,
        seed=arguments.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m participant_sdk.load", description="Load coordinators.")
    parser.add_argument("--coordinators", required=True, help="host:port of one or more, separated by commas")
    parser.add_argument("--workload", default=TRANSFER, help=f"one of {', '.join(WORKLOADS)}")
    parser.add_argument("--participants", default="", help="the bookkeepers, separated by commas; the first one pays")
    parser.add_argument("--debited", default="bookkeeper", help="the participant whose accounts are debited, of two")
    parser.add_argument("--credited", default="bookkeeper", help="the participant whose accounts are credited, of two")
    parser.add_argument("--accounts", type=int, required=True, help="so many at each participant; customers, in all")
    parser.add_argument("--hot-spot", type=int, default=0, help="customers that are picked nine times of ten")
    parser.add_argument("--currency", default="USD", help="of the accounts")
    parser.add_argument("--rate", type=float, default=0.0, help="an open loop: so many a second, at random moments")
    parser.add_argument(
        "--in-flight", "--concurrency", type=int, default=0, help="callers of a closed loop; the cap of an open one"
    )
    parser.add_argument("--seconds", "--duration", type=float, default=10.0)
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds")
    parser.add_argument("--decided", action="store_true", help="answers as soon as the decision is durable")
    parser.add_argument("--unary", action="store_true", help="Execute calls instead of one ExecuteStream")
    parser.add_argument("--follow-money", action="store_true", help="tells what came into the ledgers, too")
    parser.add_argument("--progress", action="store_true", help="a line each second")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
