"""Frames over gRPC: the transport under a coordinator's link, and the stream under a participant's session.

Every connection has a channel of its own, closed with it: a new attempt then waits for nothing
that gRPC decided about an earlier one, and the link's backoff is the only one.

gRPC's habits that matter here: cancelling a pending read or write cancels the whole call, and a
call cancelled by us raises CancelledError in whoever waits on it. The first is fine, because a
link cancels only to end the session; the second is told apart from the task's own cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from pincex.tx.v1 import resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.grpc_options import CHANNEL_OPTIONS
from participant_sdk.transport import ClientStream, StreamClosedError
from participant_sdk.unary_stream import UnaryStream

if TYPE_CHECKING:
    # The stubs know it; at run time there is one class for both kinds of channel.
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub

HELLO_TIMEOUT_S: Final = 5.0
# What a servicer's context raises once its call has ended: in general, before a read or write, in the midst of one.
_GONE: Final = (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.BaseError)

_Session = grpc.aio.StreamStreamCall[resource_pb2.SessionRequest, resource_pb2.SessionResponse]
_Context = grpc.aio.ServicerContext[resource_pb2.SessionRequest, resource_pb2.SessionResponse]

Answer = TypeVar("Answer")


class GrpcTransport:
    """Opens sessions to the participant at one address, host:port.

    A participant that does not serve Session, by its own word or by UNIMPLEMENTED, is spoken to
    in unary calls.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._unary_only = False

    async def connect(self) -> ClientStream:
        """Connect. StreamClosedError when that fails; waits for ever otherwise, so put a time-out around it."""
        channel = grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)
        try:
            await _connected(channel)
        except BaseException:
            # Cancelled by the caller's time-out too: the channel must not stay behind.
            await channel.close()
            raise
        return _GrpcClientStream(channel, self)

    @property
    def unary_only(self) -> bool:
        """Session turned out not to be served."""
        return self._unary_only

    def note_unary_only(self) -> None:
        """Speak in unary calls from the next connection on."""
        self._unary_only = True


class _GrpcClientStream:
    """One connection. Its first frame, a Hello, finds out whether Session is served."""

    def __init__(self, channel: grpc.aio.Channel, transport: GrpcTransport) -> None:
        self._channel = channel
        self._transport = transport
        self._stub: ResourceServiceAsyncStub = ResourceServiceStub(channel)
        self._carrier: _SessionStream | UnaryStream | None = None

    async def send(self, frame: resource_pb2.SessionRequest) -> None:
        if self._carrier is None:
            self._carrier = await self._choose(frame)
        await self._carrier.send(frame)

    async def receive(self) -> resource_pb2.SessionResponse:
        if self._carrier is None:
            raise StreamClosedError("nothing was sent yet")
        return await self._carrier.receive()

    async def close(self) -> None:
        if self._carrier is not None:
            await self._carrier.close()
        await self._channel.close()

    async def _choose(self, frame: resource_pb2.SessionRequest) -> _SessionStream | UnaryStream:
        if self._transport.unary_only:
            return UnaryStream(self._stub)
        welcome = await _settled(self._stub.Hello(frame.hello, timeout=HELLO_TIMEOUT_S))
        if welcome.session or welcome.refusal:
            return _SessionStream(self._stub.Session(), self._transport)
        return UnaryStream(self._stub)


class _SessionStream:
    """The Session call."""

    def __init__(self, call: _Session, transport: GrpcTransport) -> None:
        self._call = call
        self._transport = transport

    async def send(self, frame: resource_pb2.SessionRequest) -> None:
        try:
            await _settled(self._call.write(frame))
        except asyncio.InvalidStateError as error:
            # The call has ended; only its status says why.
            raise StreamClosedError(await self._ending()) from error

    async def receive(self) -> resource_pb2.SessionResponse:
        try:
            frame = await _settled(self._call.read())
        except StreamClosedError:
            if self._call.done() and await self._call.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._transport.note_unary_only()
            raise
        if isinstance(frame, resource_pb2.SessionResponse):
            return frame
        if frame is None:
            raise StreamClosedError("a frame that is no message of the contract")
        raise StreamClosedError("the participant ended the session")

    async def close(self) -> None:
        self._call.cancel()

    async def _ending(self) -> str:
        return f"{(await self._call.code()).name}: {await self._call.details()}"


class GrpcServerStream:
    """A session as a gRPC servicer sees it."""

    def __init__(self, context: _Context) -> None:
        self._context = context

    async def send(self, frame: resource_pb2.SessionResponse) -> None:
        """Send one frame, waiting while the other side is slow. StreamClosedError when it is gone."""
        try:
            await self._context.write(frame)
        except _GONE as error:
            raise StreamClosedError(f"the coordinator is gone: {error}") from error

    async def receive(self) -> resource_pb2.SessionRequest:
        """The next frame. StreamClosedError when there will be none."""
        try:
            return _frame_of(await self._context.read())
        except _GONE as error:
            raise StreamClosedError(f"the coordinator is gone: {error}") from error


def _frame_of(read: object) -> resource_pb2.SessionRequest:
    """What a read gave: typed as a message, but the end of the stream is a constant of gRPC's."""
    if isinstance(read, resource_pb2.SessionRequest):
        return read
    raise StreamClosedError("the coordinator ended the session")


async def _connected(channel: grpc.aio.Channel) -> None:
    """Wait until the channel is ready. StreamClosedError at its first failure, rather than gRPC's own retries."""
    state = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in {grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN}:
            raise StreamClosedError("the connection was refused, or failed")
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)


async def _settled(operation: Awaitable[Answer]) -> Answer:
    """Await an operation of a call. StreamClosedError when the call ended, with its status in words."""
    try:
        return await operation
    except grpc.aio.AioRpcError as error:
        raise StreamClosedError(f"{error.code().name}: {error.details()}") from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # The call was cancelled by ourselves, not this task.
        raise StreamClosedError("the session was closed") from error
