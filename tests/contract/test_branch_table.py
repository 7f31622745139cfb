"""Every participant follows the branch table: every call, in every phase, answers and leads as the table says."""

from __future__ import annotations

import asyncio

from participant_sdk.branch import BranchCall, BranchPhase, step
from participant_sdk.ids import Xid
from participant_sdk.xa import Ack, Decision, Heuristic, Vote, VoteKind, XaCode
from tests.contract.branch_subjects import LOG, Subject, an_xid, prepare_of

ANSWERED = [call for call in BranchCall if call not in (BranchCall.ENLIST, BranchCall.EXPIRE)]
VOTES = {
    BranchCall.VOTE_PREPARED: VoteKind.PREPARED,
    BranchCall.VOTE_READ_ONLY: VoteKind.READ_ONLY,
    BranchCall.VOTE_ROLLED_BACK: VoteKind.ROLLED_BACK,
}
EFFECT = {BranchPhase.COMMITTED, BranchPhase.HEURISTIC}


async def test_every_call_in_every_phase_does_what_the_table_says(subject: Subject) -> None:
    """R10, R11, R12. Every pair in one database, each with a branch of its own."""
    for phase in phases_of(subject):
        for forced in (Decision.COMMIT, Decision.ROLLBACK) if phase is BranchPhase.HEURISTIC else (Decision.COMMIT,):
            for call in ANSWERED:
                xid = an_xid()
                await check_pair(subject, xid, phase, call, forced)
                # What is left prepared would keep alice's row locked.
                await subject.rollback(xid)


def phases_of(subject: Subject) -> list[BranchPhase]:
    return [phase for phase in BranchPhase if subject.has_work or phase is not BranchPhase.ACTIVE]


async def check_pair(subject: Subject, xid: Xid, phase: BranchPhase, call: BranchCall, forced: Decision) -> None:
    what = f"{call.name} of a branch that is {phase.name}, forced {forced.name}"
    await subject.bring_to(phase, xid, forced)
    assert await subject.phase(xid) is phase, what
    stored = await subject.participant.branch(LOG, xid)
    answer = await subject.do(call, xid, ends_work=phase is BranchPhase.ACTIVE)
    heuristic = stored.heuristic if stored else None
    expected = step(phase, call, heuristic)
    if phase is BranchPhase.ACTIVE and call in VOTES:
        # Work under the xid that Prepare does not match is a "no", whatever it would have voted (R13).
        assert isinstance(answer, Vote), what
        assert (answer.kind, answer.xa_code) == (VoteKind.ROLLED_BACK, XaCode.XAER_NOTA), what
        assert await subject.phase(xid) is BranchPhase.ROLLED_BACK, what
        return
    assert await subject.phase(xid) is expected.phase, what
    if expected.ack is not None:
        assert isinstance(answer, Ack), what
        assert answer[:2] == expected.ack[:2], what
    else:
        assert isinstance(answer, Vote), what
        if phase is BranchPhase.NONE:
            assert answer.kind is VOTES[call], what
        else:
            assert stored is not None
            assert answer == stored.vote, what
    again = await subject.participant.branch(LOG, xid)
    assert (again.heuristic if again else None) in (heuristic, Heuristic.COMMIT, Heuristic.ROLLBACK, None), what


async def test_each_branch_takes_effect_once_and_only_if_committed(subject: Subject) -> None:
    """Invariant 5, over every phase that a branch can end in."""
    for phase, forced, effect in (
        (BranchPhase.NONE, Decision.COMMIT, 0),
        (BranchPhase.PREPARED, Decision.COMMIT, 0),
        (BranchPhase.COMMITTED, Decision.COMMIT, 1),
        (BranchPhase.ROLLED_BACK, Decision.COMMIT, 0),
        (BranchPhase.HEURISTIC, Decision.COMMIT, 1),
        (BranchPhase.HEURISTIC, Decision.ROLLBACK, 0),
    ):
        before, xid = await subject.effects(), an_xid()
        await subject.bring_to(phase, xid, forced)
        for _ in range(2):
            if phase in EFFECT:
                await subject.commit(xid)
                await subject.vote(prepare_of(xid, subject.business.yes))
        assert await subject.effects() == before + effect
        await subject.rollback(xid)
        assert await subject.effects() == before + effect


async def test_work_under_an_xid_is_prepared_only_by_an_exact_match(subject: Subject) -> None:
    """R13. Where there is no work before Prepare, nothing matches."""
    if not subject.has_work:
        xid = an_xid()
        ends = prepare_of(xid)._replace(ends_work=True, branch_number=1, operation_count=1)
        assert (await subject.vote(ends)).xa_code == XaCode.XAER_NOTA
        return
    for number, count, expected in (
        (1, 1, VoteKind.PREPARED),
        (1, 2, VoteKind.ROLLED_BACK),
        (2, 1, VoteKind.ROLLED_BACK),
    ):
        xid, before = an_xid(), await subject.effects()
        await subject.bring_to(BranchPhase.ACTIVE, xid)
        ends = prepare_of(xid)._replace(ends_work=True, branch_number=number, operation_count=count)
        vote = await subject.vote(ends)
        assert vote.kind is expected
        assert await subject.vote(ends) == vote
        if expected is VoteKind.PREPARED:
            await subject.commit(xid)
        assert await subject.effects() == before + (expected is VoteKind.PREPARED)


async def test_work_under_an_xid_expires_with_its_deadline(subject: Subject) -> None:
    """R13: late work is rolled back, and a Prepare of it is refused."""
    if not subject.has_work:
        return
    xid = an_xid()
    await subject.enlist(xid, 0.3)
    async with asyncio.timeout(20):
        while await subject.phase(xid) is BranchPhase.ACTIVE:
            await subject.expire()
    assert await subject.phase(xid) is BranchPhase.ROLLED_BACK
    ends = prepare_of(xid)._replace(ends_work=True, branch_number=1, operation_count=1)
    assert (await subject.vote(ends)).transient


async def test_one_bad_branch_fails_nothing_else(subject: Subject) -> None:
    """R17."""
    good, bad, other = an_xid(), an_xid(), an_xid()
    malformed = subject.business.yes._replace(parameters="{")
    votes = await subject.participant.prepare(
        [prepare_of(good, subject.business.yes), prepare_of(bad, subject.business.no), prepare_of(other, malformed)]
    )
    assert [vote.kind for vote in votes] == [VoteKind.PREPARED, VoteKind.ROLLED_BACK, VoteKind.ROLLED_BACK]
    assert votes[1].is_business_no
    assert votes[2].xa_code == XaCode.XAER_INVAL
    await subject.rollback(good)


async def test_a_second_branch_of_a_live_request_votes_transient(subject: Subject) -> None:
    """R3."""
    first, second, third = an_xid(), an_xid(), an_xid()
    await subject.vote(prepare_of(first, subject.business.yes, request_id="order-1"))
    assert (await subject.vote(prepare_of(second, subject.business.yes, request_id="order-1"))).transient
    await subject.rollback(first)
    assert (await subject.vote(prepare_of(third, subject.business.yes, request_id="order-1"))).kind is VoteKind.PREPARED
    await subject.rollback(third)


async def test_a_participant_knows_whose_branches_it_holds_without_being_told(subject: Subject) -> None:
    """R12: after a restart it asks before any coordinator has spoken to it."""
    xid = an_xid()
    await subject.vote(prepare_of(xid, subject.business.yes))
    assert list(await subject.participant.log_ids()) == [LOG]
    await subject.rollback(xid)
