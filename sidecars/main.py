"""A sidecar's process: ``python -m sidecars.main bookkeeper --dsn … --listen … --coordinators …``.

It brings its database up to date, serves until SIGTERM or SIGINT, lets calls under way finish,
and writes one JSON object a line to standard error. ``participant_serving`` says that it is ready.
With ``--check`` it serves nothing, but tells which invariants of its database are broken.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import psycopg
import structlog

import participant_sdk.grpc_core  # noqa: F401  # pyright: ignore[reportUnusedImport]  First: gRPC reads what it sets.
from participant_sdk import collector
from participant_sdk.batching import BATCH_CAP_DEFAULT
from participant_sdk.clock import SystemClock
from participant_sdk.ids import InvalidIdentifierError, check_participant
from participant_sdk.migrations import MigrationError
from participant_sdk.participant import Participant
from participant_sdk.resources.invariants import violations
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.server import serving
from participant_sdk.worker import WORKERS_MAX
from sidecars.bookkeeper import operations as bookkeeper
from sidecars.fiat import operations as fiat
from sidecars.fiat.notifications import notify
from sidecars.fiat.payments import pay
from sidecars.fiat.transfers import read_transfers
from sidecars.http.options import add_options, target_of
from sidecars.http.participant import HttpParticipant
from sidecars.http.planning import INVARIANTS
from sidecars.http.target import InvalidTargetError
from sidecars.settlement import operations as settlement
from sidecars.sidecar import Attendant, Sidecar, Simulator, Surroundings, attend
from sidecars.trading import operations as trading
from sidecars.trading.matcher import match_orders
from sidecars.wallet import broadcasting
from sidecars.wallet import operations as wallet
from sidecars.wallet.settings import URL_VARIABLE

SIDECARS: Final[Mapping[str, Sidecar]] = {
    "bookkeeper": Sidecar(bookkeeper.SERVICE),
    "trading": Sidecar(trading.SERVICE, {"matching": match_orders}),
    "settlement": Sidecar(settlement.SERVICE),
    "fiat": Sidecar(
        fiat.SERVICE,
        {"payments": pay, "transfers": read_transfers, "notifications": notify},
        Simulator("sidecars.simulators.bank", "PINCEX_FIAT_BANK_URL"),
    ),
    "wallet": Sidecar(
        wallet.SERVICE,
        broadcasting.attendants(),
        Simulator("sidecars.simulators.chain", URL_VARIABLE),
    ),
}
# Not one of those above: it is of no use without a service to call.
HTTP: Final = "http"
# With two, each batch is cut in half, and every half pays for a flush and two messages of its own.
WORKERS_DEFAULT: Final = 1
# A batch waits for the slowest answer in it, so one that is slow keeps an eighth of the branches waiting.
HTTP_WORKERS_DEFAULT: Final = 8

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1

_LEVELS: Final = ("debug", "info", "warning", "error")
_log: structlog.stdlib.BoundLogger = structlog.get_logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sidecar until it is told to stop.

    Returns the exit code: 0 then, and 1 if it could not serve, or found something broken.
    """
    options = _parser().parse_args(arguments)
    _log_as_json(options.log_level)
    try:
        with asyncio.Runner(loop_factory=_event_loop()) as runner:
            return runner.run(_check(options) if options.check else _serve(options))
    except (psycopg.Error, MigrationError, InvalidTargetError, OSError) as error:
        _log.error("participant_failed", participant=options.name or options.service, error=str(error))
        return EXIT_FAILED


async def _check(options: argparse.Namespace) -> int:
    invariants = INVARIANTS if options.service == HTTP else SIDECARS[options.service].service.invariants
    broken = await violations(options.dsn, invariants)
    for violation in broken:
        _log.error("invariant_broken", participant=options.name or options.service, violation=violation)
    _log.info("invariants_checked", participant=options.name or options.service, broken=len(broken))
    return EXIT_FAILED if broken else EXIT_OK


async def _serve(options: argparse.Namespace) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    name = options.name or options.service
    surroundings = Surroundings(name, options.dsn, SystemClock(), os.environ)
    workers = options.workers or (HTTP_WORKERS_DEFAULT if options.service == HTTP else WORKERS_DEFAULT)
    async with (
        _open(options, surroundings, workers) as participant,
        serving(
            participant,
            options.listen,
            coordinators=options.coordinators,
            worker_count=workers,
            batch_size=options.batch_size,
        ),
        asyncio.TaskGroup() as attending,
    ):
        attendants = _attendants(options, participant)
        tasks = [attending.create_task(attend(attendant, run, surroundings)) for attendant, run in attendants.items()]
        collector.settle()
        await stopping.wait()
        _log.info("participant_stopping", participant=name)
        for task in tasks:
            task.cancel()
    return EXIT_OK


def _open(
    options: argparse.Namespace, surroundings: Surroundings, workers: int
) -> AbstractAsyncContextManager[Participant]:
    """Open the participant. InvalidTargetError where it has no service to call."""
    name, dsn, clock = surroundings.participant, surroundings.dsn, surroundings.clock
    # One connection for each worker's batch, and one for the questions that come beside them.
    connections = workers + 1
    if options.service == HTTP:
        return HttpParticipant.open(name, target_of(options, os.environ), dsn, clock, connections=connections)
    return ReservationResource.open(name, SIDECARS[options.service].service, dsn, clock, connections=connections)


def _attendants(options: argparse.Namespace, participant: Participant) -> Mapping[str, Attendant]:
    if isinstance(participant, HttpParticipant):
        return {"courier": participant.attend}
    return SIDECARS[options.service].attendants


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - it does not install everywhere
    except ImportError:
        return None
    return uvloop.new_event_loop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sidecars.main", description="Serve a participant.")
    parser.add_argument("service", choices=(*SIDECARS, HTTP), help="what to serve")
    parser.add_argument(
        "--name", type=_participant, help="the participant's configured name; the service's, if not given"
    )
    parser.add_argument("--dsn", required=True, help="its PostgreSQL database")
    does = parser.add_mutually_exclusive_group(required=True)
    does.add_argument("--listen", help="host:port, port 0 for any")
    does.add_argument("--check", action="store_true", help="only tell what is broken, and exit with 1 if anything is")
    parser.add_argument("--coordinators", type=_addresses, default=(), help="whom to ask when in doubt: host:port,…")
    parser.add_argument("--workers", type=_number(WORKERS_MAX), help="batches at once")
    parser.add_argument(
        "--batch-size", type=_number(10_000), default=BATCH_CAP_DEFAULT, help="branches in a batch, at most"
    )
    parser.add_argument("--log-level", choices=_LEVELS, default="info")
    add_options(parser)
    return parser


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(address.strip() for address in text.split(",") if address.strip())


def _participant(text: str) -> str:
    try:
        return check_participant(text)
    except InvalidIdentifierError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class _number:  # noqa: N801 - argparse shows it in messages, and calls it like a function
    """A whole number from 1 to ``limit``, for argparse."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def __call__(self, text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= self._limit:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {self._limit}")
        return int(text)


def _log_as_json(level: str) -> None:
    """Send structlog's events, and what libraries log, to standard error as JSON."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    ending: list[structlog.typing.Processor] = [
        structlog.processors.EventRenamer("message"),
        structlog.processors.JSONRenderer(default=str),
    ]
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    logging.basicConfig(level=number, handlers=[handler], force=True)
    # It tells of every request, and asking a node is as ordinary as asking the database.
    logging.getLogger("httpx").setLevel(max(number, logging.WARNING))


if __name__ == "__main__":
    sys.exit(main())
