"""Checks of bad input: every field wrong in itself is refused by name, and whatever comes, the participant lives."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.bench import Bench, expect_no
from participant_sdk.conformance.calls import commit_request, rollback_request
from participant_sdk.conformance.line import CALL_TIMEOUT_S, shown_status
from participant_sdk.conformance.report import DeviationError, expect
from participant_sdk.conformance.words import shown
from participant_sdk.exact_json import ALL_PARAMETERS_MAX_BYTES, PARAMETERS_MAX_BYTES
from participant_sdk.participant import Operation

_METHODS: Final = (
    *("Hello", "Prepare", "Commit", "Rollback"),
    *("Recover", "ResolveBranch", "Forget", "GetBranch"),
)
_RUBBISH: Final = (b"\xff\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x04\xc3\x28\xa0\xa1")
_OPERATIONS_MAX: Final = 100
_NOT_AN_XID: Final = "00000000-0000-4000-8000-000000000000"


Request = TypeVar("Request", bound=Message)


async def a_prepare_with_a_bad_field_is_refused(bench: Bench) -> None:
    """A Prepare with any field wrong in itself is INVALID_ARGUMENT that names it, or a no that does."""
    for field, request in _bad_prepares(bench):
        (vote,) = await bench.unary.prepare([request])
        expect_no(vote)
        expect(field in vote.message + vote.field, f"{field} is wrong, and not named: {shown(vote)}")


async def an_ending_with_a_bad_field_is_refused(bench: Bench) -> None:
    """A Commit or Rollback with a field wrong in itself is INVALID_ARGUMENT that names it, and ends nothing."""
    xid = await bench.prepared()
    commit = commit_request(bench.speaker, bench.decided(xid))
    rollback = rollback_request(bench.speaker, xid)
    line = bench.line
    for field, value in (
        ("xid", ""),
        ("xid", _NOT_AN_XID),
        ("log_id", ""),
        ("incarnation", 0),
        ("sequence", 0),
        ("sequence", 2**63),
    ):
        await _expect_refused(field, line.commit(_changed(commit, field, value)))
    for field, value in (("xid", "nonsense"), ("log_id", "NOT-HEX")):
        await _expect_refused(field, line.rollback(_changed(rollback, field, value)))
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED)
    await bench.rollback(xid)


async def a_question_with_a_bad_field_is_refused(bench: Bench) -> None:
    """Hello, Recover, ResolveBranch, Forget and GetBranch with a field wrong in itself are INVALID_ARGUMENT."""
    line, xid, log_id = bench.line, str(bench.an_xid()), bench.speaker.log_id
    for field, value in (
        ("log_id", "x"),
        ("coordinator", ""),
        ("incarnation", 0),
        ("epoch", 0),
        ("pruned_below_unix_ms", -1),
    ):
        await _expect_refused(field, line.hello(_changed(bench.greeting(), field, value)))
    recover = resource_pb2.RecoverRequest(log_id=log_id)
    for field, value in (("log_id", ""), ("page_size", 1_001), ("page_token", "no token")):
        await _expect_refused(field, line.recover(_changed(recover, field, value)))
    resolve = resource_pb2.ResolveBranchRequest(
        xid=xid, log_id=log_id, outcome=common_pb2.DECISION_COMMIT, reason="conformance"
    )
    forget, branch = (
        resource_pb2.ForgetRequest(xid=xid, log_id=log_id),
        resource_pb2.GetBranchRequest(xid=xid, log_id=log_id),
    )
    for field, value in (("xid", ""), ("xid", "x"), ("log_id", "")):
        await _expect_refused(field, line.resolve(_changed(resolve, field, value)))
        await _expect_refused(field, line.forget(_changed(forget, field, value)))
        await _expect_refused(field, line.branch(_changed(branch, field, value)))
    welcome = await line.hello(bench.greeting())
    expect(not welcome.refusal, f"afterwards a Hello is refused: {welcome.refusal}")


async def the_largest_prepare_is_answered(bench: Bench) -> None:
    """A Prepare as large as the contract allows, four operations with parameters of 64 KiB, gets a vote."""
    padded = Operation(bench.exercise.participant, "no_such_operation", '{"a":1}'.ljust(PARAMETERS_MAX_BYTES))
    operations = [padded] * (ALL_PARAMETERS_MAX_BYTES // PARAMETERS_MAX_BYTES)
    expect_no(await bench.prepare(bench.an_xid(), *operations))


async def bytes_that_are_no_message_do_no_harm(bench: Bench) -> None:
    """Bytes that are no message get an error status, from every call, and the participant lives on."""
    xid = await bench.prepared()
    for method in _METHODS:
        # Without serializers, bytes go and come as they are.
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = bench.line.channel.unary_unary(
            f"/pincex.tx.v1.ResourceService/{method}"
        )
        for rubbish in _RUBBISH:
            bench.line.exchange.sent(method, repr(rubbish))
            try:
                await call(rubbish, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                bench.line.exchange.came(method, shown_status(error))
                expect(error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED, f"{method} does not answer {rubbish!r}")
            else:
                raise DeviationError(f"{method} took {rubbish!r} for a message")
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_PREPARED)
    await bench.rollback(xid)


def _bad_prepares(bench: Bench) -> Iterator[tuple[str, resource_pb2.PrepareRequest]]:
    """Prepares with one bad field each, with the name of it."""
    operation = bench.exercise.yes[0]

    def right() -> resource_pb2.PrepareRequest:
        return bench.request(bench.an_xid(), operation, request_id="conformance-bad-field")

    for field, value in (
        ("xid", ""),
        ("xid", _NOT_AN_XID),
        ("log_id", "x"),
        ("remaining_ms", 0),
        ("tenant", "t" * 65),
        ("request_id", "with a space"),
        ("request_id", "r" * 129),
        ("request_digest", b"short"),
    ):
        request = right()
        setattr(request, field, value)
        yield field, request
    request = right()
    request.participants.append("Not A Name")
    yield "participants", request
    request = right()
    request.operations[0].service = "somebody-else"
    yield "service", request
    request = bench.request(bench.an_xid(), *[operation] * (_OPERATIONS_MAX + 1))
    yield "operations", request
    request = bench.request(bench.an_xid(), operation._replace(parameters=f'{{"a":"{"x" * 70_000}"}}'))
    yield "parameters", request
    request = bench.request(bench.an_xid())
    request.ends_work = True
    yield "ends_work", request


def _changed(request: Request, field: str, value: str | int) -> Request:
    """A copy of the request with another value there."""
    changed = type(request)()
    changed.CopyFrom(request)
    setattr(changed, field, value)
    return changed


async def _expect_refused(field: str, call: Awaitable[object]) -> None:
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        told = shown_status(error)
        expect(error.code() is grpc.StatusCode.INVALID_ARGUMENT, f"{field} is wrong, and it says {told}")
        expect(field in told, f"{field} is wrong, and not named: {told}")
    else:
        raise DeviationError(f"{field} is wrong, and it answers: {answer}")
