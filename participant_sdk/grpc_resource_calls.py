"""A participant's single calls over gRPC; its session has a connection of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
import structlog
from pincex.tx.v1 import common_pb2, resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.clock import Clock
from participant_sdk.grpc_options import CHANNEL_OPTIONS
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.resource_calls import TOKEN_MAX_CHARS, CallFailedError, Page, Resolved
from participant_sdk.wire import InvalidFieldError, read_ack, read_welcome, write_introduction
from participant_sdk.wire_branches import read_branch, write_recover
from participant_sdk.xa import Ack, Decision

if TYPE_CHECKING:
    # The stubs know it; at run time there is one class for both kinds of channel.
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub

CALL_TIMEOUT_S: Final = 5.0
# Finished branches may have to be looked for among all that are kept; only the release of HOLD asks for them.
FINISHED_TIMEOUT_S: Final = 600.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

Message = TypeVar("Message")


class GrpcResourceCalls:
    """The calls to the participant at one address, host:port. It connects at the first one; ``close`` lets go."""

    def __init__(self, address: str, *, clock: Clock, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self._address = address
        self._clock = clock
        self._timeout_s = timeout_s
        self._channel: grpc.aio.Channel | None = None

    async def hello(self, introduction: Introduction) -> Welcome:
        """Introduce oneself; a refusal is in the welcome."""
        request = write_introduction(introduction, self._clock.unix_ms())
        return read_welcome(await self._call(self._stub().Hello(request, timeout=self._timeout_s)))

    async def recover(self, query: RecoverQuery, token: str = "") -> Page:
        """List a page of branches; finished ones may take minutes where very many are kept.

        One in doubt that cannot be read is passed over, so that it hides none of those after it (R17). Among
        finished ones it fails the call: what is restored from them must be all of them.
        """
        timeout_s = FINISHED_TIMEOUT_S if query.finished else self._timeout_s
        page = await self._call(self._stub().Recover(write_recover(query, token), timeout=timeout_s))
        if len(page.next_page_token) > TOKEN_MAX_CHARS:
            raise CallFailedError(f"{self._address}: a page token of more than {TOKEN_MAX_CHARS} characters")
        if query.finished:
            branches = [_branch(message, query.log_id) for message in page.branches]
        else:
            branches = self._readable(page.branches, query.log_id)
        return Page(branches, page.next_page_token)

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        """Show one branch; None where it is not known."""
        request = resource_pb2.GetBranchRequest(xid=str(xid), log_id=log_id)
        response = await self._call(self._stub().GetBranch(request, timeout=self._timeout_s))
        return _known(response.branch, log_id)

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str, *, preview: bool) -> Resolved:
        """Force a branch in doubt by an operator's hand, or show it."""
        request = resource_pb2.ResolveBranchRequest(
            xid=str(xid),
            log_id=log_id,
            outcome=common_pb2.Decision.ValueType(outcome),
            reason=reason,
            preview=preview,
        )
        response = await self._call(self._stub().ResolveBranch(request, timeout=self._timeout_s))
        ack = read_ack(response.ack) if response.HasField("ack") else None
        return Resolved(_known(response.branch, log_id), ack)

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        """Drop a heuristic branch that was dealt with."""
        request = resource_pb2.ForgetRequest(xid=str(xid), log_id=log_id)
        response = await self._call(self._stub().Forget(request, timeout=self._timeout_s))
        return read_ack(response.ack)

    def _readable(self, messages: Sequence[resource_pb2.Branch], log_id: str) -> list[Branch]:
        branches: list[Branch] = []
        errors: list[InvalidFieldError] = []
        for message in messages:
            try:
                branches.append(read_branch(message, log_id))
            except InvalidFieldError as error:
                errors.append(error)
        if errors:
            _log.error("branches_unreadable", address=self._address, count=len(errors), first=str(errors[0]))
        return branches

    async def close(self) -> None:
        """Close the connection; the next call would open it again."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    def _stub(self) -> ResourceServiceAsyncStub:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        return ResourceServiceStub(self._channel)

    async def _call(self, call: Awaitable[Message]) -> Message:
        try:
            message = await call
        except grpc.aio.AioRpcError as error:
            raise CallFailedError(f"{self._address}: {error.code().name}: {error.details()}") from error
        # Bytes that do not parse come out of grpc.aio as None.
        if not message:
            raise CallFailedError(f"{self._address}: an answer that cannot be read")
        return message


def _known(message: resource_pb2.Branch, log_id: str) -> Branch | None:
    return _branch(message, log_id) if message.phase else None


def _branch(message: resource_pb2.Branch, log_id: str) -> Branch:
    try:
        return read_branch(message, log_id)
    except InvalidFieldError as error:
        raise CallFailedError(f"a branch that cannot be read: {error}") from error
