"""The coordinator's process: its composition root, its start and its end.

Start: listen, so that nothing else takes the ports and probes are answered; open the log, for
as long as that takes; draw an incarnation; wire the parts; let calls in. Stop, at SIGTERM or
SIGINT: take nothing new, finish what is in flight up to a bound, then go. An incarnation that
may write no more ends the process at once: its successor draws a new one.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections.abc import Coroutine, Mapping, Sequence
from enum import IntEnum
from random import Random
from typing import Any, Final

import psycopg

from coordinator.admission import Limits
from coordinator.api.gate import Gate
from coordinator.api.grpc_lock import LockService
from coordinator.api.grpc_recovery import RecoveryService
from coordinator.api.grpc_server import CannotListenError, GrpcDoor
from coordinator.api.grpc_transaction import TransactionService
from coordinator.api.grpc_workflow import WorkflowService
from coordinator.api.http_app import HttpRoutes, make_app
from coordinator.api.http_server import HttpDoor
from coordinator.assembly import Assembly, Settings, assemble
from coordinator.config import Config
from coordinator.config_values import MEMORY_STORE
from coordinator.health import Health, ParticipantHealth
from coordinator.locks.epochs import Epochs
from coordinator.locks.lock_store import LockStore
from coordinator.locks.lock_table import LockTable
from coordinator.locks.locks import LockSettings
from coordinator.locks.memory import MemoryLockStore
from coordinator.locks.redis_address import parse_address
from coordinator.locks.redis_connection import RedisConnection
from coordinator.locks.redis_store import RedisLockStore
from coordinator.log.decision_log import (
    BACKOFF_CAP_S,
    BACKOFF_FIRST_S,
    Appended,
    BadRecordError,
    Incarnation,
    LogUnavailableError,
    LogUncertainError,
)
from coordinator.log.ended import IncarnationEndedError
from coordinator.log.postgres import PostgresLog, migrate_log
from coordinator.passes import PassSettings
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.timing import Timing
from coordinator.running import Finished
from coordinator.telemetry import Telemetry
from coordinator.workflows import Definition, builtin
from coordinator.workflows.definitions import InvalidDefinitionError, load_definitions
from coordinator.workflows.workflows import WorkflowSettings
from participant_sdk import collector
from participant_sdk.backoff import Backoff
from participant_sdk.clock import Clock, SystemClock
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.migrations import MigrationError
from participant_sdk.resource_calls import Access

LEASE_S: Final = 3.0
STOP_WITHIN_S: Final = 10.0
RESIGN_WITHIN_S: Final = 3.0
DOORS_CLOSE_WITHIN_S: Final = 2


class ExitCode(IntEnum):
    """How the process ended."""

    STOPPED = 0
    CANNOT_START = 2
    INCARNATION_ENDED = 5


def run(config: Config) -> ExitCode:
    """Run a coordinator until it is told to stop, or may not go on. Call it from the main thread."""
    with asyncio.Runner(loop_factory=_loops()) as runner:
        return runner.run(_run(config))


async def _run(config: Config) -> ExitCode:
    # Within the loop: gRPC's server belongs to the one that runs when it is made.
    return await Daemon(config).run()


def _loops() -> Any:  # pyright: ignore[reportExplicitAny]  A loop's constructor, or None for asyncio's own.
    try:
        import uvloop  # noqa: PLC0415 - it does not install everywhere
    except ImportError:
        return None
    return uvloop.new_event_loop


class Daemon:
    """One coordinator process. ``started`` is set once calls are let in; the ports are known before."""

    def __init__(self, config: Config) -> None:
        self.telemetry = Telemetry(config.logging.level)
        self.started = asyncio.Event()
        self._config = config
        self._clock = SystemClock()
        self._gate = Gate()
        self._assembly: Assembly | None = None
        self._definitions: Mapping[str, Definition] = {}
        self._why_not_open = ""
        self._stop = asyncio.Event()
        self._finished = asyncio.Event()
        timeout_default = config.xa_manager.transaction_timeout
        self._grpc = GrpcDoor(
            TransactionService(self._gate, self.telemetry, timeout_default),
            RecoveryService(self._gate, self.telemetry),
            WorkflowService(self._gate, self.telemetry),
            LockService(self._gate, self.telemetry),
            self.telemetry,
        )
        routes = HttpRoutes(self._gate, self.telemetry, self.health, timeout_default.total_seconds())
        self._http = HttpDoor(make_app(routes), DOORS_CLOSE_WITHIN_S)

    async def run(self) -> ExitCode:
        """Start, serve, stop."""
        self.telemetry.capture()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            self._definitions = load_definitions(self._config.workflows.modules, builtin.BUILT_IN)
            self._grpc.listen(self._config.server.grpc)
            self._http.listen(self._config.server.http)
        except (CannotListenError, InvalidDefinitionError) as error:
            return self._cannot_start(error)
        else:
            return await self._serve()
        finally:
            self.telemetry.close()

    def health(self) -> Health:
        """One look at everything."""
        assembly = self._assembly
        addresses = {each.name: each.address for each in self._config.participants}
        if assembly is None:
            waiting = tuple(ParticipantHealth(name, address, is_up=False) for name, address in addresses.items())
            name, stopping = self._config.coordinator.shown_name, self._stop.is_set()
            return Health(name, 0, "", False, stopping, 0, 0, waiting, log_problem=self._why_not_open)
        incarnation = assembly.engine.incarnation
        lease_age_s = assembly.commit.lease.age_s(self._clock.monotonic_s())
        return Health(
            incarnation.coordinator,
            incarnation.number,
            incarnation.log_id,
            log_is_open=lease_age_s < incarnation.lease_s,
            stopping=self._stop.is_set(),
            in_flight=assembly.engine.in_flight,
            unfinished=assembly.engine.unfinished,
            participants=tuple(
                ParticipantHealth(name, addresses[name], link.is_up) for name, link in assembly.links.items()
            ),
            held=assembly.passes.held,
            needing_attention=assembly.passes.attention_count,
            log_problem=assembly.passes.log_problem,
        )

    def _cannot_start(self, why: Exception) -> ExitCode:
        self.telemetry.logger.error("Coordinator cannot start", reason=str(why))
        return ExitCode.CANNOT_START

    async def _serve(self) -> ExitCode:
        """Serve from the first probe to the last answer."""
        async with asyncio.TaskGroup() as tasks:
            await self._grpc.start()
            http = tasks.create_task(self._http.run())
            ended = await self._until_ended()
            # Whoever waits is told first that its outcome is not known.
            await self._grpc.stop(DOORS_CLOSE_WITHIN_S)
            self._http.stop()
            await http
        match ended:
            case None:
                self.telemetry.logger.info("Coordinator stopped")
                return ExitCode.STOPPED
            case MigrationError():
                return self._cannot_start(ended)
            case IncarnationEndedError():
                self.telemetry.logger.error("Coordinator ended: its incarnation may write no more", reason=str(ended))
                return ExitCode.INCARNATION_ENDED

    async def _until_ended(self) -> MigrationError | IncarnationEndedError | None:
        """Open the log and work until told to stop, which is None, or until there is a reason not to."""
        log = _MeasuredLog(self._config.log.dsn, self._clock, self.telemetry)
        try:
            opened = await self._or_stop(self._open(log))
            if isinstance(opened, Incarnation):
                return await self._work(log, opened)
            return opened
        finally:
            await log.close()

    async def _work(self, log: PostgresLog, incarnation: Incarnation) -> IncarnationEndedError | None:
        assembly = self._assembly = self._assemble(log, incarnation)
        ended: IncarnationEndedError | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(assembly.run())
                await self._open_doors(assembly)
                await self._stop.wait()
                await self._drain(assembly)
                working.cancel()
        except* IncarnationEndedError as group:
            ended = _first(group)
        assembly.engine.stop(str(ended) if ended else "the coordinator stopped")
        if ended is None:
            await self._resign(assembly)
        return ended

    async def _resign(self, assembly: Assembly) -> None:
        """End the incarnation in the log, so that the next one need not wait for its lease to expire."""
        try:
            async with asyncio.timeout(RESIGN_WITHIN_S):
                await assembly.life.resign()
        except (LogUnavailableError, LogUncertainError, TimeoutError) as error:
            self.telemetry.logger.warning("Coordinator did not resign; its lease will expire", reason=str(error))

    async def _open_doors(self, assembly: Assembly) -> None:
        incarnation = assembly.engine.incarnation
        self._gate.open(assembly)
        await self._grpc.set_serving(serving=True)
        collector.settle()
        self.started.set()
        self.telemetry.logger.info(
            "Coordinator started",
            coordinator=incarnation.coordinator,
            incarnation=incarnation.number,
            log_id=incarnation.log_id,
            grpc_port=self._grpc.port,
            http_port=self._http.port,
            participants=sorted(assembly.links),
        )

        security = self._config.security
        if security.enable_authentication or security.enable_authorization or security.rate_limiting.enabled:
            self.telemetry.logger.warning(
                "Security is configured and not enforced by this version: let only trusted networks reach the ports"
            )

    async def _drain(self, assembly: Assembly) -> None:
        """Take nothing new, and wait until nothing is owed, up to the bound."""
        self._gate.close()
        # They go on where they are taken up next.
        assembly.workflows.stop()
        await self._grpc.set_serving(serving=False)
        engine = assembly.engine
        self.telemetry.logger.info(
            "Coordinator stopping", in_flight=engine.in_flight, unfinished=engine.unfinished, within_s=STOP_WITHIN_S
        )
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                while engine.unfinished:
                    self._finished.clear()
                    await self._finished.wait()
        except TimeoutError:
            self.telemetry.logger.warning(
                "Coordinator stops with work left, which the next one finishes", unfinished=engine.unfinished
            )

    def _assemble(self, log: PostgresLog, incarnation: Incarnation) -> Assembly:
        config = self._config
        xa, recovery = config.xa_manager, config.recovery
        settings = Settings(
            Timing(
                xa.prepare_timeout.total_seconds(),
                xa.commit_timeout.total_seconds(),
                xa.rollback_timeout.total_seconds(),
                recovery.retry_backoff_initial.total_seconds(),
                recovery.retry_backoff_max.total_seconds(),
                recovery.max_recovery_attempts,
            ),
            Limits(xa.max_concurrent_txns),
            config.performance.batch_size,
            PassSettings(
                recovery.enabled,
                xa.recovery_interval.total_seconds(),
                recovery.recovery_timeout.total_seconds(),
                recovery.parallel_recovery,
                config.log.retention.total_seconds(),
            ),
            recovery.circuit_breaker_enabled,
            LockSettings(
                config.locks.ttl.total_seconds(),
                config.locks.lock_timeout.total_seconds(),
                config.locks.deadlock_detection,
            ),
            WorkflowSettings(self._definitions, config.workflows.timeout.total_seconds()),
        )
        return assemble(
            log,
            incarnation,
            {
                each.name: Access(GrpcTransport(each.address), GrpcResourceCalls(each.address, clock=self._clock))
                for each in config.participants
            },
            settings,
            clock=self._clock,
            random=Random(secrets.randbits(64)),  # noqa: S311 - it spreads retries, and guards nothing
            telemetry=self.telemetry,
            on_finished=self._on_finished,
            lock_store=self._lock_store(log, incarnation),
        )

    def _lock_store(self, log: PostgresLog, incarnation: Incarnation) -> LockStore:
        store, epochs, number = self._config.locks.store, Epochs(log), incarnation.number
        if store == MEMORY_STORE:
            return MemoryLockStore(LockTable(), number, epochs, self._clock)
        connection = RedisConnection(parse_address(store))
        random = Random(secrets.randbits(64))  # noqa: S311 - as above
        return RedisLockStore(connection, incarnation.log_id, number, epochs, random)

    def _on_finished(self, finished: Finished) -> None:
        self.telemetry.finished(finished)
        self._finished.set()

    async def _open(self, log: PostgresLog) -> Incarnation | MigrationError:
        """Migrate the log's schema and draw an incarnation, trying again while the log cannot be reached."""
        backoff = Backoff(Random(secrets.randbits(64)), first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)  # noqa: S311 - as above
        while True:
            try:
                applied = await migrate_log(self._config.log.dsn)
                name, address = self._config.coordinator.shown_name, self._advertised()
                incarnation = await log.open(name, address, LEASE_S)
            except (psycopg.OperationalError, BadRecordError, LogUnavailableError, LogUncertainError) as error:
                self._why_not_open = str(error).strip()
                self.telemetry.logger.warning("Decision log not open; trying again", reason=self._why_not_open)
                await backoff.wait()
            except MigrationError as error:
                return error
            else:
                if applied:
                    self.telemetry.logger.info("Decision log migrated", applied=applied)
                return incarnation

    async def _or_stop(
        self, opening: Coroutine[None, None, Incarnation | MigrationError]
    ) -> Incarnation | MigrationError | None:
        """Await the log's opening; None when told to stop before that."""
        async with asyncio.TaskGroup() as tasks:
            opened = tasks.create_task(opening)
            stopped = tasks.create_task(self._stop.wait())
            await asyncio.wait((opened, stopped), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            opened.cancel()
        return None if opened.cancelled() else opened.result()

    def _advertised(self) -> str:
        """The gRPC address told to others: the configured one, else where this machine can be reached."""
        if self._config.coordinator.advertise:
            return self._config.coordinator.advertise
        host = self._config.server.grpc.rpartition(":")[0]
        if host in {"0.0.0.0", "[::]"}:  # noqa: S104 - it is compared, not listened on
            host = socket.gethostname()
        return f"{host}:{self._grpc.port}"


class _MeasuredLog(PostgresLog):
    """The decision log, its flushes timed."""

    def __init__(self, dsn: str, clock: Clock, telemetry: Telemetry) -> None:
        super().__init__(dsn)
        self._clock = clock
        self._telemetry = telemetry

    async def append(
        self, incarnation: Incarnation, expected_sequence: int, records: Sequence[DecisionRecord], *, burned: int = 0
    ) -> Appended:
        """Append, and tell how long it took."""
        began_s = self._clock.monotonic_s()
        appended = await super().append(incarnation, expected_sequence, records, burned=burned)
        if records:
            self._telemetry.flushed(len(records), self._clock.monotonic_s() - began_s)
        return appended


def _first(group: BaseExceptionGroup[IncarnationEndedError]) -> IncarnationEndedError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
