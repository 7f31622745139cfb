"""The load generator as a program: ``python -m participant_sdk.load --help``.

It writes its report to standard output as one line of JSON; with ``--progress`` a line
``{"progress": …}`` each second before it; with ``--follow-money`` the report has ``inflow_least`` and
``inflow_most`` too, decimals. SIGINT ends the load early, with a report of what was.

Exit codes: 0 done; 1 an open loop's report is not to be trusted, as it says; 2 bad usage, or the
coordinator refuses what is sent; 4 no coordinator answers.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import asdict
from typing import Final

import uvloop

from participant_sdk.client_errors import ClientError, UnavailableError
from participant_sdk.load.closed_loop import ClosedLoop
from participant_sdk.load.open_loop import OpenLoop
from participant_sdk.load.options import Options, read_options
from participant_sdk.load.report import OpenReport, Report

EXIT_OK: Final = 0
EXIT_UNTRUSTWORTHY: Final = 1
EXIT_BAD_REQUEST: Final = 2
EXIT_UNAVAILABLE: Final = 4
PROGRESS_EVERY_S: Final = 1.0


def main() -> int:
    """Run one load and write its report; return the exit code."""
    options = read_options()
    ended = _load(options)
    if isinstance(ended, ClientError):
        sys.stderr.write(f"{ended.reason}: {ended}\n")
        return EXIT_UNAVAILABLE if isinstance(ended, UnavailableError) else EXIT_BAD_REQUEST
    report, money = ended
    _write(asdict(report) | money)
    if isinstance(report, OpenReport) and not report.trustworthy:
        sys.stderr.write(f"the latencies are not true: {report.distrust}\n")
        return EXIT_UNTRUSTWORTHY
    return EXIT_OK


def _load(options: Options) -> tuple[Report, dict[str, str]] | ClientError:
    """The load's report, or why it could not go on: the first of the errors, as all callers meet the same one."""
    failed: ClientError | None = None
    try:
        return uvloop.run(_run(options))
    except* ClientError as errors:
        failed = _first(errors)
    return failed


async def _run(options: Options) -> tuple[Report, dict[str, str]]:
    order = options.order
    async with order.connected() as ready, asyncio.TaskGroup() as group:
        loop = ready.loop
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, loop.stop)
        telling = group.create_task(_tell(loop)) if options.progress else None
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


if __name__ == "__main__":
    sys.exit(main())
