"""Checks of Prepare: what votes look like, that they are stored, and what must be refused."""

from __future__ import annotations

from typing import Final

from pincex.tx.v1 import common_pb2

from participant_sdk.conformance.bench import REMAINING_MS, TENANT, Bench, expect_ack, expect_no, shown
from participant_sdk.conformance.calls import SessionCalls
from participant_sdk.conformance.report import DeviationError, expect
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation
from participant_sdk.xa import XaCode

_PREPARED: Final = common_pb2.VOTE_KIND_PREPARED
_TWO_HOURS_MS: Final = 2 * 3_600_000


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
    for text in ("", "{", "[]", '{"a":1,"a":1}', '{"a":NaN}', '{"a":1e400}'):
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
        raise DeviationError("the exercise has no read")
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
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)
    vote = await bench.prepare(xid, bench.exercise.yes[0])
    expect(vote.kind == common_pb2.VOTE_KIND_ROLLED_BACK, shown(vote))
    await bench.expect_phase(xid, common_pb2.BRANCH_PHASE_ROLLED_BACK)
    expect_ack(await bench.rollback(xid), common_pb2.ACK_KIND_ALREADY_DONE)
    expect(await bench.observed() == before, "a branch that was rolled back took effect")


async def an_old_xid_is_refused(bench: Bench) -> None:
    """A Prepare whose xid is older than the prepare window, an hour, is a no."""
    xid = Xid.make(bench.clock.unix_ms() - _TWO_HOURS_MS, bench.speaker.incarnation, 1)
    expect_no(await bench.prepare(xid, bench.exercise.yes[0]))
    branch = await bench.branch(xid)
    expect(branch.phase != common_pb2.BRANCH_PHASE_PREPARED, "the refused branch is PREPARED")


async def no_time_left_is_no_yes(bench: Bench) -> None:
    """A Prepare with no time left, or with more than there can be, is a no."""
    for remaining_ms in (0, 200 * REMAINING_MS):
        request = bench.request(bench.an_xid(), bench.exercise.yes[0])
        request.remaining_ms = remaining_ms
        (vote,) = await bench.calls.prepare([request])
        expect_no(vote)


async def work_that_was_never_done_is_xaer_nota(bench: Bench) -> None:
    """A Prepare that ends work which is not there is ROLLED_BACK with XAER_NOTA, never READ_ONLY."""
    for count in (0, 1):
        request = bench.request(bench.an_xid())
        request.ends_work, request.branch_number, request.operation_count = True, 1, count
        (vote,) = await bench.calls.prepare([request])
        expect_no(vote)
        expect(vote.xa_code == XaCode.XAER_NOTA, shown(vote))


async def no_work_at_all_is_a_no(bench: Bench) -> None:
    """A Prepare without operations that does not end work is a no, never READ_ONLY."""
    expect_no(await bench.prepare(bench.an_xid()))


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


async def a_frame_may_carry_both_halves(bench: Bench) -> None:
    """A frame that commits one branch and prepares another does both, the commit first."""
    if not isinstance(bench.calls, SessionCalls):
        raise DeviationError("unary calls carry one branch each")
    first, second = await bench.prepared(), bench.an_xid()
    acks, votes = await bench.calls.together([bench.decided(first)], [bench.request(second, bench.exercise.yes[0])])
    await bench.rollback(second)
    expect_ack(acks[0], common_pb2.ACK_KIND_DONE)
    expect(votes[0].kind == _PREPARED, shown(votes[0]))
