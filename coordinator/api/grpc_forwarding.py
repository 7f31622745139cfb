"""Calls over gRPC that name an xid: to its owner, with the owner's answer or error passed back unchanged (R19)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import grpc
from pincex.tx.v1 import transaction_pb2

from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import AnyContext
from coordinator.peer_answers import PeerRefusedError
from coordinator.peers import Stubs
from participant_sdk.ids import Xid

Request = TypeVar("Request")
Answer = TypeVar("Answer")


async def at_owner(
    gate: Gate,
    xid: Xid,
    context: AnyContext,
    call_of: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
    request: Request,
) -> Answer | None:
    """The owner's answer to this call; None where this coordinator is to answer itself.

    The client's deadline and cancellation go along. UnavailableError as ``Peers.ask`` raises it.
    """
    if is_forwarded_here(gate, context):
        return None
    try:
        return await gate.assembly.peers.ask(xid, call_of, request, _remaining_s(context))
    except PeerRefusedError as refused:
        return await pass_back(refused, context)


def is_forwarded_here(gate: Gate, context: AnyContext) -> bool:
    """Whether another coordinator sent the call on to this incarnation. UnavailableError as ``check_taken``."""
    return gate.assembly.peers.check_taken(_metadata(context))


async def watched_at_owner(
    gate: Gate, xid: Xid, context: AnyContext
) -> AsyncIterator[transaction_pb2.WatchTransactionsResponse] | None:
    """The owner's stream of a transaction's changes; None as for ``at_owner``."""
    if is_forwarded_here(gate, context):
        return None
    stream = await gate.assembly.peers.watch(xid, _remaining_s(context))
    return None if stream is None else _passed_back(stream, context)


async def _passed_back(
    stream: AsyncIterator[transaction_pb2.WatchTransactionsResponse], context: AnyContext
) -> AsyncIterator[transaction_pb2.WatchTransactionsResponse]:
    try:
        async for change in stream:
            yield change
    except PeerRefusedError as refused:
        await pass_back(refused, context)


async def pass_back(refused: PeerRefusedError, context: AnyContext) -> None:
    """End the call with the owner's own error, unchanged."""
    await context.abort(refused.failed.code, refused.failed.message, tuple(refused.trailing))


def _metadata(context: AnyContext) -> dict[str, str | bytes]:
    return dict(context.invocation_metadata() or ())


def _remaining_s(context: AnyContext) -> float | None:
    """What the client's deadline leaves; None without one."""
    return context.time_remaining()
