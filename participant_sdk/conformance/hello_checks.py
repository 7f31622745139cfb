"""Checks of introductions: clocks, epochs, and the watermarks that are reported."""

from __future__ import annotations

import secrets
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.bench import Bench, expect_ack
from participant_sdk.conformance.calls import Decided, SessionCalls, commit_request
from participant_sdk.conformance.report import DeviationError, expect
from participant_sdk.conformance.words import shown, shown_ack

_PREPARED: Final = common_pb2.VOTE_KIND_PREPARED
_TEN_DAYS_S: Final = 10 * 86_400


async def a_hello_is_welcomed(bench: Bench) -> None:
    """Hello is answered with the participant's name, its clock, the epoch adopted, and the number of the Hello."""
    request = bench.greeting()
    request.number = 7
    welcome = await bench.line.hello(request)
    expect(not welcome.refusal, f"refused: {welcome.refusal}")
    expect(welcome.participant == bench.exercise.participant, f"it says it is {welcome.participant!r}")
    apart_ms = abs(welcome.clock_unix_ms - bench.clock.unix_ms())
    expect(apart_ms < 60_000, f"its clock is {apart_ms} ms apart")
    expect(welcome.epoch == bench.speaker.epoch, f"epoch {bench.speaker.epoch} was not adopted: {welcome.epoch}")
    expect(welcome.number == 7, f"the answer to Hello number 7 has number {welcome.number}")


async def clocks_apart_are_refused(bench: Bench) -> None:
    """Clocks more than a minute apart, either way, are refused with CLOCKS_APART; less than that is welcome."""
    for apart_ms, refusal in ((-600_000, "CLOCKS_APART"), (90_000, "CLOCKS_APART"), (-30_000, ""), (30_000, "")):
        request = bench.greeting()
        request.clock_unix_ms += apart_ms
        answer = await bench.line.hello(request)
        expect(answer.refusal == refusal, f"clocks {apart_ms} ms apart: the refusal is {answer.refusal!r}")


async def a_lower_epoch_is_refused(bench: Bench) -> None:
    """A higher epoch is adopted; then a lower one's Hello is EPOCH_STALE, its Commit and Rollback RETRY."""
    xid = await bench.prepared()
    bench.speaker.epoch += 1
    adopted = await bench.line.hello(bench.greeting())
    expect(adopted.epoch == bench.speaker.epoch, f"the epoch {bench.speaker.epoch} was not adopted: {adopted.epoch}")
    bench.speaker.epoch -= 1
    try:
        stale = await bench.line.hello(bench.greeting())
        acks = [await bench.rollback(xid), await bench.commit(xid)]
        if isinstance(bench.calls, SessionCalls):
            vote = await bench.prepare(bench.an_xid(), bench.exercise.yes[1])
            expect(vote.kind == common_pb2.VOTE_KIND_ROLLED_BACK and vote.transient, f"a stale frame: {shown(vote)}")
    finally:
        bench.speaker.epoch += 1
    expect(stale.refusal == "EPOCH_STALE", f"the refusal is {stale.refusal!r}")
    expect(stale.epoch == bench.speaker.epoch, f"refused for the epoch {stale.epoch}, not {bench.speaker.epoch}")
    for ack in acks:
        expect_ack(ack, common_pb2.ACK_KIND_RETRY)
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED)
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_DONE)


async def an_implausible_epoch_is_refused(bench: Bench) -> None:
    """An epoch or incarnation days ahead of the clock was never drawn: refused, not adopted, and not a watermark."""
    # Under a log of its own: one that adopts the number refuses everything afterwards.
    bench = bench.of_log(secrets.token_hex(8))
    xid = await bench.prepared()
    ahead = bench.speaker.epoch + _TEN_DAYS_S
    try:
        request = bench.greeting()
        request.epoch = ahead
        expect(await _is_refused(bench, request), f"the epoch {ahead} was welcomed")
        commit = commit_request(bench.speaker, Decided(xid, ahead, 1))
        await _expect_no_success(bench, commit)
        commit.incarnation, commit.epoch = bench.speaker.incarnation, ahead
        await _expect_no_success(bench, commit)
        await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED)
        marks = await bench.marks()
        expect(ahead not in marks, f"the watermarks are {marks}")
    finally:
        bench.speaker.epoch = max(bench.speaker.epoch, (await bench.line.hello(bench.greeting())).epoch)
        await bench.rollback(xid)


async def watermarks_are_the_highest_of_each_incarnation(bench: Bench) -> None:
    """A watermark is the highest sequence applied for its incarnation, in whatever order Commits come."""
    incarnation = bench.speaker.incarnation
    before = await bench.marks()
    high = bench.sequence + 5
    bench.sequence = high
    for number, sequence in ((incarnation, high), (incarnation, high - 2), (incarnation - 1, high + 7)):
        xid = await bench.prepared()
        (ack,) = await bench.calls.commit([Decided(xid, number, sequence)])
        expect_ack(ack, common_pb2.ACK_KIND_DONE)
    marks = await bench.marks()
    wanted = {**before, incarnation: high, incarnation - 1: high + 7}
    expect(marks == wanted, f"the watermarks are {marks}, not {wanted}")


async def watermarks_keep_step_with_commits(bench: Bench) -> None:
    """Every Hello reports what was acknowledged before it; a Rollback or an unknown Commit raises nothing."""
    for _ in range(3):
        xid = await bench.prepared()
        expect_ack(await bench.commit(xid), common_pb2.ACK_KIND_DONE)
        seen = (await bench.marks()).get(bench.speaker.incarnation)
        expect(seen == bench.sequence, f"the watermark is {seen} after sequence {bench.sequence} was acknowledged")
    acknowledged = bench.sequence
    await bench.rollback(await bench.prepared())
    ack = await bench.commit(bench.an_xid())
    seen = (await bench.marks()).get(bench.speaker.incarnation)
    expect(seen == acknowledged, f"the watermark is {seen} after a Commit was answered with {shown_ack(ack)}")


async def _is_refused(bench: Bench, request: resource_pb2.HelloRequest) -> bool:
    try:
        return bool((await bench.line.hello(request)).refusal)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return True


async def _expect_no_success(bench: Bench, commit: resource_pb2.CommitRequest) -> None:
    try:
        ack = (await bench.line.commit(commit)).ack
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise
        return
    if ack.kind != common_pb2.ACK_KIND_RETRY:
        raise DeviationError(f"a Commit of incarnation {commit.incarnation}, epoch {commit.epoch}: {shown_ack(ack)}")
