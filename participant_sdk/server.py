"""A participant's process: its workers, its inquiry, and its gRPC server with health and reflection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

import grpc
import structlog
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pincex.tx.v1 import resource_pb2
from pincex.tx.v1.resource_pb2_grpc import add_ResourceServiceServicer_to_server

from participant_sdk.clock import Clock, SystemClock
from participant_sdk.grpc_coordinators import GrpcCoordinators
from participant_sdk.grpc_options import SERVER_OPTIONS
from participant_sdk.inquiry import Inquiry
from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Participant
from participant_sdk.pruning import Pruning
from participant_sdk.servicer import ResourceServicer
from participant_sdk.worker import Workers

GRACE_S: Final = 1.0
# Reflection hands out the descriptors of what was imported: with these, grpcurl prints rich errors.
ERROR_DETAILS: Final = error_details_pb2.DESCRIPTOR.name
SERVICE: Final = resource_pb2.DESCRIPTOR.services_by_name["ResourceService"].full_name

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _Health(Protocol):
    """What we use of the health servicer, whose package has no types."""

    async def set(self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None: ...


@dataclass(frozen=True, slots=True)
class Serving:
    """A participant that serves: the port it was given, and its parts, for metrics."""

    port: int
    workers: Workers
    inquiry: Inquiry
    pruning: Pruning


@asynccontextmanager
async def serving(
    participant: Participant,
    listen: str,
    *,
    coordinators: Sequence[str] = (),
    worker_count: int = 2,
    batch_size: int = 512,
    patience_s: float = 5.0,
    grace_s: float = GRACE_S,
    clock: Clock | None = None,
    jitter: random.Random | None = None,
) -> AsyncGenerator[Serving]:
    """Serve a participant on ``listen`` (host:port, port 0 for any) for as long as the block runs.

    ``coordinators`` are addresses to ask when in doubt, beside those learned from introductions.
    ``patience_s`` is how long a branch may be in doubt before it is asked about. At the end calls
    under way have ``grace_s`` to finish; whatever is cut off then is in doubt, and will be asked about.
    OSError when the address cannot be listened on.
    """
    clock = clock or SystemClock()
    jitter = jitter or random.Random()  # noqa: S311 - it spreads retries, and guards nothing
    logs = KnownLogs(participant, clock=clock)
    workers = Workers(participant, clock=clock, count=worker_count, batch_size=batch_size)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    add_ResourceServiceServicer_to_server(ResourceServicer(participant, workers, logs, clock=clock), server)
    statuses = _add_health(server)
    reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = _listen(server, listen)
    async with GrpcCoordinators() as asked, asyncio.TaskGroup() as group:
        inquiry = Inquiry(
            participant,
            workers,
            logs,
            asked,
            clock=clock,
            jitter=jitter,
            addresses=coordinators,
            patience_s=patience_s,
        )
        pruning = Pruning(participant, logs, clock=clock, jitter=jitter)
        tasks = [group.create_task(part.run()) for part in (workers, inquiry, pruning)]
        await server.start()
        await _set_health(statuses, health_pb2.HealthCheckResponse.SERVING)
        _log.info("participant_serving", participant=participant.name, port=port)
        try:
            yield Serving(port, workers, inquiry, pruning)
        finally:
            await _set_health(statuses, health_pb2.HealthCheckResponse.NOT_SERVING)
            await server.stop(grace_s)
            for task in tasks:
                task.cancel()


async def serve(
    participant: Participant,
    listen: str,
    *,
    coordinators: Sequence[str] = (),
    worker_count: int = 2,
    batch_size: int = 512,
) -> NoReturn:
    """Serve a participant until cancelled; see ``serving``."""
    async with serving(
        participant, listen, coordinators=coordinators, worker_count=worker_count, batch_size=batch_size
    ):
        while True:
            await asyncio.Event().wait()


def _listen(server: grpc.aio.Server, address: str) -> int:
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error
    if not port:
        raise OSError(f"cannot listen on {address}")
    return port


def _add_health(server: grpc.aio.Server) -> _Health:
    # The package has no types, and its stubs do not know the asynchronous servicer.
    statuses: _Health = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    health_pb2_grpc.add_HealthServicer_to_server(statuses, server)  # pyright: ignore[reportUnknownMemberType]  As above.
    return statuses  # pyright: ignore[reportUnknownVariableType]  As above.


async def _set_health(statuses: _Health, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
    for service in ("", SERVICE):
        await statuses.set(service, status)
