"""A coordinator that says what a test tells it to: nonsense, statuses, and answers that no sound one would give."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
from google.protobuf.message import Message
from pincex.tx.v1 import transaction_pb2 as wire

from coordinator.api.grpc_errors import DETAILS_KEY, code_of, status_of
from coordinator.errors import TransactionError
from participant_sdk.ids import Xid

SERVICE = wire.DESCRIPTOR.services_by_name["TransactionService"].full_name
XID = Xid.make(1_700_000_000_000, 7, 1)
COMMITTED = wire.TransactionResult(xid=str(XID), outcome=wire.OUTCOME_COMMITTED, applied=True)
ROLLED_BACK = wire.TransactionResult(xid=str(XID), outcome=wire.OUTCOME_ROLLED_BACK, reason="TOLD_TO", applied=True)
NOTHING = wire.TransactionResult()

Line = wire.TransactionResult | wire.DecisionState.ValueType | grpc.StatusCode | TransactionError


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


class Scripted:
    """Answers each call with the next line of its script; the last line is said for ever.

    A script for Begin holds only what goes wrong before it is answered. ``begun`` are its request_ids.
    """

    def __init__(self, **scripts: Sequence[Line]) -> None:
        self._scripts = {call: list(lines) for call, lines in scripts.items()}
        self.calls: list[str] = []
        self.begun: list[str] = []

    def handlers(self) -> dict[str, Any]:
        """The handlers of the calls that have answers here; all others are not implemented."""
        return {
            "Begin": grpc.unary_unary_rpc_method_handler(self._begin, None, wire.BeginResponse.SerializeToString),
            "Execute": self._handler("execute", lambda line: wire.ExecuteResponse(result=line)),
            "Commit": self._handler("commit", lambda line: wire.TransactionServiceCommitResponse(result=line)),
            "Rollback": self._handler("rollback", lambda line: wire.TransactionServiceRollbackResponse(result=line)),
            "GetDecision": self._handler("decision", lambda line: wire.GetDecisionResponse(decision=line)),
        }

    async def _begin(self, request: bytes, context: Any) -> wire.BeginResponse:
        self.begun.append(wire.BeginRequest.FromString(request).request_id)
        script = self._scripts.get("begin", [])
        if script:
            await _abort(script.pop(0), context)
        return wire.BeginResponse(xid=str(XID))

    def _handler(self, call: str, answer: Callable[[Any], Message]) -> Any:
        async def say(_: object, context: Any) -> Message:
            self.calls.append(call)
            script = self._scripts[call]
            line = script.pop(0) if len(script) > 1 else script[0]
            await _abort(line, context)
            return answer(line)

        return cast("Any", grpc.unary_unary_rpc_method_handler(say, None, _serialized))


async def _abort(line: Line, context: Any) -> None:
    if isinstance(line, TransactionError):
        status = status_of(line)
        await context.abort(code_of(line), status.message, ((DETAILS_KEY, status.SerializeToString()),))
    if isinstance(line, grpc.StatusCode):
        await context.abort(line, "told to")


@asynccontextmanager
async def serving_script(scripted: Scripted) -> AsyncGenerator[str]:
    """Serve it for the time of the block; gives its address."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, scripted.handlers()),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)
