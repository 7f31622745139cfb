"""gRPC interceptors that carry the current transaction to embedded services, and the trace with it.

At the caller, ``transaction_interceptors("orders")`` on the channel to a service: inside a
``transaction()`` block every call first enlists one operation of that participant (R13), and
then carries the branch in its metadata. Outside of one, calls pass as they are. At the service,
``TransactionServerInterceptor``: ``context.current_branch()`` says which branch a call is for.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import TypeVar

import grpc

from participant_sdk.client_results import Enlisted
from participant_sdk.context import (
    TRACE_KEY,
    branch_headers,
    current_branch,
    enter_branch,
    enter_trace,
    read_branch,
    trace_headers,
)
from participant_sdk.ids import InvalidIdentifierError
from participant_sdk.interactive import current_transaction

Request = TypeVar("Request")
Response = TypeVar("Response")


def transaction_interceptors(participant: str) -> list[grpc.aio.ClientInterceptor]:
    """The interceptors for a channel to the embedded service of this participant, one per kind of call."""
    carrier = _Carrier(participant)
    return [_UnaryUnary(carrier), _UnaryStream(carrier), _StreamUnary(carrier), _StreamStream(carrier)]


class _Carrier:
    """Adds the headers of branch and trace to a call."""

    __slots__ = ("_participant",)

    def __init__(self, participant: str) -> None:
        self._participant = participant

    async def carry(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        branch = await self._branch()
        headers = trace_headers() if branch is None else (*branch_headers(branch), *trace_headers())
        if not headers:
            return details
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *headers)
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )

    async def _branch(self) -> Enlisted | None:
        """The branch of this participant: named by ``working_for``, or enlisted now."""
        named = current_branch()
        if named is not None and named.participant == self._participant:
            return named
        transaction = current_transaction()
        return None if transaction is None else await transaction.enlist_embedded(self._participant)


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, carrier: _Carrier) -> None:
        self._carrier = carrier

    async def intercept_unary_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryUnaryCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> grpc.aio.UnaryUnaryCall[Request, Response]:
        return await continuation(await self._carrier.carry(client_call_details), request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, carrier: _Carrier) -> None:
        self._carrier = carrier

    async def intercept_unary_stream(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryStreamCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> grpc.aio.UnaryStreamCall[Request, Response]:
        return await continuation(await self._carrier.carry(client_call_details), request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, carrier: _Carrier) -> None:
        self._carrier = carrier

    async def intercept_stream_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, AsyncIterable[Request] | Iterable[Request]],
            Awaitable[grpc.aio.StreamUnaryCall[Request, Response]],
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[Request] | Iterable[Request],
    ) -> grpc.aio.StreamUnaryCall[Request, Response]:
        return await continuation(await self._carrier.carry(client_call_details), request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    def __init__(self, carrier: _Carrier) -> None:
        self._carrier = carrier

    async def intercept_stream_stream(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, AsyncIterable[Request] | Iterable[Request]],
            Awaitable[grpc.aio.StreamStreamCall[Request, Response]],
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: AsyncIterable[Request] | Iterable[Request],
    ) -> grpc.aio.StreamStreamCall[Request, Response]:
        return await continuation(await self._carrier.carry(client_call_details), request_iterator)


class TransactionServerInterceptor(grpc.aio.ServerInterceptor):
    """Puts the caller's branch and trace into the context of the task that serves the call.

    Headers that do not have their form fail the call with INVALID_ARGUMENT.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Request, Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Request, Response] | None:
        """Set the context, then go on; a call is served in the task that this runs in."""
        headers = {key: value for key, value in handler_call_details.invocation_metadata if isinstance(value, str)}
        enter_trace(headers.get(TRACE_KEY, ""))
        try:
            enter_branch(read_branch(headers))
        except InvalidIdentifierError as error:
            return _refusal(str(error))
        return await continuation(handler_call_details)


def _refusal(message: str) -> grpc.RpcMethodHandler[Request, Response]:
    """A handler that fails a call of any kind without reading from it: on the wire all kinds are streams."""

    async def refuse(_: object, context: grpc.aio.ServicerContext[Request, Response]) -> None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)

    return grpc.stream_stream_rpc_method_handler(refuse)
