"""A server that answers and does nothing: ``python -m tests.benchmarks.grpc_echo PORT``.

It serves Execute and ExecuteStream, and makes a message for each answer. What it costs is gRPC's and protobuf's price.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Final

import grpc
import uvloop
from pincex.tx.v1 import common_pb2, transaction_pb2
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceServicer, add_TransactionServiceServicer_to_server

from participant_sdk import collector
from participant_sdk.grpc_options import SERVER_OPTIONS
from participant_sdk.ids import Xid

_RESULT: Final = transaction_pb2.TransactionResult(
    xid=str(Xid.make(1, 1, 1)),
    outcome=transaction_pb2.OUTCOME_COMMITTED,
    phase=common_pb2.PHASE_COMMITTED,
    applied=True,
    branches=[
        transaction_pb2.BranchResult(
            participant=name, vote=common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED), done=True
        )
        for name in ("payer", "payee")
    ],
)


class Echo(TransactionServiceServicer):
    """Answers every request with the same outcome."""

    async def Execute(  # noqa: N802 - the contract's name
        self,
        request: transaction_pb2.ExecuteRequest,
        context: grpc.aio.ServicerContext[transaction_pb2.ExecuteRequest, transaction_pb2.ExecuteResponse],
    ) -> transaction_pb2.ExecuteResponse:
        """One call, one answer."""
        return transaction_pb2.ExecuteResponse(result=_RESULT)

    async def ExecuteStream(  # noqa: N802 - the contract's name
        self,
        request_iterator: AsyncIterator[transaction_pb2.ExecuteStreamRequest],
        context: grpc.aio.ServicerContext[transaction_pb2.ExecuteStreamRequest, transaction_pb2.ExecuteStreamResponse],
    ) -> AsyncIterator[transaction_pb2.ExecuteStreamResponse]:
        """One frame, one frame of as many answers."""
        async for requests in request_iterator:
            many = range(requests.tag, requests.tag + 1 + len(requests.more))
            answers = [transaction_pb2.ExecuteStreamAnswer(tag=tag, result=_RESULT) for tag in many]
            yield transaction_pb2.ExecuteStreamResponse(answers=answers)


async def _serve(port: int) -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    # Two of its methods are enough here.
    add_TransactionServiceServicer_to_server(Echo(), server)  # pyright: ignore[reportAbstractUsage]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    collector.settle()
    await stopping.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
