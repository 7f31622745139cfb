"""Coordinators over gRPC, as a participant in doubt asks them."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceStub

from participant_sdk.decisions import DecisionAnswer, DecisionQuery
from participant_sdk.grpc_options import CHANNEL_OPTIONS
from participant_sdk.inquiry import NoAnswerError
from participant_sdk.wire_branches import read_decision_answer, write_decision_query

if TYPE_CHECKING:
    # The stubs know it; at run time there is one class for both kinds of channel.
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

ANSWER_TIMEOUT_S: Final = 5.0
CHANNELS_MAX: Final = 100


class GrpcCoordinators:
    """One channel for each coordinator that was asked; closed at the end of ``async with``."""

    def __init__(self, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._answer_timeout_s = answer_timeout_s
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()

    async def decision(self, address: str, query: DecisionQuery) -> DecisionAnswer:
        """Ask the coordinator at an address. NoAnswerError after at most the time-out."""
        stub: TransactionServiceAsyncStub = TransactionServiceStub(await self._channel(address))
        try:
            message = await stub.GetDecision(write_decision_query(query), timeout=self._answer_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise NoAnswerError(f"{error.code().name}: {error.details()}") from error
        # Bytes that do not parse come out of grpc.aio as None.
        answer = read_decision_answer(message) if message else None
        if answer is None:
            raise NoAnswerError("an answer that says nothing")
        return answer

    async def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            if len(self._channels) >= CHANNELS_MAX:
                oldest = next(iter(self._channels))
                await self._channels.pop(oldest).close()
            channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            self._channels[address] = channel
        return channel
