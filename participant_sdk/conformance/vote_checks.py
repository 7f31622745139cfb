"""Checks of Prepare: what votes look like, that they are stored, and what must be refused."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2

from participant_sdk.conformance.bench import REMAINING_MS, TENANT, Bench, expect_ack, expect_no
from participant_sdk.conformance.calls import commit_request, rollback_request
from participant_sdk.conformance.line import shown_status
from participant_sdk.conformance.report import DeviationError, SkippedError, expect
from participant_sdk.conformance.words import shown
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation
from participant_sdk.xa import XaCode

_PREPARED: Final = common_pb2.VOTE_KIND_PREPARED
_MINUTE_MS: Final = 60_000
# A yes that took so much longer than the time it had did not leave in time, whatever the network does.
_ALLOWANCE_S: Final = 0.15
_SHORT_MS: Final = 50


async def a_yes_is_prepared_and_shown(bench: Bench) -> None:
    """A yes is PREPARED with code 0, and GetBranch shows the branch with all that Prepare told of it."""
    xid = bench.an_xid()
    request = bench.request(xid, bench.exercise.yes[0], request_id=f"shown-{xid}")
    (vote,) = await bench.calls.prepare([request])
    expect(vote.kind == _PREPARED and vote.xa_code == 0 and not vote.transient and not vote.reason, shown(vote))
    branch = await bench.branch(xid)
    await bench.rollback(xid)
    expect(branch.phase == common_pb2.BRANCH_PHASE_PREPARED, f"GetBranch: {branch}")
    expect(branch.xid == str(xid), f"GetBranch: xid {branch.xid}")
    expect(branch.vote.kind == _PREPARED, f"GetBranch: the vote {shown(branch.vote)}")
    expect(list(branch.participants) == list(request.participants), f"GetBranch: participants {branch.participants}")
    expect((branch.tenant, branch.request_id) == (TENANT, request.request_id), f"GetBranch: request {branch}")
    expect(branch.request_digest == request.request_digest, "GetBranch: another digest")
    expect(branch.prepared_unix_ms > 0, "GetBranch: no time of the vote")


async def a_no_is_rolled_back_with_its_reason(bench: Bench) -> None:
    """A business no is ROLLED_BACK, not transient, with a code of a rollback and a reason in capitals."""
    xid = bench.an_xid()
    vote = await bench.prepare(xid, bench.exercise.no)
    expect(vote.kind == common_pb2.VOTE_KIND_ROLLED_BACK and not vote.transient, shown(vote))
    expect(vote.xa_code >= XaCode.RBROLLBACK or vote.xa_code < 0, shown(vote))
    expect(bool(vote.reason) and vote.reason == vote.reason.upper(), f"the reason is {vote.reason!r}")
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)


async def invalid_parameters_are_named(bench: Bench) -> None:
    """Wrong parameters are XAER_INVAL, or a refused request, and the field is named."""
    vote = await bench.prepare(bench.an_xid(), bench.exercise.invalid)
    expect_no(vote)
    expect(vote.reason == "INVALID_ARGUMENT" or vote.xa_code == XaCode.XAER_INVAL, shown(vote))
    expect("operations[0]" in vote.field + vote.message, f"the field is {vote.field!r}: {shown(vote)}")


async def an_unknown_operation_is_a_no(bench: Bench) -> None:
    """An operation that is not served gets a no that names it."""
    vote = await bench.prepare(bench.an_xid(), Operation(bench.exercise.participant, "no_such_operation", "{}"))
    expect_no(vote)
    expect("operations[0]" in vote.field + vote.message, f"the field is {vote.field!r}: {shown(vote)}")


async def malformed_parameters_are_a_no(bench: Bench) -> None:
    """Parameters that are no exact JSON object are a no, each."""
    deep = '{"a":' * 40 + "1" + "}" * 40
    for text in ("", "{", "[]", '{"a":1,"a":1}', '{"a":NaN}', '{"a":1e400}', '{"a":"\\u0000"}', deep):
        vote = await bench.prepare(bench.an_xid(), bench.exercise.yes[0]._replace(parameters=text))
        expect_no(vote)


async def a_duplicate_gets_the_stored_vote(bench: Bench) -> None:
    """A second Prepare gets the first one's vote, even with other operations, for an xid is never run twice."""
    for first, second in (
        (bench.exercise.yes[0], bench.exercise.yes[0]),
        (bench.exercise.yes[0], bench.exercise.no),
        (bench.exercise.no, bench.exercise.no),
        (bench.exercise.no, bench.exercise.yes[0]),
    ):
        xid = bench.an_xid()
        votes = [await bench.prepare(xid, operation) for operation in (first, second, first)]
        await bench.rollback(xid)
        expect(votes[0] == votes[1] == votes[2], f"{[shown(vote) for vote in votes]}")


async def a_read_votes_read_only(bench: Bench) -> None:
    """What changed nothing is READ_ONLY with code 3, again at a second Prepare, and is not in doubt."""
    read = bench.exercise.read or bench.exercise.observe
    if read is None:
        raise SkippedError("the exercise has no read")
    xid = bench.an_xid()
    votes = [await bench.prepare(xid, read) for _ in range(2)]
    expect(votes[0].kind == common_pb2.VOTE_KIND_READ_ONLY, shown(votes[0]))
    expect(votes[0].xa_code == XaCode.RDONLY, shown(votes[0]))
    expect(votes[0] == votes[1], f"{[shown(vote) for vote in votes]}")
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)


async def a_late_prepare_meets_the_tombstone(bench: Bench) -> None:
    """A Rollback before its Prepare is DONE and leaves a tombstone: the Prepare gets ROLLED_BACK."""
    xid = bench.an_xid()
    before = await bench.observed()
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_DONE)
    vote = await bench.prepare(xid, bench.exercise.yes[0])
    expect(vote.kind == common_pb2.VOTE_KIND_ROLLED_BACK, f"the late Prepare got {shown(vote)}")
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_ALREADY_DONE)
    expect(await bench.observed() == before, "a branch that was rolled back took effect")


async def an_old_xid_is_refused(bench: Bench) -> None:
    """A Prepare whose xid is older than the prepare window, an hour, is a no."""
    for age_min in (65, 120):
        xid = Xid.make(bench.clock.unix_ms() - age_min * _MINUTE_MS, bench.speaker.incarnation, 1)
        vote = await bench.prepare(xid, bench.exercise.yes[0])
        branch = await bench.branch(xid)
        await bench.rollback(xid)
        expect_no(vote)
        expect(branch.phase != common_pb2.BRANCH_PHASE_PREPARED, "the refused branch is PREPARED")


async def time_counts_from_arrival(bench: Bench) -> None:
    """remaining_ms counts from when the Prepare arrives, not from when the transaction began."""
    xid = Xid.make(bench.clock.unix_ms() - 20 * _MINUTE_MS, bench.speaker.incarnation, bench.xids.next(0).sequence)
    bench.given_out.append(xid)
    vote = await bench.prepare(xid, bench.exercise.yes[0])
    await bench.rollback(xid)
    expect(vote.kind == _PREPARED, f"begun 20 minutes ago, with {REMAINING_MS // 1000} s left: {shown(vote)}")


async def no_time_left_is_no_yes(bench: Bench) -> None:
    """A Prepare with no time left, or with more than there can be, is a no."""
    for remaining_ms in (0, 3_600_001, 2**32 - 1):
        request = bench.request(bench.an_xid(), bench.exercise.yes[0])
        request.remaining_ms = remaining_ms
        (vote,) = await bench.calls.prepare([request])
        expect_no(vote)


async def no_yes_leaves_after_the_deadline(bench: Bench) -> None:
    """A vote of yes never leaves after the deadline: what takes longer than the time it has is a no."""
    operation = bench.exercise.slow
    if operation is None:
        raise SkippedError("the exercise has no operation that is slow")
    request = bench.request(bench.an_xid(), operation)
    request.remaining_ms = _SHORT_MS
    began_s = time.monotonic()
    (vote,) = await bench.calls.prepare([request])
    took_s = time.monotonic() - began_s
    await bench.rollback(Xid.parse(request.xid))
    if took_s <= _SHORT_MS / 1000 + _ALLOWANCE_S and vote.kind == _PREPARED:
        raise SkippedError(f"the slow operation took {took_s * 1000:.0f} ms only")
    expect_no(vote)
    vote = await bench.prepare(xid := bench.an_xid(), operation)
    await bench.rollback(xid)
    expect(vote.kind == _PREPARED, f"with time enough, the slow operation got {shown(vote)}")


async def another_live_branch_of_a_request_is_transient(bench: Bench) -> None:
    """While one branch of a request lives, another one votes a transient no; once it is undone, it may."""
    first, second, third = bench.an_xid(), bench.an_xid(), bench.an_xid()
    name = f"busy-{first}"
    votes: list[common_pb2.Vote] = []
    for xid in (first, second):
        votes += await bench.calls.prepare([bench.request(xid, bench.exercise.yes[0], request_id=name)])
    await bench.rollback(first)
    votes += await bench.calls.prepare([bench.request(third, bench.exercise.yes[0], request_id=name)])
    await bench.rollback(third)
    expect(votes[1].kind == common_pb2.VOTE_KIND_ROLLED_BACK and votes[1].transient, shown(votes[1]))
    expect(votes[0].kind == votes[2].kind == _PREPARED, f"{[shown(vote) for vote in votes]}")


async def one_bad_branch_fails_nothing_else(bench: Bench) -> None:
    """Among branches that travel together, each gets its own vote."""
    exercise = bench.exercise
    # So many that every worker of the participant has bad ones among its own.
    bad = [exercise.no, exercise.invalid] * 8
    operations = [exercise.yes[0], *bad, exercise.yes[1], *bad, exercise.yes[2]]
    xids = [bench.an_xid() for _ in operations]
    requests = [bench.request(xid, operation) for xid, operation in zip(xids, operations, strict=True)]
    votes = await bench.calls.prepare(requests)
    await bench.calls.rollback(xids)
    for operation, vote in zip(operations, votes, strict=True):
        if operation in exercise.yes:
            expect(vote.kind == _PREPARED, f"a yes got {shown(vote)}")
        else:
            expect_no(vote)


async def no_status_tells_a_vote(bench: Bench) -> None:
    """Votes and acknowledgements travel in replies: a "no", or an unknown branch, is never an error status."""
    xid, unknown = bench.an_xid(), bench.an_xid()
    try:
        await bench.line.prepare(bench.request(xid, bench.exercise.no))
        await bench.line.prepare(bench.request(xid, bench.exercise.yes[0]))
        await bench.line.commit(commit_request(bench.speaker, bench.decided(unknown)))
        await bench.line.rollback(rollback_request(bench.speaker, unknown))
    except grpc.aio.AioRpcError as error:
        raise DeviationError(f"instead of an answer: {shown_status(error)}") from error


async def prepares_at_once_get_one_vote(bench: Bench) -> None:
    """The same Prepare several times at once: each gets the one vote, and one Commit ends the branch."""
    before = await bench.observed()
    xid = bench.an_xid()
    request = bench.request(xid, bench.exercise.yes[0])
    votes = [answer.vote for answer in await asyncio.gather(*[bench.line.prepare(request) for _ in range(5)])]
    expect(all(vote.kind == _PREPARED for vote in votes), f"{[shown(vote) for vote in votes]}")
    expect(all(vote == votes[0] for vote in votes), f"{[shown(vote) for vote in votes]}")
    await bench.rollback(xid)
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)
    expect(await bench.observed() == before, "a branch that was rolled back took effect")


async def every_answer_is_a_word_of_the_contract(bench: Bench) -> None:
    """All votes and acknowledgements heard in the checks before have a kind, a code and a reason of the contract."""
    expect(not bench.words.oddities, "; ".join(bench.words.oddities))
