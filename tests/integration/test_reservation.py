"""The reservation resource over a real PostgreSQL: the branch's rules, as SQL keeps them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import psycopg
import pytest

from participant_sdk.branch import BranchCall, BranchPhase, step
from participant_sdk.ids import Xid
from participant_sdk.participant import Commit, Prepare, RecoverQuery, Rollback, Work
from participant_sdk.resources import packed_arrays
from participant_sdk.resources.postgres_lane import Connection, Lane
from participant_sdk.resources.reservation_reading import BranchReading
from participant_sdk.resources.stored_votes import TOMBSTONE_VOTE
from participant_sdk.xa import Ack, AckKind, Decision, Heuristic, Vote, VoteKind, XaCode
from tests.integration.participations import INCARNATION, LOG_ID, OTHER_LOG_ID, Participation, participating

ORDER = ("place_order", '{"user_id":"u","symbol":"BTC/USD","side":"sell","amount":0.5,"price":50000}')
CHECK = ("validate_order", ORDER[1])
CREDIT = '{"user_id":"u","currency":"USD","amount":"1.00"}'
BAD = ("place_order", ORDER[1].replace("BTC/USD", "BTC/XYZ"))

OPERATION = {
    BranchCall.VOTE_PREPARED: ORDER,
    BranchCall.VOTE_READ_ONLY: CHECK,
    BranchCall.VOTE_ROLLED_BACK: BAD,
}
VOTE = {
    BranchCall.VOTE_PREPARED: VoteKind.PREPARED,
    BranchCall.VOTE_READ_ONLY: VoteKind.READ_ONLY,
    BranchCall.VOTE_ROLLED_BACK: VoteKind.ROLLED_BACK,
}
CALLS = [
    *OPERATION,
    BranchCall.COMMIT,
    BranchCall.ROLLBACK,
    BranchCall.RESOLVE_COMMIT,
    BranchCall.RESOLVE_ROLLBACK,
    BranchCall.FORGET,
]
STANDINGS = [
    (BranchPhase.NONE, None),
    (BranchPhase.PREPARED, None),
    (BranchPhase.COMMITTED, None),
    (BranchPhase.ROLLED_BACK, None),
    (BranchPhase.HEURISTIC, Heuristic.COMMIT),
    (BranchPhase.HEURISTIC, Heuristic.ROLLBACK),
]


@pytest.fixture
async def trading(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "trading") as participation:
        yield participation
        assert await participation.violations() == []


async def bring_to(trading: Participation, phase: BranchPhase, how: Heuristic | None) -> Prepare:
    """A new branch that stands there."""
    prepare = trading.branch(ORDER)
    if phase is not BranchPhase.NONE:
        assert (await trading.prepare(prepare))[0].kind is VoteKind.PREPARED
    if phase is BranchPhase.COMMITTED:
        await trading.commit(prepare)
    if phase is BranchPhase.ROLLED_BACK:
        await trading.rollback(prepare)
    if how is not None:
        outcome = Decision.COMMIT if how is Heuristic.COMMIT else Decision.ROLLBACK
        await trading.resource.resolve(LOG_ID, prepare.xid, outcome, "the coordinator burnt down")
    return prepare


async def call_it(trading: Participation, prepare: Prepare, call: BranchCall) -> Ack | Vote:
    resource = trading.resource
    match call:
        case BranchCall.COMMIT:
            return (await trading.commit(prepare))[0]
        case BranchCall.ROLLBACK:
            return (await trading.rollback(prepare))[0]
        case BranchCall.RESOLVE_COMMIT:
            return await resource.resolve(LOG_ID, prepare.xid, Decision.COMMIT, "by hand")
        case BranchCall.RESOLVE_ROLLBACK:
            return await resource.resolve(LOG_ID, prepare.xid, Decision.ROLLBACK, "by hand")
        case BranchCall.FORGET:
            return await resource.forget(LOG_ID, prepare.xid)
        case _:
            return await trading.vote(OPERATION[call], xid=prepare.xid)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
async def test_every_call_does_in_every_phase_what_the_table_says(trading: Participation, call: BranchCall) -> None:
    """R10, R11, R12. There is no work before Prepare here, so no ACTIVE, ENLIST or EXPIRE."""
    for phase, how in STANDINGS:
        prepare = await bring_to(trading, phase, how)
        before = await trading.resource.branch(LOG_ID, prepare.xid)
        answer = await call_it(trading, prepare, call)
        after = await trading.resource.branch(LOG_ID, prepare.xid)
        expected = step(phase, call, how)
        assert (after.phase if after else BranchPhase.NONE) is expected.phase, (phase, how, answer)
        if isinstance(answer, Ack):
            assert answer == expected.ack, (phase, how)
        elif before is not None:
            assert answer == before.vote, (phase, how)
        else:
            assert answer.kind is VOTE[call]
            assert after is not None
            assert after.vote == answer


async def test_a_duplicate_prepare_gets_the_stored_vote_even_from_another_process(
    trading: Participation, database: str
) -> None:
    """R8: with its results and reasons, whatever the duplicate carries."""
    yes, no, asked = trading.branch(ORDER), trading.branch(BAD), trading.branch(CHECK)
    votes = await trading.prepare(yes, no, asked)
    assert [vote.kind for vote in votes] == [VoteKind.PREPARED, VoteKind.ROLLED_BACK, VoteKind.READ_ONLY]
    assert votes[0].results == (f'{{"order_id":"{yes.log_id}-{yes.xid}-0"}}',)
    assert votes[1].field == "operations[0].parameters.symbol"
    async with participating(database, "trading") as restarted:
        again = [branch._replace(operations=trading.branch(BAD).operations) for branch in (yes, no, asked)]
        assert list(await restarted.prepare(*again, trading.branch(ORDER)))[:3] == list(votes)
    assert len(await trading.rows("select order_id from trading.orders")) == 2


async def test_a_rollback_before_its_prepare_keeps_it_out(trading: Participation) -> None:
    """R10."""
    prepare = trading.branch(ORDER)
    assert (await trading.rollback(prepare))[0].kind is AckKind.DONE
    vote = (await trading.prepare(prepare))[0]
    assert vote == TOMBSTONE_VOTE
    assert vote.transient
    assert (await trading.rollback(prepare))[0].kind is AckKind.ALREADY_DONE


async def test_a_second_live_branch_of_a_request_is_turned_away(trading: Participation) -> None:
    """R3: with a transient "no", which is kept; and once the first is gone, the request is free."""
    first, second, other, none = (
        trading.branch(ORDER, tenant=tenant, request_id=request, request_digest=b"\1" * 32)
        for tenant, request in (("a", "r"), ("a", "r"), ("b", "r"), ("a", ""))
    )
    votes = await trading.prepare(first, second, other, none)
    assert [vote.kind is VoteKind.PREPARED for vote in votes] == [True, False, True, True]
    assert votes[1].reason == "REQUEST_IN_PROGRESS"
    assert votes[1].transient
    assert (await trading.prepare(second))[0] == votes[1]
    await trading.rollback(first)
    third = first._replace(xid=trading.xid())
    assert (await trading.prepare(second, third))[0] == votes[1]
    assert (await trading.prepare(third))[0].kind is VoteKind.PREPARED


async def test_a_prepare_that_ends_work_finds_none_here(trading: Participation) -> None:
    """R13: ROLLED_BACK with XAER_NOTA, never READ_ONLY."""
    ending = trading.branch(ends_work=True, branch_number=1, operation_count=2)
    empty = trading.branch(ends_work=True, branch_number=1, operation_count=0)
    votes = await trading.prepare(ending, empty, trading.branch(ORDER))
    assert [vote.xa_code for vote in votes] == [XaCode.XAER_NOTA, XaCode.XAER_NOTA, XaCode.OK]
    assert votes[0].kind is VoteKind.ROLLED_BACK
    assert (await trading.prepare(ending))[0] == votes[0]


async def test_watermarks_are_the_highest_sequences_applied(trading: Participation) -> None:
    """R15: per incarnation, over all workers; what was not applied counts for nothing."""
    branches = [trading.branch(ORDER) for _ in range(6)]
    await trading.prepare(*branches)
    commits = [Commit(LOG_ID, branch.xid, 7 + at % 2, 10 + at) for at, branch in enumerate(branches)]
    await asyncio.gather(*[trading.resource.apply(Work(commits=[commit])) for commit in commits])
    unknown = Commit(LOG_ID, trading.xid(), 7, 1_000)
    assert (await trading.resource.commit([unknown]))[0].kind is AckKind.HEURISTIC_HAZARD
    assert await trading.resource.watermarks(LOG_ID) == {7: 14, 8: 15}
    assert await trading.resource.watermarks(OTHER_LOG_ID) == {}
    stored = await trading.resource.branch(LOG_ID, branches[5].xid)
    assert stored is not None
    assert (stored.incarnation, stored.sequence) == (8, 15)


async def test_an_epoch_only_rises(trading: Participation, database: str) -> None:
    """R15, for each log by itself, and over a restart."""
    assert [await trading.resource.adopt_epoch(LOG_ID, epoch) for epoch in (5, 3, 9)] == [5, 5, 9]
    assert await trading.resource.adopt_epoch(OTHER_LOG_ID, 2) == 2
    assert await trading.resource.log_ids() == [LOG_ID, OTHER_LOG_ID]
    async with participating(database, "trading") as restarted:
        assert await restarted.resource.adopt_epoch(LOG_ID, 0) == 9


async def test_branches_of_two_logs_are_apart(trading: Participation) -> None:
    """R18: even with one xid, and in one batch."""
    ours = trading.branch(ORDER)
    theirs = ours._replace(log_id=OTHER_LOG_ID, operations=trading.branch(CHECK).operations)
    answers = await trading.resource.apply(Work(prepares=[theirs, ours]))
    assert [vote.kind for vote in answers.prepares] == [VoteKind.READ_ONLY, VoteKind.PREPARED]
    answers = await trading.resource.apply(
        Work([trading.decided(ours)], [Rollback(OTHER_LOG_ID, ours.xid)], [trading.branch(ORDER)])
    )
    assert [ack.kind for ack in (*answers.commits, *answers.rollbacks)] == [AckKind.DONE, AckKind.ALREADY_DONE]


async def test_recovery_lists_pages_of_what_is_in_doubt_and_what_is_above(trading: Participation) -> None:
    """R12, R15: with all that the branch was prepared with."""
    named: dict[str, Any] = {"tenant": "t", "request_digest": b"\2" * 32, "participants": ("bookkeeper", "trading")}
    branches = [trading.branch(ORDER, request_id=f"r{at}", **named) for at in range(6)]
    await trading.prepare(*branches)
    await trading.commit(*branches[:3])
    await trading.rollback(branches[3])
    await trading.resource.resolve(LOG_ID, branches[5].xid, Decision.ROLLBACK, "told to by phone")
    doubts = await trading.resource.recover(RecoverQuery(LOG_ID))
    assert [(branch.xid, branch.phase) for branch in doubts] == [
        (branches[4].xid, BranchPhase.PREPARED),
        (branches[5].xid, BranchPhase.HEURISTIC),
    ]
    assert (doubts[0].tenant, doubts[0].request_id, doubts[0].request_digest) == ("t", "r4", b"\2" * 32)
    assert doubts[0].participants == ("bookkeeper", "trading")
    assert doubts[0].prepared_unix_ms > 1_700_000_000_000
    assert (doubts[1].heuristic, doubts[1].reason) == (Heuristic.ROLLBACK, "told to by phone")
    query = RecoverQuery(LOG_ID, finished=True, above={INCARNATION: 1}, limit=2)
    page = await trading.resource.recover(query)
    assert [branch.sequence for branch in page] == [2, 3]
    rest = await trading.resource.recover(RecoverQuery(LOG_ID, True, {INCARNATION: 1}, page[-1].xid, 100))
    assert [branch.xid for branch in rest] == [branches[4].xid, branches[5].xid]
    assert len(await trading.resource.recover(RecoverQuery(LOG_ID, finished=True))) == 5


async def test_an_operators_hand_is_kept_until_forgotten(trading: Participation) -> None:
    """R12: a decision that comes later changes nothing, and is told of it."""
    prepare = await bring_to(trading, BranchPhase.HEURISTIC, Heuristic.ROLLBACK)
    assert (await trading.commit(prepare))[0].kind is AckKind.HEURISTIC_ROLLBACK
    assert await trading.rows("select status from trading.orders") == [(4,)]
    await trading.resource.forget(LOG_ID, prepare.xid)
    assert (await trading.commit(prepare))[0].kind is AckKind.HEURISTIC_ROLLBACK
    assert await trading.resource.recover(RecoverQuery(LOG_ID)) == []


async def test_pages_of_committed_branches_are_read_in_windows(database: str) -> None:
    """R15: whatever lies between those asked for, no statement reads more than a window; nothing is left out."""
    async with participating(database, "bookkeeper") as bookkeeper:
        await bookkeeper.do(("open_account", '{"user_id":"u","currency":"USD"}'))
        committed = [bookkeeper.branch(("credit_account", CREDIT)) for _ in range(23)]
        await bookkeeper.prepare(*committed)
        # Every third is decided last, so that what is asked for lies far apart.
        late = committed[::3]
        await bookkeeper.commit(*[branch for branch in committed if branch not in late])
        above = bookkeeper.sequence
        await bookkeeper.commit(*late)
        await bookkeeper.rollback(*[bookkeeper.branch() for _ in range(9)])
        doubtful = bookkeeper.branch(("credit_account", CREDIT))
        await bookkeeper.prepare(doubtful)
        lane = Lane(database, 1, opening=_register, cursor_factory=psycopg.AsyncCursor)
        reading = BranchReading(lane, window_rows=4)
        ((log,),) = await bookkeeper.rows("select log from pincex.logs")
        found: list[Xid] = []
        for _ in range(6):
            after = found[-1] if found else None
            query = RecoverQuery(LOG_ID, finished=True, above={INCARNATION: above}, after=after, limit=2)
            found += [branch.xid for branch in await reading.recover(log, query)]
        await lane.close()
        assert found == sorted(branch.xid for branch in [*late, doubtful])


async def _register(connection: Connection) -> None:
    packed_arrays.register(connection)


async def test_a_service_without_its_dropped_branches_is_sound_and_misses_any_other(database: str) -> None:
    """R14: postings outlive their branches; one that lost a branch above what was dropped is still noticed."""
    async with participating(database, "bookkeeper") as bookkeeper:
        await bookkeeper.do(("open_account", '{"user_id":"u","currency":"USD"}'))
        await bookkeeper.do(("credit_account", CREDIT))
        horizon_ms = time.time_ns() // 1_000_000 + 1
        assert await bookkeeper.resource.prune(LOG_ID, horizon_ms, 100) == 2
        await bookkeeper.do(("credit_account", CREDIT))
        assert await bookkeeper.violations() == []
        await bookkeeper.rows("delete from pincex.branches")
        assert [violation for violation in await bookkeeper.violations() if "ENTRY_WITHOUT_BRANCH" in violation]
