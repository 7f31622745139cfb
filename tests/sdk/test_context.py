"""The branch and the trace travel with calls to embedded services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import pytest

from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Enlisted
from participant_sdk.context import (
    BRANCH_KEY,
    XID_KEY,
    branch_headers,
    current_branch,
    current_traceparent,
    read_branch,
    traced,
    working_for,
)
from participant_sdk.ids import InvalidIdentifierError, Xid
from participant_sdk.interceptors import TransactionServerInterceptor, transaction_interceptors
from tests.sdk.small_system import LEFT, LOG_ID, coordinator, system

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BRANCH = Enlisted(Xid.make(1_700_000_000_000, 7, 9), LOG_ID, LEFT, 2, 1.5)


class Service:
    """An embedded service that remembers for which branch, and in which trace, it was called."""

    def __init__(self) -> None:
        self.branches: list[Enlisted | None] = []
        self.traces: list[str] = []

    def _note(self) -> None:
        self.branches.append(current_branch())
        self.traces.append(current_traceparent())

    async def unary(self, request: bytes, _: object) -> bytes:
        self._note()
        return request

    async def streaming(self, request: bytes, _: object) -> AsyncIterator[bytes]:
        self._note()
        yield request

    async def collecting(self, requests: AsyncIterator[bytes], _: object) -> bytes:
        self._note()
        return b"".join([request async for request in requests])

    async def conversing(self, requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        self._note()
        async for request in requests:
            yield request


@asynccontextmanager
async def served(service: Service) -> AsyncGenerator[grpc.aio.Channel]:
    """Serve it, with a channel to it that carries transactions of the participant LEFT."""
    server = grpc.aio.server(interceptors=[TransactionServerInterceptor()])
    handlers: dict[str, Any] = {
        "Unary": grpc.unary_unary_rpc_method_handler(service.unary),
        "Streaming": grpc.unary_stream_rpc_method_handler(service.streaming),
        "Collecting": grpc.stream_unary_rpc_method_handler(service.collecting),
        "Conversing": grpc.stream_stream_rpc_method_handler(service.conversing),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("orders", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", interceptors=transaction_interceptors(LEFT)) as channel:
        yield channel
    await server.stop(None)


async def call_each(channel: grpc.aio.Channel) -> None:
    """Call the service in each of gRPC's four ways."""

    async def two() -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"

    assert await channel.unary_unary("/orders/Unary")(b"1") == b"1"
    assert await collected(cast("AsyncIterable[bytes]", channel.unary_stream("/orders/Streaming")(b"1"))) == [b"1"]
    assert await channel.stream_unary("/orders/Collecting")(two()) == b"12"
    assert await collected(cast("AsyncIterable[bytes]", channel.stream_stream("/orders/Conversing")(two()))) == [
        b"1",
        b"2",
    ]


async def collected(call: AsyncIterable[bytes]) -> list[bytes]:
    return [got async for got in call]


async def test_calls_of_every_kind_carry_the_branch_and_the_trace() -> None:
    service = Service()
    async with served(service) as channel:
        with working_for(BRANCH), traced(TRACE):
            await call_each(channel)
        await call_each(channel)
    assert service.branches == [BRANCH] * 4 + [None] * 4
    assert service.traces == [TRACE] * 4 + [""] * 4


async def test_a_call_inside_a_transaction_enlists_one_operation_first() -> None:
    """R13: Enlist comes before the work."""
    service = Service()
    async with (
        system() as around,
        coordinator(around) as running,
        served(service) as channel,
        TransactionClient(running.address) as client,
        client.transaction() as txn,
    ):
        await channel.unary_unary("/orders/Unary")(b"1")
        await channel.unary_unary("/orders/Unary")(b"2")
        state = await client.get_transaction(txn.xid)
        await txn.rollback()
    assert [branch.participant for branch in state.branches] == [LEFT]
    assert [branch and (branch.xid, branch.branch_number) for branch in service.branches] == [(txn.xid, 1)] * 2


async def test_headers_without_their_form_fail_the_call() -> None:
    """Working outside of the transaction that the caller meant would be worse."""
    service = Service()
    async with served(service) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/orders/Unary")(b"1", metadata=((XID_KEY, "7"),))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert service.branches == []


def test_a_branch_reads_back_from_its_headers() -> None:
    assert read_branch(dict(branch_headers(BRANCH))) == BRANCH
    assert read_branch({}) is None


@pytest.mark.parametrize(
    "wrong", [{XID_KEY: "x"}, {BRANCH_KEY: "-1"}, {"pincex-log-id": ""}, {"pincex-participant": "A"}]
)
def test_wrong_headers_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidIdentifierError):
        read_branch({**dict(branch_headers(BRANCH)), **wrong})


def test_a_traceparent_of_another_form_is_dropped() -> None:
    with traced("no trace"):
        assert not current_traceparent()


async def test_tasks_have_contexts_of_their_own() -> None:
    async def seen(branch: Enlisted | None, look: Callable[[], Enlisted | None]) -> None:
        if branch is not None:
            with working_for(branch):
                await asyncio.sleep(0)
                assert look() == branch
        assert look() is None

    await asyncio.gather(seen(BRANCH, current_branch), seen(None, current_branch))
