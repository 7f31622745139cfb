"""What every participant keeps of its branches, shows of them, and drops: horizons, pages, an operator's hand."""

from __future__ import annotations

import time

import pytest

from participant_sdk.branch import BranchPhase
from participant_sdk.clock import SystemClock
from participant_sdk.grpc_resource_calls import GrpcResourceCalls
from participant_sdk.ids import Xid, XidSource
from participant_sdk.participant import Branch, Commit, RecoverQuery, Rollback
from participant_sdk.resource_calls import CallFailedError
from participant_sdk.server import serving
from participant_sdk.xa import AckKind, Decision, Heuristic
from tests.contract.branch_subjects import INCARNATION, LOG, Subject, an_xid, prepare_of

HOUR_MS = 3_600_000
OTHER_LOG = "fedcba9876543210"
HORIZON_MS = time.time_ns() // 1_000_000 - 3 * HOUR_MS

_OLD = XidSource(INCARNATION)


def an_old_xid() -> Xid:
    return _OLD.next(HORIZON_MS - HOUR_MS)


async def commit_all(subject: Subject, xids: list[Xid], incarnation: int) -> None:
    """Prepare and commit, with sequences from 1 in the order given."""
    for sequence, xid in enumerate(xids, 1):
        await subject.vote(prepare_of(xid, subject.business.yes))
        await subject.participant.commit([Commit(LOG, xid, incarnation, sequence)])


async def test_only_what_has_ended_below_the_horizon_is_dropped(subject: Subject) -> None:
    """R14: nothing in doubt, nothing forced, nothing of another log, nothing younger; tombstones are."""
    participant = subject.participant
    dropped = [an_old_xid() for _ in range(4)]
    for xid, phase in zip(dropped[:2], (BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK), strict=True):
        await subject.bring_to(phase, xid)
    await subject.vote(prepare_of(dropped[2], subject.business.no))
    await subject.bring_to(BranchPhase.HEURISTIC, dropped[3], Decision.ROLLBACK)
    assert (await participant.forget(LOG, dropped[3])).kind is AckKind.DONE
    forced, young, doubtful = an_old_xid(), an_xid(), an_old_xid()
    await subject.bring_to(BranchPhase.HEURISTIC, forced, Decision.COMMIT)
    await subject.bring_to(BranchPhase.COMMITTED, young)
    other = an_old_xid()
    await participant.rollback([Rollback(OTHER_LOG, other)])
    # The last, because in some participants it locks what the others touch.
    await subject.bring_to(BranchPhase.PREPARED, doubtful)
    effects = await subject.effects()
    assert await participant.prune(LOG, HORIZON_MS, 100) == len(dropped)
    assert await participant.prune(LOG, HORIZON_MS, 100) == 0
    for xid in dropped:
        assert await subject.phase(xid) is BranchPhase.NONE
    assert await subject.phase(forced) is BranchPhase.HEURISTIC
    assert await subject.phase(doubtful) is BranchPhase.PREPARED
    assert await subject.phase(young) is BranchPhase.COMMITTED
    assert await participant.branch(OTHER_LOG, other) is not None
    assert await subject.effects() == effects
    # R11: what nobody remembers is a hazard, never success.
    assert (await subject.commit(dropped[0])).kind is AckKind.HEURISTIC_HAZARD
    assert (await subject.commit(doubtful)).kind is AckKind.DONE


async def test_dropping_goes_in_rounds_and_watermarks_outlive_it(subject: Subject) -> None:
    """R15: a watermark that fell would look like a participant that lost what it acknowledged."""
    await commit_all(subject, [an_old_xid() for _ in range(5)], INCARNATION)
    await commit_all(subject, [an_old_xid()], INCARNATION + 1)
    marks = {INCARNATION: 5, INCARNATION + 1: 1}
    assert dict(await subject.participant.watermarks(LOG)) == marks
    assert [await subject.participant.prune(LOG, HORIZON_MS, 4) for _ in range(3)] == [4, 2, 0]
    assert dict(await subject.participant.watermarks(LOG)) == marks
    await subject.participant.commit([Commit(LOG, an_xid(), INCARNATION, 3)])
    assert dict(await subject.participant.watermarks(LOG)) == marks


async def test_a_dropped_branch_does_not_claim_its_request(subject: Subject) -> None:
    """R3: the log answers for a bound request; the participant only keeps two live branches apart."""
    xid = an_old_xid()
    await subject.vote(prepare_of(xid, subject.business.yes, request_id="once"))
    await subject.commit(xid)
    await subject.participant.prune(LOG, HORIZON_MS, 10)
    again = an_xid()
    assert (await subject.vote(prepare_of(again, subject.business.yes, request_id="once"))).is_yes
    await subject.rollback(again)


async def pages(subject: Subject, query: RecoverQuery) -> list[Branch]:
    """Every page, until one is not full."""
    found: list[Branch] = []
    while True:
        page = await subject.participant.recover(
            RecoverQuery(query.log_id, query.finished, query.above, found[-1].xid if found else None, query.limit)
        )
        found += page
        if len(page) < query.limit:
            return found


async def test_everything_committed_above_the_sequences_is_listed_page_by_page(subject: Subject) -> None:
    """R15: what a restored log lost comes back from here, whole: of incarnations that it does not know, too."""
    one, two = [an_xid() for _ in range(12)], [an_xid() for _ in range(6)]
    await commit_all(subject, one, INCARNATION)
    await commit_all(subject, two, INCARNATION + 1)
    rolled_back, forced, doubtful = an_xid(), an_xid(), an_xid()
    await subject.bring_to(BranchPhase.ROLLED_BACK, rolled_back)
    await subject.bring_to(BranchPhase.HEURISTIC, forced, Decision.COMMIT)
    await subject.bring_to(BranchPhase.PREPARED, doubtful)
    found = await pages(subject, RecoverQuery(LOG, finished=True, above={INCARNATION: 9}, limit=4))
    assert [branch.xid for branch in found] == sorted([*one[9:], *two, forced, doubtful])
    committed = {branch.xid: branch for branch in found if branch.phase is BranchPhase.COMMITTED}
    assert [committed[xid].sequence for xid in one[9:]] == [10, 11, 12]
    assert {committed[xid].incarnation for xid in two} == {INCARNATION + 1}
    assert all(branch.tenant == "default" and branch.participants for branch in committed.values())
    # Nothing above: only what is in doubt, or forced.
    even = {INCARNATION: 12, INCARNATION + 1: 6}
    found = await pages(subject, RecoverQuery(LOG, finished=True, above=even, limit=4))
    assert [branch.xid for branch in found] == sorted([forced, doubtful])
    # Nothing named: everything.
    found = await pages(subject, RecoverQuery(LOG, finished=True, limit=4))
    assert [branch.xid for branch in found] == sorted([*one, *two, forced, doubtful])
    await subject.rollback(doubtful)


async def test_an_operator_sees_before_he_forces_and_says_why(subject: Subject) -> None:
    """R12, over the wire: a preview changes nothing, a reason is required and kept, Forget ends it."""
    xid = an_xid()
    await subject.bring_to(BranchPhase.PREPARED, xid)
    async with serving(subject.participant, "127.0.0.1:0", patience_s=600.0, grace_s=0.1) as served:
        calls = GrpcResourceCalls(f"127.0.0.1:{served.port}", clock=SystemClock())
        shown = await calls.resolve(LOG, xid, Decision.COMMIT, "looking", preview=True)
        assert shown.ack is None
        assert shown.branch is not None
        assert shown.branch.phase is BranchPhase.PREPARED
        for reason in ("", "   "):
            with pytest.raises(CallFailedError, match="reason"):
                await calls.resolve(LOG, xid, Decision.COMMIT, reason, preview=False)
        assert await subject.phase(xid) is BranchPhase.PREPARED
        forced = await calls.resolve(LOG, xid, Decision.COMMIT, "the bank was called", preview=False)
        assert forced.ack is not None
        assert forced.ack.kind is AckKind.HEURISTIC_COMMIT
        assert forced.branch is not None
        assert (forced.branch.heuristic, forced.branch.reason) == (Heuristic.COMMIT, "the bank was called")
        assert await subject.effects() == 1
        # Told to the decision when it comes, whichever it is, until it is forgotten.
        assert (await subject.rollback(xid)).kind is AckKind.HEURISTIC_COMMIT
        assert (await calls.forget(LOG, xid)).kind is AckKind.DONE
        assert (await calls.forget(LOG, xid)).kind is AckKind.ALREADY_DONE
        assert await subject.phase(xid) is BranchPhase.COMMITTED
        await calls.close()


@pytest.mark.parametrize("decided", [BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK])
async def test_no_hand_changes_what_was_decided(subject: Subject, decided: BranchPhase) -> None:
    """R12: refused where a decision is known here; the answer tells how the branch ended."""
    for outcome in Decision:
        xid = an_xid()
        await subject.bring_to(decided, xid)
        effects, before = await subject.effects(), await subject.participant.branch(LOG, xid)
        ack = await subject.participant.resolve(LOG, xid, outcome, "by mistake")
        same = (decided is BranchPhase.COMMITTED) is (outcome is Decision.COMMIT)
        against = AckKind.HEURISTIC_COMMIT if decided is BranchPhase.COMMITTED else AckKind.HEURISTIC_ROLLBACK
        assert ack.kind is (AckKind.ALREADY_DONE if same else against)
        assert await subject.participant.branch(LOG, xid) == before
        assert await subject.effects() == effects


async def test_what_is_forced_to_rollback_frees_its_request_and_what_is_forced_to_commit_does_not(
    subject: Subject,
) -> None:
    """R3: a caller that tries again is not told "busy" until somebody forgets the operator's hand."""
    forced, again, third = an_xid(), an_xid(), an_xid()
    assert (await subject.vote(prepare_of(forced, subject.business.yes, request_id="once"))).is_yes
    await subject.participant.resolve(LOG, forced, Decision.ROLLBACK, "the caller waits")
    assert (await subject.vote(prepare_of(again, subject.business.yes, request_id="once"))).is_yes
    await subject.participant.resolve(LOG, again, Decision.COMMIT, "the caller waits")
    assert (await subject.vote(prepare_of(third, subject.business.yes, request_id="once"))).transient
    found = await subject.participant.recover(RecoverQuery(LOG))
    assert [branch.xid for branch in found] == [forced, again]


async def test_a_commit_that_comes_after_the_forced_one_was_forgotten_is_counted(subject: Subject) -> None:
    """R15: it is acknowledged, so the watermark must not be below it."""
    forced = an_xid()
    await subject.bring_to(BranchPhase.HEURISTIC, forced, Decision.COMMIT)
    assert (await subject.participant.forget(LOG, forced)).kind is AckKind.DONE
    assert dict(await subject.participant.watermarks(LOG)) == {}
    for sequence in (9, 4):
        assert (await subject.commit(forced, sequence)).kind is AckKind.ALREADY_DONE
    assert dict(await subject.participant.watermarks(LOG)) == {INCARNATION: 9}
    (found,) = await subject.participant.recover(RecoverQuery(LOG, finished=True, above={INCARNATION: 8}))
    assert (found.xid, found.sequence) == (forced, 9)
    assert await subject.effects() == 1
