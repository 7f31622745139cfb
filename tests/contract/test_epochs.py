"""Every participant takes the epoch adopted for a barrier: no Commit of an older one takes effect any more (R15)."""

from __future__ import annotations

from dataclasses import replace

from participant_sdk.branch import BranchPhase
from participant_sdk.participant import Commit, Work
from participant_sdk.xa import STALE, AckKind, VoteKind
from tests.contract.branch_subjects import INCARNATION, LOG, Subject, an_xid, prepare_of

OLD = 5
NEW = 9
OTHER_LOG = "fedcba9876543210"


async def test_a_commit_of_an_older_epoch_changes_nothing(subject: Subject) -> None:
    """It may have passed the door before the epoch was adopted, and have waited for its turn since."""
    participant, xid = subject.participant, an_xid()
    await participant.adopt_epoch(LOG, OLD)
    await subject.vote(prepare_of(xid, subject.business.yes))
    late = Commit(LOG, xid, INCARNATION, 1, OLD)
    assert await participant.adopt_epoch(LOG, NEW) == NEW
    assert list(await participant.commit([late])) == [STALE]
    assert await subject.phase(xid) is BranchPhase.PREPARED
    assert (await subject.effects(), dict(await participant.watermarks(LOG))) == (0, {})
    assert [ack.kind for ack in await participant.commit([late._replace(epoch=NEW)])] == [AckKind.DONE]
    assert (await subject.effects(), dict(await participant.watermarks(LOG))) == (1, {INCARNATION: 1})


async def test_what_travels_with_a_stale_commit_is_done(subject: Subject) -> None:
    """R17: Commits of the epoch adopted and of other logs, Rollbacks and Prepares are not stale."""
    participant = subject.participant
    stale, current, undone, late = (an_xid() for _ in range(4))
    for xid in (undone, stale, current):
        # The one that is left in doubt may lock what the next one needs.
        vote = await subject.vote(prepare_of(xid, subject.business.read if xid is stale else subject.business.yes))
        assert vote.is_yes
        if xid is undone:
            await subject.rollback(xid)
    await participant.adopt_epoch(LOG, NEW)
    await participant.adopt_epoch(OTHER_LOG, 1)
    elsewhere = Commit(OTHER_LOG, an_xid(), 1, 1, 1)
    commits = [Commit(LOG, stale, INCARNATION, 1, OLD), Commit(LOG, current, INCARNATION, 2, NEW), elsewhere]
    refused = replace(Work(), commits=commits, prepares=[prepare_of(late, subject.business.no)])
    answers = await participant.apply(refused)
    kinds = [ack.kind for ack in answers.commits]
    assert kinds == [AckKind.RETRY, AckKind.DONE, AckKind.HEURISTIC_HAZARD]
    assert [vote.kind for vote in answers.prepares] == [VoteKind.ROLLED_BACK]
    assert await subject.phase(current) is BranchPhase.COMMITTED


async def test_a_batch_of_several_epochs_is_told_apart(subject: Subject) -> None:
    """Two older ones and the one adopted, in one batch."""
    participant, xid = subject.participant, an_xid()
    await subject.vote(prepare_of(xid, subject.business.yes))
    await participant.adopt_epoch(LOG, NEW)
    unknown = [Commit(LOG, an_xid(), INCARNATION, at, epoch) for at, epoch in ((2, 0), (3, OLD), (4, NEW))]
    acks = await participant.commit([*unknown[:2], Commit(LOG, xid, INCARNATION, 1, NEW), unknown[2]])
    assert [ack.kind for ack in acks] == [
        AckKind.RETRY,
        AckKind.RETRY,
        AckKind.DONE,
        AckKind.HEURISTIC_HAZARD,
    ]
