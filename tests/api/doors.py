"""Both doors of one coordinator, over the real engine, a log in memory and two participants in memory."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import grpc
import httpx
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from pincex.tx.v1 import common_pb2, transaction_pb2
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceStub

from coordinator.admission import Limits
from coordinator.api.gate import Gate
from coordinator.api.grpc_lock import LockService
from coordinator.api.grpc_recovery import RecoveryService
from coordinator.api.grpc_server import GrpcDoor
from coordinator.api.grpc_transaction import TransactionService
from coordinator.api.grpc_workflow import WorkflowService
from coordinator.api.http_app import HttpRoutes, make_app
from coordinator.api.http_server import IDLE_S, HttpDoor
from coordinator.assembly import Assembly, Settings, assemble
from coordinator.health import Health, ParticipantHealth
from coordinator.log.decision_log import Incarnation, LogUnavailableError
from coordinator.log.ended import IncarnationEndedError
from coordinator.log.memory import MemoryLog, Moment, Statement
from coordinator.passes import PassSettings
from coordinator.protocol.timing import Timing
from coordinator.telemetry import Telemetry
from coordinator.workflows.workflows import WorkflowSettings
from participant_sdk.clock import SystemClock
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.grpc_transport import GrpcTransport
from participant_sdk.resource_calls import Access
from tests.sdk.small_system import LEFT, RIGHT, System, system

if TYPE_CHECKING:
    # The generated stubs know this class; the module itself has it not.
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

TIMEOUT_DEFAULT_S: Final = 10.0
NOWHERE: Final = "127.0.0.1:1"
_CLOCK: Final = SystemClock()
_DETAILS: Final[tuple[type[Message], ...]] = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.ResourceInfo,
    error_details_pb2.PreconditionFailure,
    error_details_pb2.RetryInfo,
)


class LogWire:
    """The way to the log. Cut, no statement takes effect."""

    def __init__(self) -> None:
        self.is_cut = False

    async def __call__(self, moment: Moment, statement: Statement[object], /) -> None:
        """Let a statement pass, or refuse it while it has done nothing."""
        if self.is_cut and moment is Moment.BEFORE:
            raise LogUnavailableError(f"no connection for {statement.name}")


@dataclass(frozen=True, slots=True)
class Doors:
    """A coordinator's doors, and what is behind them. ``ended`` is set when its incarnation may write no more."""

    around: System
    ended: asyncio.Event
    wire: LogWire
    assembly: Assembly
    gate: Gate
    channel: grpc.aio.Channel
    stub: TransactionServiceAsyncStub
    http: httpx.AsyncClient
    lines: io.StringIO
    telemetry: Telemetry
    grpc_port: int
    http_port: int

    def line_of(self, xid: str) -> dict[str, object]:
        """The canonical log line of a transaction."""
        self.telemetry.close()
        lines = [json.loads(line) for line in self.lines.getvalue().splitlines()]
        (found,) = [line for line in lines if line.get("transaction_id") == xid]
        return found

    def nothing_held(self) -> bool:
        """No participant holds anything of any account."""
        return all(
            account.held == 0 for store in self.around.stores.values() for account in store.durable.accounts.values()
        )


@asynccontextmanager
async def doors(
    *,
    max_concurrent_txns: int = 1000,
    idle_s: int = IDLE_S,
    held: str = "",
    absent: str = "",
    workflows: WorkflowSettings | None = None,
) -> AsyncGenerator[Doors]:
    """Open both doors for the time of the block.

    Recovery runs when it is asked to, and not by itself. ``held`` is why the log has been in HOLD before;
    ``absent`` names one participant more, of which nothing is there.
    """
    lines = io.StringIO()
    telemetry = Telemetry("info", lines)
    gate = Gate()
    service = TransactionService(gate, telemetry, timedelta(seconds=TIMEOUT_DEFAULT_S))
    others = (WorkflowService(gate, telemetry), LockService(gate, telemetry))
    door = GrpcDoor(service, RecoveryService(gate, telemetry), *others, telemetry)
    door.listen("127.0.0.1:0")
    async with system() as around, asyncio.TaskGroup() as tasks:
        wire, ended = LogWire(), asyncio.Event()
        log = MemoryLog(around.log, wire)
        if held:
            await log.hold(held)
        addresses = {**around.addresses, **({absent: NOWHERE} if absent else {})}
        incarnation = await log.open("coordinator", f"127.0.0.1:{door.port}", 3.0)
        known = workflows or WorkflowSettings({})
        assembly = _assembled(log, incarnation, addresses, max_concurrent_txns, telemetry, known)
        working = tasks.create_task(_work(assembly, ended))
        app = make_app(HttpRoutes(gate, telemetry, lambda: _health(assembly), TIMEOUT_DEFAULT_S))
        http_door = HttpDoor(app, 1, idle_s=idle_s)
        http_door.listen("127.0.0.1:0")
        await door.start()
        await door.set_serving(serving=True)
        serving_http = tasks.create_task(http_door.run())
        gate.open(assembly)
        while not all(assembly.links[name].is_up for name in around.addresses):  # noqa: ASYNC110 - links have no event for us.
            await asyncio.sleep(0.001)
        try:
            async with (
                grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel,
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_door.port}", timeout=30) as http,
            ):
                stub: TransactionServiceAsyncStub = TransactionServiceStub(channel)
                ports = (door.port, http_door.port)
                yield Doors(around, ended, wire, assembly, gate, channel, stub, http, lines, telemetry, *ports)
        finally:
            assembly.engine.stop("the test is over")
            await door.stop(0)
            http_door.stop()
            await serving_http
            working.cancel()


def _assembled(
    log: MemoryLog,
    incarnation: Incarnation,
    addresses: Mapping[str, str],
    max_txns: int,
    telemetry: Telemetry,
    workflows: WorkflowSettings,
) -> Assembly:
    return assemble(
        log,
        incarnation,
        {
            name: Access(GrpcTransport(address), GrpcResourceCalls(address, clock=_CLOCK))
            for name, address in addresses.items()
        },
        Settings(
            Timing(retry_initial_s=0.05, retry_max_s=0.2),
            Limits(max_txns),
            512,
            passes=PassSettings(is_enabled=False),
            workflows=workflows,
        ),
        clock=_CLOCK,
        random=random.Random(0),
        telemetry=telemetry,
        on_finished=telemetry.finished,
    )


async def _work(assembly: Assembly, ended: asyncio.Event) -> None:
    """Run the parts as the process does; where that would end itself, the doors stay open."""
    try:
        await assembly.run()
    except* IncarnationEndedError:
        ended.set()


def _health(assembly: Assembly) -> Health:
    incarnation = assembly.engine.incarnation
    return Health(
        incarnation.coordinator,
        incarnation.number,
        incarnation.log_id,
        log_is_open=assembly.commit.lease.age_s(_CLOCK.monotonic_s()) < incarnation.lease_s,
        stopping=False,
        in_flight=assembly.engine.in_flight,
        unfinished=assembly.engine.unfinished,
        participants=tuple(ParticipantHealth(name, "", is_up=link.is_up) for name, link in assembly.links.items()),
    )


def operation(service: str = LEFT, name: str = "transfer", parameters: str = "") -> common_pb2.Operation:
    """One operation; a transfer of 5 from a to b where nothing else is asked."""
    return common_pb2.Operation(
        service=service, operation=name, parameters=parameters or '{"from": "a", "to": "b", "amount": "5"}'
    )


def transfer(*, request_id: str = "", amount: str = "5") -> transaction_pb2.ExecuteRequest:
    """A transfer at both participants."""
    parameters = f'{{"from": "a", "to": "b", "amount": {amount}}}'
    return transaction_pb2.ExecuteRequest(
        operations=[operation(LEFT, parameters=parameters), operation(RIGHT, parameters=parameters)],
        request_id=request_id,
    )


@dataclass(frozen=True, slots=True)
class Refused:
    """An error status, its details read."""

    code: grpc.StatusCode
    message: str
    details: dict[str, Message]

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        """What every error has."""
        info = self.details["ErrorInfo"]
        assert isinstance(info, error_details_pb2.ErrorInfo)
        return info

    @property
    def field(self) -> str:
        """The field that BadRequest names."""
        bad = self.details["BadRequest"]
        assert isinstance(bad, error_details_pb2.BadRequest)
        (violation,) = bad.field_violations
        return violation.field


def read_refusal(error: grpc.aio.AioRpcError) -> Refused:
    """Read an error's rich status."""
    details: dict[str, Message] = {}
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for packed in status_pb2.Status.FromString(value).details:
                kind = next(kind for kind in _DETAILS if packed.TypeName() == kind.DESCRIPTOR.full_name)
                message = kind()
                assert packed.Unpack(message)
                details[kind.DESCRIPTOR.name] = message
    return Refused(error.code(), error.details() or "", details)
