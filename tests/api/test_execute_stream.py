"""ExecuteStream: many in flight, each answered once, none lost with the stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from pincex.tx.v1 import transaction_pb2

from coordinator.api.grpc_stream import BEGUN_MAX, PIECE_BYTES, piece_size
from tests.api.doors import Doors, doors, operation, read_refusal, transfer
from tests.sdk.small_system import LEFT, OPENING, RIGHT

Frame = transaction_pb2.ExecuteStreamRequest


async def frames(*given: Frame) -> AsyncIterator[Frame]:
    for frame in given:
        yield frame


async def answers_of(opened: Doors, *given: Frame) -> dict[int, transaction_pb2.ExecuteStreamAnswer]:
    """Send the frames, close, and gather every answer by its tag."""
    found: dict[int, transaction_pb2.ExecuteStreamAnswer] = {}
    async for response in opened.stub.ExecuteStream(frames(*given)):
        for answer in response.answers:
            assert answer.tag not in found
            found[answer.tag] = answer
    return found


async def test_every_request_of_every_frame_is_answered_once(open_doors: Doors) -> None:
    found = await answers_of(
        open_doors,
        Frame(tag=10, request=transfer(), more=[transfer()] * 29),
        Frame(tag=100, request=transfer()),
    )
    assert sorted(found) == [*range(10, 40), 100]
    assert all(answer.result.outcome == transaction_pb2.OUTCOME_COMMITTED for answer in found.values())
    assert open_doors.around.balance(LEFT, "a") == OPENING - 31 * 5


async def _shut_once_begun(opened: Doors) -> None:
    while not opened.assembly.engine.unfinished:  # noqa: ASYNC110 - the engine has no event for its first transaction
        await asyncio.sleep(0)
    opened.gate.close()


@pytest.mark.parametrize(("requests", "amount_chars", "begun"), [(3 * BEGUN_MAX, 1, BEGUN_MAX), (8, 30_000, 4)])
async def test_a_frame_is_begun_in_pieces_and_answered_under_its_tags(
    requests: int, amount_chars: int, begun: int
) -> None:
    """What was begun leaves while the rest is read: so a door that shuts meanwhile shuts before the next piece."""
    request = transfer(amount="5".ljust(amount_chars))
    async with doors(max_concurrent_txns=requests) as opened:
        shutting = asyncio.create_task(_shut_once_begun(opened))
        found = await answers_of(opened, Frame(tag=7, request=request, more=[request] * (requests - 1)))
        await shutting
    assert sorted(found) == [*range(7, 7 + requests)]
    committed = [tag for tag in sorted(found) if found[tag].result.outcome == transaction_pb2.OUTCOME_COMMITTED]
    assert committed == [*range(7, 7 + begun)]
    assert all(found[tag].failure.code == grpc.StatusCode.UNAVAILABLE.value[0] for tag in found if tag not in committed)


@pytest.mark.parametrize(
    ("requests", "under_way", "size"),
    [
        (1, 0, 1),
        (128, 0, 128),
        (129, 0, 65),
        (129, 63, 65),
        (129, 64, 129),
        (255, 0, 128),
        (256, 0, 128),
        (256, 127, 128),
        (256, 128, 256),
        (257, 1_000, 129),
        (512, 0, 256),
        (512, 1_000, 256),
        (1_024, 0, 256),
    ],
)
def test_a_frame_is_begun_whole_unless_it_is_large_or_most_of_what_there_is(
    requests: int, under_way: int, size: int
) -> None:
    assert piece_size(requests, under_way, size_bytes=PIECE_BYTES) == size


@pytest.mark.parametrize(("requests", "size_bytes", "size"), [(1, 1_000_000, 1), (4, 300_000, 2), (16, 1_000_000, 4)])
def test_large_requests_are_begun_a_few_at_a_time(requests: int, size_bytes: int, size: int) -> None:
    """Others have a turn between them."""
    assert piece_size(requests, 1_000, size_bytes) == size


async def test_one_bad_request_fails_alone(open_doors: Doors) -> None:
    """R17 at the door: the failure says what a unary call's status would."""
    bad = transaction_pb2.ExecuteRequest(operations=[operation(), operation("nobody")])
    unreadable = transaction_pb2.ExecuteRequest(operations=[operation(), operation(parameters="{")])
    refused = transaction_pb2.ExecuteRequest(
        operations=[operation(), operation(RIGHT, parameters='{"from": "a", "to": "b", "amount": -1}')]
    )
    found = await answers_of(open_doors, Frame(tag=1, request=transfer(), more=[bad, refused, unreadable, transfer()]))
    assert found[1].result.outcome == found[5].result.outcome == transaction_pb2.OUTCOME_COMMITTED
    assert found[2].failure.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert (found[2].failure.field, found[2].failure.reason) == ("operations[1].service", "SERVICE_UNKNOWN")
    assert found[3].failure.field == "operations[1].parameters.amount"
    assert found[3].failure.xid
    assert (found[4].failure.field, found[4].failure.reason) == ("operations[1].parameters", "JSON_INVALID")
    assert open_doors.nothing_held()


async def test_over_the_limit_is_resource_exhausted_with_a_time_to_come_again() -> None:
    async with doors(max_concurrent_txns=2) as opened:
        opened.around.taps[RIGHT].shut()
        stream = opened.stub.ExecuteStream()
        await stream.write(Frame(tag=1, request=transfer(), more=[transfer(), transfer()]))
        response = await stream.read()
        assert isinstance(response, transaction_pb2.ExecuteStreamResponse)
        (answer,) = response.answers
        assert (answer.tag, answer.failure.reason) == (3, "TOO_MANY_TRANSACTIONS")
        assert answer.failure.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert answer.failure.retry_after.ToTimedelta().total_seconds() > 0
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await opened.stub.Execute(transfer())
        refused = read_refusal(raised.value)
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "RetryInfo" in refused.details
        opened.around.taps[RIGHT].open()
        await stream.done_writing()
        rest: list[int] = []
        while isinstance(response := await stream.read(), transaction_pb2.ExecuteStreamResponse):
            rest += [answer.tag for answer in response.answers]
        assert sorted(rest) == [1, 2]


async def test_a_broken_stream_loses_no_transaction(open_doors: Doors) -> None:
    """R16: a client that leaves stops nothing; by its request_id it learns the outcome."""
    open_doors.around.taps[RIGHT].shut()
    stream = open_doors.stub.ExecuteStream()
    await stream.write(Frame(tag=1, request=transfer(request_id="left-alone")))
    while not open_doors.assembly.engine.unfinished:  # noqa: ASYNC110 - the engine has no event for its beginnings.
        await asyncio.sleep(0.001)
    stream.cancel()
    open_doors.around.taps[RIGHT].open()
    result = (await open_doors.stub.Execute(transfer(request_id="left-alone"))).result
    assert result.outcome == transaction_pb2.OUTCOME_COMMITTED
    assert open_doors.around.balance(LEFT, "a") == OPENING - 5
    assert "Unforeseen" not in open_doors.lines.getvalue()


async def test_a_unary_clients_deadline_stops_nothing_either(open_doors: Doors) -> None:
    """R16, and the caller's status tells no outcome (R19)."""
    open_doors.around.taps[RIGHT].shut()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await open_doors.stub.Execute(transfer(request_id="too-late"), timeout=0.2)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    open_doors.around.taps[RIGHT].open()
    result = (await open_doors.stub.Execute(transfer(request_id="too-late"))).result
    assert result.outcome == transaction_pb2.OUTCOME_COMMITTED
    assert "Unforeseen" not in open_doors.lines.getvalue()


async def test_frames_that_are_wrong_end_the_stream_after_its_answers(open_doors: Doors) -> None:
    for last, reason in ((b"\xff\xff", "MESSAGE_MALFORMED"), (Frame(more=[transfer()] * 1024), "FRAME_TOO_LARGE")):
        call: grpc.aio.StreamStreamCall[bytes, transaction_pb2.ExecuteStreamResponse] = (
            open_doors.channel.stream_stream(
                "/pincex.tx.v1.TransactionService/ExecuteStream",
                request_serializer=_as_it_is,
                response_deserializer=transaction_pb2.ExecuteStreamResponse.FromString,
            )()
        )
        await call.write(Frame(tag=7, request=transfer()).SerializeToString())
        await call.write(last if isinstance(last, bytes) else last.SerializeToString())
        response = await call.read()
        assert isinstance(response, transaction_pb2.ExecuteStreamResponse)
        assert [answer.tag for answer in response.answers] == [7]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        refused = read_refusal(raised.value)
        assert (refused.code, refused.info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


def _as_it_is(message: bytes) -> bytes:
    return message
