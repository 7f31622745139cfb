"""RecoveryService: part of the contract, and not served yet; every call says so."""

from __future__ import annotations

from typing import Final

import grpc
from google.rpc import error_details_pb2, status_pb2
from pincex.tx.v1 import recovery_pb2

from coordinator.api.grpc_errors import DETAILS_KEY, DOMAIN, AnyContext, packed

SERVICE: Final = recovery_pb2.DESCRIPTOR.services_by_name["RecoveryService"]
_MESSAGE: Final = (
    "RecoveryService is not served by this version: decided transactions are driven to their end "
    "by the coordinator itself, and `pincex tx show` tells what a transaction waits for"
)


def add_recovery_service(server: grpc.aio.Server) -> None:
    """Have the server answer every call of the service with UNIMPLEMENTED and the reason."""
    refuse: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_refuse)
    handlers = {method.name: refuse for method in SERVICE.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE.full_name, handlers),))


async def _refuse(_request: bytes, context: AnyContext) -> bytes:
    status = status_pb2.Status(code=grpc.StatusCode.UNIMPLEMENTED.value[0], message=_MESSAGE)
    status.details.append(packed(error_details_pb2.ErrorInfo(reason="NOT_SERVED", domain=DOMAIN)))
    trailer = ((DETAILS_KEY, status.SerializeToString()),)
    return await context.abort(grpc.StatusCode.UNIMPLEMENTED, _MESSAGE, trailer)
