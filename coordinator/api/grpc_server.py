"""The gRPC door: a server with every service, health, reflection, and bounds.

Reflection serves whatever descriptors are loaded, and ``grpc_errors`` loads google.rpc's error
details: so grpcurl can print what an error carries.
"""

from __future__ import annotations

from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pincex.tx.v1 import transaction_pb2
from pincex.tx.v1.lock_pb2_grpc import add_LockServiceServicer_to_server
from pincex.tx.v1.recovery_pb2_grpc import add_RecoveryServiceServicer_to_server
from pincex.tx.v1.transaction_pb2_grpc import add_TransactionServiceServicer_to_server
from pincex.tx.v1.workflow_pb2_grpc import add_WorkflowServiceServicer_to_server

from coordinator.api import grpc_lock, grpc_recovery, grpc_workflow
from coordinator.api.grpc_lock import LockService
from coordinator.api.grpc_malformed import MalformedInterceptor
from coordinator.api.grpc_recovery import RecoveryService
from coordinator.api.grpc_transaction import TransactionService
from coordinator.api.grpc_workflow import WorkflowService
from coordinator.telemetry import Telemetry

REQUEST_MAX_BYTES: Final = 1024 * 1024
ANSWER_MAX_BYTES: Final = 64 * 1024 * 1024
METADATA_MAX_BYTES: Final = 16 * 1024

_SERVED: Final = (
    transaction_pb2.DESCRIPTOR.services_by_name["TransactionService"].full_name,
    grpc_recovery.SERVICE.full_name,
    grpc_workflow.SERVICE.full_name,
    grpc_lock.SERVICE.full_name,
)
_OPTIONS: Final = (
    # Three times the largest request: what comes in one message is read while everybody else waits.
    ("grpc.max_receive_message_length", REQUEST_MAX_BYTES),
    ("grpc.max_send_message_length", ANSWER_MAX_BYTES),
    ("grpc.max_metadata_size", METADATA_MAX_BYTES),
    # Two coordinators on one port would each get half of the callers.
    ("grpc.so_reuseport", 0),
    # Streams may be idle for long; a client that checks them now and then is welcome.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class CannotListenError(Exception):
    """The address cannot be listened on. The message names it."""


class GrpcDoor:
    """The gRPC server. ``listen`` takes the port, ``start`` serves, ``stop`` ends calls in flight after a bound."""

    def __init__(
        self,
        service: TransactionService,
        recovery: RecoveryService,
        workflows: WorkflowService,
        locks: LockService,
        telemetry: Telemetry,
    ) -> None:
        self._server = grpc.aio.server(options=_OPTIONS, interceptors=(MalformedInterceptor(telemetry),))
        add_TransactionServiceServicer_to_server(service, self._server)
        add_RecoveryServiceServicer_to_server(recovery, self._server)
        add_WorkflowServiceServicer_to_server(workflows, self._server)
        add_LockServiceServicer_to_server(locks, self._server)
        # The package has no types, and its stubs do not know the asynchronous servicer.
        self._health: Any = health.aio.HealthServicer()  # pyright: ignore[reportExplicitAny, reportAttributeAccessIssue, reportUnknownMemberType]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)  # pyright: ignore[reportUnknownMemberType]  As above.
        reflection.enable_server_reflection((*_SERVED, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        self.port = 0

    def listen(self, address: str) -> None:
        """Take the address ``host:port``; ``port`` is the port taken. CannotListenError."""
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise CannotListenError(f"cannot listen for gRPC on {address} (server.grpc): {error}") from error

    async def start(self) -> None:
        """Serve, telling health checks that calls are not welcome yet."""
        await self.set_serving(serving=False)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Tell health checks whether calls are welcome."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *_SERVED):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, let those in flight finish for so long, then end them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
