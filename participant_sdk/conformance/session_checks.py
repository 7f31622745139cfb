"""Checks of Session alone: frames with several halves, large ones, bad ones, and introductions in between."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.bench import Bench, expect_ack, expect_no
from participant_sdk.conformance.calls import SessionCalls
from participant_sdk.conformance.line import CALL_TIMEOUT_S
from participant_sdk.conformance.report import DeviationError, expect
from participant_sdk.conformance.words import shown
from participant_sdk.participant import Operation

_SESSION: Final = "/pincex.tx.v1.ResourceService/Session"
_LARGE_BRANCHES: Final = 60
_LARGE_PARAMETERS_BYTES: Final = 64_000
_MANY: Final = 1_000


async def a_frame_may_carry_all_parts(bench: Bench) -> None:
    """A frame with commits, rollbacks and prepares does all, in this order: a Commit does not see its Prepare."""
    exercise = bench.exercise
    first, second = await bench.prepared(exercise.yes[0]), await bench.prepared(exercise.yes[1])
    unknown, late = bench.an_xid(), bench.an_xid()
    answers = await _session(bench).together(
        [bench.decided(first), bench.decided(unknown)],
        [second, late],
        [bench.request(unknown, exercise.yes[0]), bench.request(late, exercise.yes[1])],
    )
    await bench.rollback(unknown)
    for ack, kind in zip(
        [*answers.commits, *answers.rollbacks],
        (
            common_pb2.ACK_KIND_DONE,
            common_pb2.ACK_KIND_HEURISTIC_HAZARD,
            common_pb2.ACK_KIND_DONE,
            common_pb2.ACK_KIND_DONE,
        ),
        strict=True,
    ):
        expect_ack(ack, kind)
    expect(answers.votes[0].kind == common_pb2.VOTE_KIND_PREPARED, f"after its Commit came: {shown(answers.votes[0])}")
    vote = answers.votes[1]
    expect(vote.kind == common_pb2.VOTE_KIND_ROLLED_BACK, f"after its Rollback came: {shown(vote)}")


async def a_large_frame_is_answered(bench: Bench) -> None:
    """A frame of four megabytes, and one of a thousand branches, get an answer for every branch."""
    padded = Operation(bench.exercise.participant, "no_such_operation", f'{{"a":"{"x" * _LARGE_PARAMETERS_BYTES}"}}')
    for operation, count in ((padded, _LARGE_BRANCHES), (bench.exercise.no, _MANY)):
        xids = [bench.an_xid() for _ in range(count)]
        votes = await bench.calls.prepare([bench.request(xid, operation) for xid in xids])
        for vote in votes:
            expect_no(vote)
        for ack in await bench.calls.rollback(xids):
            expect_ack(ack, common_pb2.ACK_KIND_ALREADY_DONE, common_pb2.ACK_KIND_DONE)


async def a_hello_is_answered_again(bench: Bench) -> None:
    """Every Hello of a session is answered, with its number and with what was applied meanwhile."""
    session = _session(bench)
    for number in (2, 3):
        expect_ack(await bench.commit(await bench.prepared()), common_pb2.ACK_KIND_DONE)
        request = bench.greeting()
        request.number = number
        welcome = await session.hello(request)
        expect(not welcome.refusal, f"refused: {welcome.refusal}")
        expect(welcome.number == number, f"Hello number {number} was answered with number {welcome.number}")
        marks = {mark.incarnation: mark.sequence for mark in welcome.watermarks}
        expect(marks.get(bench.speaker.incarnation) == bench.sequence, f"the watermarks are {marks}")


async def a_session_is_of_one_log(bench: Bench) -> None:
    """A Hello that names another log within a session is refused with LOG_MISMATCH; the participant lives on."""
    async with bench.session() as session:
        request = bench.greeting()
        request.log_id = request.log_id[::-1]
        welcome = await session.hello(request)
        expect(welcome.refusal == "LOG_MISMATCH", f"the refusal is {welcome.refusal!r}")
    await _expect_alive(bench)


async def a_bad_field_is_its_own_branchs_no(bench: Bench) -> None:
    """One branch of a frame with a field that is wrong gets a no; what travels with it gets its own vote."""
    good = bench.request(bench.an_xid(), bench.exercise.yes[0])
    bad = [bench.request(bench.an_xid(), bench.exercise.yes[1]) for _ in range(4)]
    bad[0].remaining_ms = 0
    bad[1].operations[0].service = "somebody-else"
    bad[2].request_id = "with a space"
    bad[3].participants.append("Not A Name")
    votes = await bench.calls.prepare([good, *bad])
    await bench.clean_up()
    expect(votes[0].kind == common_pb2.VOTE_KIND_PREPARED, f"the good one got {shown(votes[0])}")
    for vote in votes[1:]:
        expect_no(vote)


async def a_bad_frame_ends_its_session_alone(bench: Bench) -> None:
    """A frame that makes no sense ends its session; other sessions and calls go on as if nothing were."""
    in_doubt = await bench.prepared()
    frames: list[bytes] = [b"\xff\xff\xff not a message"]
    for change in (_odd_column, _request_missing, _sequence_missing, _odd_rollbacks, _no_epoch):
        frame = resource_pb2.SessionRequest(epoch=bench.speaker.epoch)
        change(frame)
        frames.append(frame.SerializeToString())
    first = resource_pb2.SessionRequest(hello=bench.greeting(), epoch=bench.speaker.epoch).SerializeToString()
    for frame in frames:
        await _expect_ended(bench, first, frame)
    await _expect_ended(bench, frames[1])
    await bench.expect_phase(in_doubt, common_pb2.BRANCH_PHASE_PREPARED)
    expect_ack(await bench.rollback(in_doubt), common_pb2.ACK_KIND_DONE)
    await _expect_alive(bench)


def _odd_column(frame: resource_pb2.SessionRequest) -> None:
    frame.prepares.xids = b"x" * 15


def _request_missing(frame: resource_pb2.SessionRequest) -> None:
    frame.prepares.xids = b"x" * 16


def _sequence_missing(frame: resource_pb2.SessionRequest) -> None:
    frame.commits.add(xids=b"x" * 32, incarnation=1, sequences=[1])


def _odd_rollbacks(frame: resource_pb2.SessionRequest) -> None:
    frame.rollbacks.xids = b"x" * 17


def _no_epoch(frame: resource_pb2.SessionRequest) -> None:
    frame.commits.add(xids=b"x" * 16, incarnation=0, sequences=[0])


async def _expect_ended(bench: Bench, *frames: bytes) -> None:
    """Send frames as they are; DeviationError unless the session ends, with or without a status."""
    # Without serializers, bytes go and come as they are.
    opening: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = bench.line.channel.stream_stream(_SESSION)
    call = opening(timeout=CALL_TIMEOUT_S)
    bench.line.exchange.sent("Session", repr(frames[-1]))
    try:
        for frame in frames:
            await call.write(frame)
        while await call.read() is not grpc.aio.EOF:
            pass
        code = await call.code()
    except grpc.aio.AioRpcError as error:
        code = error.code()
    except asyncio.InvalidStateError:
        # It ended before all was written.
        code = await call.code()
    finally:
        call.cancel()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise DeviationError(f"a session with a frame that makes no sense goes on: {frames[-1]!r}")


async def _expect_alive(bench: Bench) -> None:
    async with bench.session() as session:
        request = bench.request(bench.an_xid(), bench.exercise.yes[0])
        (vote,) = await session.prepare([request])
        await bench.clean_up()
        expect(vote.kind == common_pb2.VOTE_KIND_PREPARED, f"afterwards a new session's Prepare got {shown(vote)}")


def _session(bench: Bench) -> SessionCalls:
    if not isinstance(bench.calls, SessionCalls):
        raise DeviationError("this check is made over Session")
    return bench.calls
