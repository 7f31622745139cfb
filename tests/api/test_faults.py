"""What no rule foresees: told as such, without its text; counted, and written with its traceback."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn

import grpc
import httpx
import pytest
from pincex.tx.v1 import transaction_pb2
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceStub

from coordinator.admission import Limits
from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import AnyContext, Refusals
from coordinator.api.grpc_lock import LockService
from coordinator.api.grpc_recovery import RecoveryService
from coordinator.api.grpc_server import GrpcDoor
from coordinator.api.grpc_transaction import TransactionService
from coordinator.api.grpc_workflow import WorkflowService
from coordinator.api.http_app import HttpRoutes, make_app
from coordinator.engine import Engine
from coordinator.log.decision_log import Incarnation
from coordinator.protocol.outcome import BranchOutcome, Outcome
from coordinator.protocol.phases import Phase
from coordinator.protocol.timing import Timing
from coordinator.requests import Ended, ExecuteCall
from coordinator.running import Finished, Told
from coordinator.telemetry import Telemetry
from participant_sdk.clock import SystemClock
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, Vote, VoteKind
from tests.api.doors import read_refusal, transfer

if TYPE_CHECKING:
    # The generated stubs know this class; the module itself has it not.
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

Frame = transaction_pb2.ExecuteStreamRequest

XID: Final = Xid.make(1, 1, 1)


def fail() -> NoReturn:
    raise ZeroDivisionError("a secret")


async def test_over_http_it_is_500_without_its_text() -> None:
    lines = io.StringIO()
    telemetry = Telemetry("info", lines)
    app = make_app(HttpRoutes(Gate(), telemetry, fail, 1.0))
    # What passes the application is logged by the server, a second time.
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as http:
        response = await http.get("/health/ready")
    assert (response.status_code, response.json()["code"]) == (500, "INTERNAL")
    assert "secret" not in response.text
    assert lines.getvalue().count("ZeroDivisionError: a secret") == 1
    assert 'pincex_faults_total{where="http"} 1.0' in telemetry.metrics.render().decode()


async def test_over_grpc_it_is_internal_without_its_text() -> None:
    lines = io.StringIO()
    telemetry = Telemetry("info", lines)

    async def call(_request: bytes, context: AnyContext) -> bytes:
        async with Refusals(context, telemetry):
            fail()
        return b""

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(call)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Faults", {"Call": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        faulty: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Faults/Call")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await faulty(b"")
    await server.stop(None)
    refused = read_refusal(raised.value)
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in refused.message
    assert lines.getvalue().count("ZeroDivisionError: a secret") == 1


class _Failing(tuple[BranchOutcome, ...]):
    """Branches that nobody can look at."""

    __slots__ = ()

    def __iter__(self) -> Iterator[BranchOutcome]:
        fail()
        return super().__iter__()


class _FaultyEngine(Engine):
    """Fails each request in the way that its id says; commits the others."""

    def submit(self, call: ExecuteCall, told: Told) -> None:
        if call.request_id == "raises":
            fail()
        if call.request_id == "fails":
            told(Ended(Outcome(XID, Decision.ROLLBACK, Phase.ROLLED_BACK, branches=_Failing()), 0.0))
            return
        # Half a surrogate pair is a text in Python, and none in a message.
        results = ("\ud800",) if call.request_id == "cannot-be-written" else ()
        branch = BranchOutcome("left", Vote(VoteKind.PREPARED, results=results), done=True)
        told(Ended(Outcome(XID, Decision.COMMIT, Phase.COMMITTED, branches=(branch,)), 0.0))


class _FaultyGate(Gate):
    def for_new_work(self) -> Engine:
        incarnation = Incarnation("0123456789abcdef", 1, "coordinator", "127.0.0.1:1", 1, 1, 3.0)
        return _FaultyEngine(incarnation, SystemClock(), timing=Timing(), limits=Limits(), on_finished=_nothing)


async def test_in_a_stream_it_is_one_items_failure() -> None:
    """The others of its frame are answered, and the stream goes on."""
    lines = io.StringIO()
    telemetry = Telemetry("info", lines)
    gate = _FaultyGate()
    service = TransactionService(gate, telemetry, timedelta(seconds=1))
    others = (WorkflowService(gate, telemetry), LockService(gate, telemetry))
    door = GrpcDoor(service, RecoveryService(gate, telemetry), *others, telemetry)
    door.listen("127.0.0.1:0")
    await door.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{door.port}") as channel:
        stub: TransactionServiceAsyncStub = TransactionServiceStub(channel)
        stream = stub.ExecuteStream()
        names = ("good", "raises", "fails", "cannot-be-written", "good-too")
        first, *more = [transfer(request_id=name) for name in names]
        await stream.write(Frame(tag=0, request=first, more=more))
        found = await _answers(stream, len(names))
        await stream.write(Frame(tag=9, request=first))
        assert (await _answers(stream, 1))[9].result.outcome == transaction_pb2.OUTCOME_COMMITTED
        await stream.done_writing()
    await door.stop(0)
    assert found[0].result.outcome == found[4].result.outcome == transaction_pb2.OUTCOME_COMMITTED
    for tag in (1, 2, 3):
        failure = found[tag].failure
        assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL.value[0], "INTERNAL")
        assert "secret" not in failure.message
    assert lines.getvalue().count("Unforeseen error") == 3


async def _answers(
    stream: grpc.aio.StreamStreamCall[Frame, transaction_pb2.ExecuteStreamResponse], count: int
) -> dict[int, transaction_pb2.ExecuteStreamAnswer]:
    found: dict[int, transaction_pb2.ExecuteStreamAnswer] = {}
    while len(found) < count:
        response = await stream.read()
        assert isinstance(response, transaction_pb2.ExecuteStreamResponse)
        found |= {answer.tag: answer for answer in response.answers}
    return found


def _nothing(_finished: Finished) -> None:
    """Tell nobody."""
