"""Peers that answer nonsense: the session ends with a reason, the link lives, and nothing becomes a yes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import grpc
import pytest
from pincex.tx.v1 import common_pb2, resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceStub

from participant_sdk.grpc_options import CHANNEL_OPTIONS, SERVER_OPTIONS
from participant_sdk.server import serving
from participant_sdk.wire import write_introduction
from participant_sdk.xa import AckKind, Decision, VoteKind
from tests.sdk.peers import (
    CLOCK,
    EPOCH,
    LOG_ID,
    NAME,
    Told,
    introduction,
    linked,
    memory,
    new_xid,
    transfer,
    until_unreachable,
)

SERVICE = "pincex.tx.v1.ResourceService"
Session = grpc.aio.StreamStreamCall[resource_pb2.SessionRequest, resource_pb2.SessionResponse]
RawSession = grpc.aio.StreamStreamCall[bytes, bytes]
Respond = Callable[[resource_pb2.SessionRequest], bytes | None]


def welcome(**changes: object) -> resource_pb2.HelloResponse:
    message = resource_pb2.HelloResponse(participant=NAME, clock_unix_ms=CLOCK.unix_ms(), epoch=EPOCH, session=True)
    for field, value in changes.items():
        setattr(message, field, value)
    return message


@asynccontextmanager
async def scripted(respond: Respond, hello: resource_pb2.HelloResponse | None = None) -> AsyncGenerator[int]:
    """A participant whose Session answers each frame after the Hello with the bytes that ``respond`` gives."""

    async def on_hello(_request: bytes, _context: object) -> bytes:
        return welcome().SerializeToString()

    async def on_session(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        await context.read()
        await context.write(resource_pb2.SessionResponse(hello=hello or welcome()).SerializeToString())
        while (raw := await context.read()) is not grpc.aio.EOF:
            answer = respond(resource_pb2.SessionRequest.FromString(raw))
            if answer is None:
                return
            await context.write(answer)

    server = grpc.aio.server(options=SERVER_OPTIONS)
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Hello": grpc.unary_unary_rpc_method_handler(on_hello),  # pyright: ignore[reportArgumentType]  The stubs know no coroutines here.
        "Session": grpc.stream_stream_rpc_method_handler(on_session),  # pyright: ignore[reportArgumentType]  As above.
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def votes(**fields: object) -> bytes:
    return resource_pb2.SessionResponse(votes=resource_pb2.VoteBatch(**fields)).SerializeToString()  # pyright: ignore[reportArgumentType]  Wrong on purpose.


def acks(**fields: object) -> bytes:
    return resource_pb2.SessionResponse(commit_acks=resource_pb2.AckBatch(**fields)).SerializeToString()  # pyright: ignore[reportArgumentType]  Wrong on purpose.


YES = common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED)
NONSENSE = {
    "a column that does not divide": votes(prepared_xids=b"x" * 17),
    "more votes than xids": votes(xids=b"x" * 16, votes=[YES, YES]),
    "more xids than votes": votes(xids=b"x" * 32, votes=[YES]),
    "more acknowledgements than xids": acks(acks=[common_pb2.Ack(kind=common_pb2.ACK_KIND_DONE)]),
    "bytes that are no message": b"\xff\xff\xff\xff",
    "a refusal": resource_pb2.SessionResponse(hello=welcome(refusal="LOG_MISMATCH")).SerializeToString(),
    "another participant": resource_pb2.SessionResponse(hello=welcome(participant="x")).SerializeToString(),
    "the end": None,
}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_nonsense_ends_the_session_and_votes_no(nonsense: str) -> None:
    """R2 and R19: what cannot be understood is "no", and the next session begins afresh."""
    told = Told()
    async with scripted(lambda _: NONSENSE[nonsense]) as port, linked(port, told) as link:
        await told.up()
        one = transfer()
        link.prepare(one)
        vote = await told.vote(one.xid)
        assert (vote.kind, vote.transient) == (VoteKind.ROLLED_BACK, True)
        assert vote.reason == "PARTICIPANT_UNREACHABLE"
        assert await told.down()
        await told.up(times=2)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"participant": "trading"}, "not 'memory'"),
        ({"clock_unix_ms": 5}, "CLOCKS_APART"),
        ({"epoch": EPOCH - 1}, "epoch 6"),
        ({"epoch": EPOCH + 1}, "epoch 8"),
        ({"refusal": "EPOCH_STALE"}, "EPOCH_STALE"),
    ],
)
async def test_a_wrong_welcome_is_no_session(wrong: dict[str, object], reason: str) -> None:
    """Who answers, its clock and its epoch are judged before anything is sent."""
    told = Told()
    async with scripted(lambda _: b"", welcome(**wrong)) as port, linked(port, told) as link:
        await until_unreachable(link, told, reason)
        assert not told.welcomes


async def test_a_participant_that_says_nothing_to_hello_is_given_up() -> None:
    """Opening a session has a time-out."""

    async def silent(_request: bytes, _context: object) -> bytes:
        await asyncio.Event().wait()
        return b""

    server = grpc.aio.server(options=SERVER_OPTIONS)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(silent)  # pyright: ignore[reportArgumentType]  The stubs know no coroutines here.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Hello": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    told = Told()
    async with linked(port, told, timeout_s=0.2) as link:
        await until_unreachable(link, told, "no answer to Hello")
    await server.stop(None)


async def test_unknown_votes_and_acknowledgements_promise_nothing() -> None:
    """R2: an unknown vote is "no"; an unknown acknowledgement is none. The session goes on."""
    told = Told()
    one = transfer()
    frame = resource_pb2.SessionResponse(
        votes=resource_pb2.VoteBatch(xids=one.xid, votes=[common_pb2.Vote(kind=9)]),  # pyright: ignore[reportArgumentType]  Unknown on purpose.
        commit_acks=resource_pb2.AckBatch(xids=one.xid, acks=[common_pb2.Ack(kind=99)]),  # pyright: ignore[reportArgumentType]  As above.
    )
    async with scripted(lambda _: frame.SerializeToString()) as port, linked(port, told) as link:
        await told.up()
        link.prepare(one)
        vote = await told.vote(one.xid)
        assert (vote.reason, vote.transient) == ("UNKNOWN_VOTE", True)
        assert (await told.ack(Decision.COMMIT, one.xid)).kind is AckKind.RETRY
        assert link.is_up


async def test_a_session_whose_introduction_is_not_answered_is_given_up() -> None:
    """What waits for the report would wait for ever (R15). A welcome without a number answers the oldest question."""
    told, silence = Told(), resource_pb2.SessionResponse().SerializeToString()
    async with scripted(lambda _: silence) as port, linked(port, told, timeout_s=0.3) as link:
        assert (await told.up()).number == 0
        link.introduce()
        assert "introduction" in await told.down()
        await told.up(times=2)


async def test_votes_of_strangers_are_passed_on_for_the_engine_to_ignore() -> None:
    """A late vote, of a transaction long forgotten, is nothing wrong."""
    told, stranger = Told(), new_xid()
    async with scripted(lambda _: votes(prepared_xids=stranger)) as port, linked(port, told) as link:
        await told.up()
        link.prepare(transfer())
        assert (await told.vote(stranger)).is_yes
        assert link.is_up


def hello_frame(**parts: object) -> resource_pb2.SessionRequest:
    return resource_pb2.SessionRequest(hello=write_introduction(introduction(), CLOCK.unix_ms()), epoch=EPOCH, **parts)  # pyright: ignore[reportArgumentType]  Wrong on purpose.


async def code_at_end(call: RawSession | Session) -> grpc.StatusCode:
    """Read to the end, behind which gRPC keeps the status."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code()


# Made when they are sent: a Hello tells the time.
BAD_FRAMES: dict[str, Callable[[], resource_pb2.SessionRequest]] = {
    "no Hello": lambda: resource_pb2.SessionRequest(epoch=EPOCH),
    "a Hello without a log": lambda: resource_pb2.SessionRequest(hello=resource_pb2.HelloRequest(coordinator="c")),
    "a column that does not divide": lambda: hello_frame(rollbacks=resource_pb2.RollbackBatch(xids=b"x")),
    "fewer requests than xids": lambda: hello_frame(prepares=resource_pb2.PrepareBatch(xids=b"x" * 16)),
    "fewer sequences than xids": lambda: hello_frame(commits=[resource_pb2.CommitBatch(xids=b"x" * 16, incarnation=1)]),
    "a commit without an incarnation": lambda: hello_frame(
        commits=[resource_pb2.CommitBatch(xids=b"x" * 16, sequences=[1])]
    ),
    "a sequence too large": lambda: hello_frame(
        commits=[resource_pb2.CommitBatch(xids=b"x" * 16, incarnation=1, sequences=[2**63])]
    ),
}


@pytest.mark.parametrize("bad", BAD_FRAMES)
async def test_a_coordinators_nonsense_ends_its_session_alone(bad: str) -> None:
    """The coordinator is told what was wrong; the participant goes on serving others."""
    told, resource = Told(), memory()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=CHANNEL_OPTIONS) as channel:
            call = ResourceServiceStub(channel).Session()
            await call.write(BAD_FRAMES[bad]())
            assert await code_at_end(call) is grpc.StatusCode.INVALID_ARGUMENT
            assert await call.details()
        one = transfer()
        link.prepare(one)
        assert (await told.vote(one.xid)).is_yes
        assert not told.reasons


def read_hello(frame: object) -> resource_pb2.HelloResponse:
    assert isinstance(frame, resource_pb2.SessionResponse)
    return frame.hello


async def test_a_second_introduction_for_another_log_is_refused() -> None:
    """R18: a session speaks for one log."""
    async with (
        serving(memory(), "127.0.0.1:0") as served,
        grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=CHANNEL_OPTIONS) as channel,
    ):
        call = ResourceServiceStub(channel).Session()
        await call.write(hello_frame())
        assert not read_hello(await call.read()).refusal
        other = hello_frame()
        other.hello.log_id = LOG_ID.replace("a", "b")
        await call.write(other)
        assert read_hello(await call.read()).refusal == "LOG_MISMATCH"
        assert await call.read() is grpc.aio.EOF


@pytest.mark.parametrize("seed", range(20))
async def test_random_bytes_neither_stop_nor_move_a_participant(seed: int) -> None:
    """Malformed protobuf on the stream: the session ends, and nothing else happens."""
    told, resource = Told(), memory()
    async with serving(resource, "127.0.0.1:0") as served, linked(served.port, told) as link:
        await told.up()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}", options=CHANNEL_OPTIONS) as channel:
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/Session")
            call = method()
            await call.write(hello_frame().SerializeToString())
            await call.read()
            await call.write(random.Random(seed).randbytes(40))
            await call.done_writing()
            await code_at_end(call)
        one = transfer()
        link.prepare(one)
        assert (await told.vote(one.xid)).is_yes
    assert not resource.invariants()
