"""The coordinators that a participant in doubt asks: two that the kit serves, which say what a check told them to.

Both are named in every Hello. Who asks of a transaction that no check prepared an answer for
hears PENDING, which ends no doubt.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc
from pincex.tx.v1 import transaction_pb2

from participant_sdk.conformance.calls import Speaker
from participant_sdk.grpc_options import SERVER_OPTIONS
from participant_sdk.ids import Xid

COORDINATORS: Final = 2
SERVICE: Final = transaction_pb2.DESCRIPTOR.services_by_name["TransactionService"].full_name

# A decision, or the status that the call fails with.
Answer = transaction_pb2.GetDecisionResponse | grpc.StatusCode
# Which coordinator is asked, from 0, and how often this transaction was asked about before.
Script = Callable[[int, int], Answer]

_Context = grpc.aio.ServicerContext[transaction_pb2.GetDecisionRequest, transaction_pb2.GetDecisionResponse]


@dataclass(slots=True)
class Asked:
    """What participants asked, and what they are to hear. Mutable: it grows."""

    speaker: Speaker
    addresses: list[str] = field(default_factory=list[str])
    inquiries: dict[Xid, list[transaction_pb2.GetDecisionRequest]] = field(
        default_factory=dict[Xid, list[transaction_pb2.GetDecisionRequest]]
    )
    _scripts: dict[Xid, Script] = field(default_factory=dict[Xid, Script])
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, xid: Xid, script: Script) -> None:
        """Have inquiries about a transaction answered by a script from now on."""
        self._scripts[xid] = script

    def about(self, xid: Xid) -> Sequence[transaction_pb2.GetDecisionRequest]:
        """The inquiries about one transaction so far."""
        return self.inquiries.get(xid, ())

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait for the condition, which is looked at after every inquiry; whether it came to hold in time."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def hear(self, coordinator: int, request: transaction_pb2.GetDecisionRequest) -> Answer:
        """Note an inquiry, and find the answer to it."""
        if request.log_id not in {"", self.speaker.log_id}:
            return grpc.StatusCode.FAILED_PRECONDITION
        try:
            xid = Xid.parse(request.xid)
        except ValueError:
            return grpc.StatusCode.INVALID_ARGUMENT
        before = self.inquiries.setdefault(xid, [])
        script = self._scripts.get(xid, self._pending)
        answer = script(coordinator, len(before))
        before.append(request)
        self._changed.set()
        return answer

    def decision(
        self, state: transaction_pb2.DecisionState.ValueType, *, incarnation: int = 0, sequence: int = 0
    ) -> transaction_pb2.GetDecisionResponse:
        """Make an answer of the current epoch."""
        return transaction_pb2.GetDecisionResponse(
            decision=state, incarnation=incarnation, sequence=sequence, epoch=self.speaker.epoch
        )

    def _pending(self, _coordinator: int, _before: int) -> Answer:
        return self.decision(transaction_pb2.DECISION_STATE_PENDING)


class _Coordinator:
    """One of the coordinators. It serves GetDecision, and nothing else."""

    def __init__(self, asked: Asked, number: int) -> None:
        self._asked = asked
        self._number = number

    def add_to(self, server: grpc.aio.Server) -> None:
        """Have a server serve it."""
        handler = grpc.unary_unary_rpc_method_handler(
            self._get_decision,
            request_deserializer=transaction_pb2.GetDecisionRequest.FromString,
            response_serializer=transaction_pb2.GetDecisionResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"GetDecision": handler}),))

    async def _get_decision(
        self, request: transaction_pb2.GetDecisionRequest, context: _Context
    ) -> transaction_pb2.GetDecisionResponse:
        """Say what the check wants said."""
        answer = self._asked.hear(self._number, request)
        if isinstance(answer, grpc.StatusCode):
            await context.abort(answer, "the kit says so")
        return answer


@asynccontextmanager
async def answering(speaker: Speaker, host: str) -> AsyncGenerator[Asked]:
    """Serve the coordinators on free ports of a host, for the time of the block. OSError when that fails."""
    asked = Asked(speaker)
    servers: list[grpc.aio.Server] = []
    try:
        for number in range(COORDINATORS):
            server = grpc.aio.server(options=SERVER_OPTIONS)
            servers.append(server)
            _Coordinator(asked, number).add_to(server)
            asked.addresses.append(f"{host}:{_listen(server, host)}")
            await server.start()
        yield asked
    finally:
        for server in servers:
            await server.stop(0)


def _listen(server: grpc.aio.Server, host: str) -> int:
    try:
        port = server.add_insecure_port(f"{host}:0")
    except RuntimeError as error:
        raise OSError(f"cannot listen on {host}: {error}") from error
    if not port:
        raise OSError(f"cannot listen on {host}")
    return port
