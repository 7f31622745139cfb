"""Bad input over gRPC: a clear status with details that name the field; nothing is held afterwards."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from pincex.tx.v1 import common_pb2, transaction_pb2

from coordinator.api.grpc_server import REQUEST_MAX_BYTES
from tests.api.doors import Doors, Refused, operation, read_refusal, transfer
from tests.sdk.small_system import LEFT, RIGHT

Request = transaction_pb2.ExecuteRequest

XID_UNKNOWN: Final = "01890000-0000-8000-8000-000000000001"
NO_PARAMETERS: Final = common_pb2.Operation(service=LEFT, operation="transfer")
# Five of them are more than a transaction's parameters may take together; each alone is good.
PADDED: Final = '{"from": "a", "to": "b", "amount": 1}'.ljust(60_000)
TRANSFER: Final = '{"from": "a", "to": "b", "amount": %s}'


def asking(parameters: str, service: str = RIGHT, name: str = "transfer") -> Request:
    """A good operation at left, then this one."""
    return Request(operations=[operation(), operation(service, name, parameters)])


def lasting(seconds: int, nanos: int = 0) -> Request:
    return Request(operations=[operation()], timeout=Duration(seconds=seconds, nanos=nanos))


AT_THE_DOOR: Final = {
    "no operations": (Request(), "operations", "OPERATION_COUNT"),
    "too many operations": (Request(operations=[operation()] * 101), "operations", "OPERATION_COUNT"),
    "too much in all": (Request(operations=[operation(parameters=PADDED)] * 5), "operations", "OPERATIONS_TOO_LARGE"),
    "unknown service": (asking("{}", "nobody"), "operations[1].service", "SERVICE_UNKNOWN"),
    "malformed service": (asking("{}", "No Body"), "operations[1].service", "NAME_MALFORMED"),
    "malformed operation": (asking("{}", name="Rm -rf"), "operations[1].operation", "NAME_MALFORMED"),
    "no parameters": (Request(operations=[NO_PARAMETERS]), "operations[0].parameters", "JSON_INVALID"),
    "malformed JSON": (asking("{'a': 1}"), "operations[1].parameters", "JSON_INVALID"),
    "JSON that is cut off": (asking('{"a": '), "operations[1].parameters", "JSON_INVALID"),
    "no JSON object": (asking("[1]"), "operations[1].parameters", "JSON_INVALID"),
    "a key twice": (asking('{"to": "b", "to": "c"}'), "operations[1].parameters.to", "JSON_INVALID"),
    "NaN": (asking(TRANSFER % "NaN"), "operations[1].parameters.amount", "JSON_INVALID"),
    "infinity": (asking(TRANSFER % "-Infinity"), "operations[1].parameters.amount", "JSON_INVALID"),
    "1e400": (asking(TRANSFER % "1e400"), "operations[1].parameters.amount", "JSON_INVALID"),
    "too many digits": (asking(TRANSFER % ("9" * 39)), "operations[1].parameters.amount", "JSON_INVALID"),
    "a fault deep inside": (asking('{"a": [{"b": 1}, {"b": NaN}]}'), "operations[1].parameters.a[1].b", "JSON_INVALID"),
    "too deep": (asking('{"a":' * 40 + "1" + "}" * 40), "operations[1].parameters", "JSON_INVALID"),
    "far too deep": (asking("[" * 30_000), "operations[1].parameters", "JSON_INVALID"),
    "too large": (asking('{"a": "' + "x" * 70_000 + '"}'), "operations[1].parameters", "JSON_INVALID"),
    "a NUL": (asking('{"from": "a\\u0000"}'), "operations[1].parameters.from", "JSON_INVALID"),
    "half a surrogate pair": (asking('{"from": "\\ud800"}'), "operations[1].parameters.from", "JSON_INVALID"),
    "a key that is no text": (asking('{"\\ud800": {"a": NaN}}'), "operations[1].parameters", "JSON_INVALID"),
    "no time": (lasting(0), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    "negative time": (lasting(-5), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    "too much time": (lasting(3301), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    "no duration": (lasting(1, 2_000_000_000), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    "time of mixed signs": (lasting(1, -500_000_000), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    "negative time of mixed signs": (lasting(-1, 500_000_000), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    "a nanosecond too much time": (lasting(3300, 1), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    "a huge exponent": (
        asking(TRANSFER % "1e999999999999999999999999"),
        "operations[1].parameters.amount",
        "JSON_INVALID",
    ),
    "a minute exponent": (
        asking(TRANSFER % "1e-999999999999999999999"),
        "operations[1].parameters.amount",
        "JSON_INVALID",
    ),
    "a zero with one": (
        asking(TRANSFER % "0e999999999999999999999"),
        "operations[1].parameters.amount",
        "JSON_INVALID",
    ),
    "endless time": (lasting(2**62), "timeout", "TIMEOUT_OUT_OF_RANGE"),
    "request_id with spaces": (transfer(request_id="a b"), "request_id", "REQUEST_ID_MALFORMED"),
    "request_id too long": (transfer(request_id="x" * 129), "request_id", "REQUEST_ID_MALFORMED"),
    "request_id beyond ASCII": (transfer(request_id="é"), "request_id", "REQUEST_ID_MALFORMED"),
    "unknown wait": (Request(operations=[operation()], wait=7), "wait", "WAIT_UNKNOWN"),  # pyright: ignore[reportArgumentType]  Meant.
}

AT_THE_PARTICIPANT: Final = {
    "unknown operation": (asking("{}", name="steal"), "operations[1].operation"),
    "missing parameter": (asking('{"from": "a", "to": "b"}'), "operations[1].parameters.amount"),
    "extra parameter": (
        asking('{"from": "a", "to": "b", "amount": 1, "tip": 1}'),
        "operations[1].parameters.tip",
    ),
    "wrong type": (asking('{"from": 7, "to": "b", "amount": 1}'), "operations[1].parameters.from"),
    "negative amount": (asking(TRANSFER % "-1"), "operations[1].parameters.amount"),
    "zero amount": (asking(TRANSFER % "0"), "operations[1].parameters.amount"),
    "over-precise amount": (asking(TRANSFER % "0.1234567890123456789"), "operations[1].parameters.amount"),
}


async def refusal_of(doors: Doors, request: Request) -> Refused:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await doors.stub.Execute(request)
    return read_refusal(raised.value)


def raw(doors: Doors, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """A method that takes and gives bytes as they are."""
    return doors.channel.unary_unary(f"/pincex.tx.v1.{method}")


async def test_the_door_refuses_what_is_wrong_in_itself(open_doors: Doors) -> None:
    """Each names its field, and begins nothing."""
    for case, (request, field, reason) in AT_THE_DOOR.items():
        refused = await refusal_of(open_doors, request)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT, case
        assert (refused.field, refused.info.reason) == (field, reason), case
        assert refused.info.domain == "pincex.tx", case
        assert refused.message, case
    assert open_doors.assembly.engine.unfinished == 0
    assert open_doors.nothing_held()
    assert not open_doors.lines.getvalue()


async def test_a_message_that_is_too_large_is_refused_before_anybody_reads_it(open_doors: Doors) -> None:
    large = operation(parameters=PADDED)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await open_doors.stub.Execute(Request(operations=[large] * (REQUEST_MAX_BYTES // large.ByteSize() + 1)))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert open_doors.assembly.engine.unfinished == 0


async def test_what_a_participant_refuses_names_the_field_of_the_request(open_doors: Doors) -> None:
    """The branch's operation 0 is the request's operation 1; the transaction is rolled back everywhere."""
    for case, (request, field) in AT_THE_PARTICIPANT.items():
        refused = await refusal_of(open_doors, request)
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT, case
        assert refused.field == field, case
        assert refused.info.metadata["state"] == "ROLLED_BACK", case
        xid = refused.info.metadata["transaction_id"]
        shown = (await open_doors.stub.GetTransaction(transaction_pb2.GetTransactionRequest(xid=xid))).transaction
        assert shown.result.outcome == transaction_pb2.OUTCOME_ROLLED_BACK, case
        assert xid in refused.message, case
    assert open_doors.nothing_held()


async def test_a_bound_request_id_refuses_other_operations(open_doors: Doors) -> None:
    bound = await open_doors.stub.Execute(transfer(request_id="once"))
    refused = await refusal_of(open_doors, transfer(request_id="once", amount="6"))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (refused.field, refused.info.reason) == ("request_id", "REQUEST_ID_REUSED")
    assert refused.info.metadata["transaction_id"] == bound.result.xid


async def test_a_request_id_in_use_by_other_operations_is_aborted_with_a_time_to_come_again(open_doors: Doors) -> None:
    open_doors.around.taps[LEFT].shut()
    first = open_doors.stub.Execute(transfer(request_id="busy"))
    while not open_doors.assembly.engine.in_flight:  # noqa: ASYNC110 - the engine has no event for its beginnings.
        await asyncio.sleep(0.001)
    refused = await refusal_of(open_doors, transfer(request_id="busy", amount="6"))
    assert (refused.code, refused.info.reason) == (grpc.StatusCode.ABORTED, "REQUEST_ID_IN_USE")
    retry = refused.details["RetryInfo"]
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToTimedelta().total_seconds() > 0
    open_doors.around.taps[LEFT].open()
    assert (await first).result.xid == refused.info.metadata["transaction_id"]


async def test_a_time_out_is_told_exactly(open_doors: Doors) -> None:
    assert (await refusal_of(open_doors, lasting(3300, 1))).message.endswith("not 3300.000000001")


async def test_a_refusal_for_bad_parameters_stays_with_its_request_id(open_doors: Doors) -> None:
    """R3: the "no" is bound, and told again as the same error."""
    request = asking(TRANSFER % "-1")
    request.request_id = "bad-order"
    first = await refusal_of(open_doors, request)
    again = await refusal_of(open_doors, request)
    assert (again.field, again.info.metadata) == (first.field, first.info.metadata)


async def test_xids_that_are_none_or_unknown(open_doors: Doors) -> None:
    stub = open_doors.stub
    for text in ("", "nonsense", "01890000-0000-4000-8000-000000000001", XID_UNKNOWN.replace("-", "")):
        for call in (
            stub.GetTransaction(transaction_pb2.GetTransactionRequest(xid=text)),
            stub.Commit(transaction_pb2.TransactionServiceCommitRequest(xid=text)),
            stub.GetDecision(transaction_pb2.GetDecisionRequest(xid=text)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await call
            refused = read_refusal(raised.value)
            assert (refused.code, refused.field) == (grpc.StatusCode.INVALID_ARGUMENT, "xid")
    for call in (
        stub.GetTransaction(transaction_pb2.GetTransactionRequest(xid=XID_UNKNOWN)),
        stub.Commit(transaction_pb2.TransactionServiceCommitRequest(xid=XID_UNKNOWN)),
        stub.Rollback(transaction_pb2.TransactionServiceRollbackRequest(xid=XID_UNKNOWN)),
        stub.Enlist(transaction_pb2.EnlistRequest(xid=XID_UNKNOWN, participant=LEFT)),
        stub.SetRollbackOnly(transaction_pb2.SetRollbackOnlyRequest(xid=XID_UNKNOWN)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        refused = read_refusal(raised.value)
        assert (refused.code, refused.info.metadata["field"]) == (grpc.StatusCode.NOT_FOUND, "xid")
        resource = refused.details["ResourceInfo"]
        assert isinstance(resource, error_details_pb2.ResourceInfo)
        assert resource.resource_name == XID_UNKNOWN


async def test_bytes_that_are_no_message_are_the_callers_mistake(open_doors: Doors) -> None:
    for method in ("Execute", "GetTransaction", "Begin"):
        call = raw(open_doors, f"TransactionService/{method}")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"\xff\xff\xff")
        assert read_refusal(raised.value).info.reason == "MESSAGE_MALFORMED"
    watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = open_doors.channel.unary_stream(
        "/pincex.tx.v1.TransactionService/WatchTransactions"
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await watch(b"\xff\xff\xff").read()
    assert read_refusal(raised.value).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_method_that_is_not_there_is_told_with_details_too(open_doors: Doors) -> None:
    for method in ("TransactionService/Exceute", "NoService/Execute"):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await raw(open_doors, method)(b"")
        refused = read_refusal(raised.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN")
        assert method in refused.message


async def test_pages_and_filters_out_of_range(open_doors: Doors) -> None:
    stub = open_doors.stub
    for request, field in (
        (transaction_pb2.ListTransactionsRequest(page_size=1001), "page_size"),
        (transaction_pb2.ListTransactionsRequest(page_token=XID_UNKNOWN[:-1]), "page_token"),
        (transaction_pb2.ListTransactionsRequest(phase=99), "phase"),  # pyright: ignore[reportArgumentType]  Meant.
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ListTransactions(request)
        assert read_refusal(raised.value).field == field
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.Rollback(transaction_pb2.TransactionServiceRollbackRequest(reason="no target"))
    assert read_refusal(raised.value).field == "which"
