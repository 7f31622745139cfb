"""The line to the participant: its unary calls, each bounded in time, and the last messages that passed.

Nothing is translated: a wrong participant's wrong numbers must be seen as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from google.protobuf import text_format
from google.protobuf.message import Message
from pincex.tx.v1 import resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.conformance.report import DeviationError
from participant_sdk.grpc_options import CHANNEL_OPTIONS

if TYPE_CHECKING:
    # Generated for type checkers alone.
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub

CALL_TIMEOUT_S: Final = 20.0
# How many messages a finding shows, and how much of each.
SHOWN_MESSAGES: Final = 8
SHOWN_CHARS: Final = 600

# A participant that was restarted is found again at once.
_OPTIONS: Final = (
    *CHANNEL_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)

Response = TypeVar("Response", bound=Message)


class Exchange:
    """The last messages that passed, either way. Written out only for who asks, as most checks pass."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: deque[tuple[str, str, Message | str]] = deque(maxlen=SHOWN_MESSAGES)

    def clear(self) -> None:
        """Begin another check."""
        self._messages.clear()

    def sent(self, name: str, message: Message | str) -> None:
        """Note a message to the participant."""
        self._messages.append(("->", name, message))

    def came(self, name: str, message: Message | str) -> None:
        """Note a message, or a status, from the participant."""
        self._messages.append(("<-", name, message))

    def lines(self) -> tuple[str, ...]:
        """Each message in one line, oldest first."""
        return tuple(f"{arrow} {name} {_shown(message)}".rstrip() for arrow, name, message in self._messages)


class Line:
    """One channel to one participant. Every call raises grpc.aio.AioRpcError for an error status."""

    def __init__(self, address: str) -> None:
        self.exchange = Exchange()
        self.channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self.stub: ResourceServiceAsyncStub = ResourceServiceStub(self.channel)

    async def close(self) -> None:
        """Close the channel."""
        await self.channel.close()

    async def hello(self, request: resource_pb2.HelloRequest) -> resource_pb2.HelloResponse:
        """Call Hello."""
        return await self._call("Hello", request, self.stub.Hello(request, timeout=CALL_TIMEOUT_S))

    async def prepare(self, request: resource_pb2.PrepareRequest) -> resource_pb2.PrepareResponse:
        """Call Prepare."""
        return await self._call("Prepare", request, self.stub.Prepare(request, timeout=CALL_TIMEOUT_S))

    async def commit(self, request: resource_pb2.CommitRequest) -> resource_pb2.CommitResponse:
        """Call Commit."""
        return await self._call("Commit", request, self.stub.Commit(request, timeout=CALL_TIMEOUT_S))

    async def rollback(self, request: resource_pb2.RollbackRequest) -> resource_pb2.RollbackResponse:
        """Call Rollback."""
        return await self._call("Rollback", request, self.stub.Rollback(request, timeout=CALL_TIMEOUT_S))

    async def recover(self, request: resource_pb2.RecoverRequest) -> resource_pb2.RecoverResponse:
        """Call Recover."""
        return await self._call("Recover", request, self.stub.Recover(request, timeout=CALL_TIMEOUT_S))

    async def resolve(self, request: resource_pb2.ResolveBranchRequest) -> resource_pb2.ResolveBranchResponse:
        """Call ResolveBranch."""
        return await self._call("ResolveBranch", request, self.stub.ResolveBranch(request, timeout=CALL_TIMEOUT_S))

    async def forget(self, request: resource_pb2.ForgetRequest) -> resource_pb2.ForgetResponse:
        """Call Forget."""
        return await self._call("Forget", request, self.stub.Forget(request, timeout=CALL_TIMEOUT_S))

    async def branch(self, request: resource_pb2.GetBranchRequest) -> resource_pb2.GetBranchResponse:
        """Call GetBranch."""
        return await self._call("GetBranch", request, self.stub.GetBranch(request, timeout=CALL_TIMEOUT_S))

    async def _call(self, name: str, request: Message, call: Awaitable[Response]) -> Response:
        self.exchange.sent(name, request)
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            self.exchange.came(name, shown_status(error))
            raise
        # Bytes that do not parse come out of grpc.aio as None.
        if not response:
            raise DeviationError(f"{name}: an answer that is no message of the contract")
        self.exchange.came(name, response)
        return response


def shown_status(error: grpc.aio.AioRpcError) -> str:
    """Write an error status for a person."""
    return f"{error.code().name}: {error.details()}"


def _shown(message: Message | str) -> str:
    text = message if isinstance(message, str) else text_format.MessageToString(message, as_one_line=True)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
