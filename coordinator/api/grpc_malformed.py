"""Requests that no method can take, told with the details that every error has.

One that is no message is INVALID_ARGUMENT, where gRPC by itself would say UNKNOWN and log a
traceback; one for a method that is not there is UNIMPLEMENTED, as gRPC says without details.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from coordinator.api.grpc_errors import DETAILS_KEY, DOMAIN, AnyContext, Refusals, packed
from coordinator.errors import InvalidRequestError
from coordinator.telemetry import Telemetry

# An interceptor sees every method's messages, so no type fits them all.
AnyHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # pyright: ignore[reportExplicitAny]  As told above.
_Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[AnyHandler | None]]"

_METHOD_SHOWN_CHARS: Final = 200

MALFORMED: Final = InvalidRequestError(
    "the request is no message of this method", field="request", code="MESSAGE_MALFORMED"
)


class MalformedInterceptor(grpc.aio.ServerInterceptor):
    """Refuses unary requests that cannot be read. A stream's unreadable frame reaches its method as None."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._handlers: dict[str, AnyHandler] = {}

    async def intercept_service(
        self, continuation: _Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> AnyHandler | None:
        """The method's handler, made tolerant once."""
        method: str = handler_call_details.method
        known = self._handlers.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None:
            return _unknown(method)
        if handler.request_deserializer is None:
            return handler
        tolerant = self._handlers[method] = self._tolerant(handler, handler.request_deserializer)
        return tolerant

    def _tolerant(self, handler: AnyHandler, reader: Callable[[bytes], object]) -> AnyHandler:
        read = _tolerant_reader(reader)
        write = handler.response_serializer
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(handler.stream_stream, read, write)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._guarded_stream(handler.unary_stream), read, write)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._guarded(handler.unary_unary), read, write)
        return handler

    def _guarded(self, call: Callable[..., Any]) -> Callable[[object, AnyContext], Awaitable[object]]:
        async def guarded(request: object, context: AnyContext) -> object:
            if request is None:
                async with Refusals(context, self._telemetry):
                    raise MALFORMED
            return await call(request, context)

        return guarded

    def _guarded_stream(self, call: Callable[..., Any]) -> Callable[[object, AnyContext], AsyncIterator[object]]:
        async def guarded(request: object, context: AnyContext) -> AsyncIterator[object]:
            if request is None:
                async with Refusals(context, self._telemetry):
                    raise MALFORMED
            async for answer in call(request, context):
                yield answer

        return guarded


def _unknown(method: str) -> AnyHandler:
    """Answer any call, of one message or many. Not kept: there is no end of names."""

    async def refuse(_requests: AsyncIterator[bytes], context: AnyContext) -> None:
        message = f"there is no method {method[:_METHOD_SHOWN_CHARS]}"
        status = status_pb2.Status(code=grpc.StatusCode.UNIMPLEMENTED.value[0], message=message)
        status.details.append(packed(error_details_pb2.ErrorInfo(reason="METHOD_UNKNOWN", domain=DOMAIN)))
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, message, ((DETAILS_KEY, status.SerializeToString()),))

    return grpc.stream_stream_rpc_method_handler(refuse)


def _tolerant_reader(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def tolerant(message: bytes) -> object:
        try:
            return read(message)
        except DecodeError:
            return None

    return tolerant
