"""The operator's hand: a branch is forced only where the log cannot decide it, and what was done is kept first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from structlog.testing import capture_logs

from coordinator.assembly import Assembly
from coordinator.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    RefusedError,
    UnavailableError,
    UnknownTransactionError,
    WrongPhaseError,
)
from coordinator.log.decision_log import Checkpoint
from coordinator.passes import Scope
from coordinator.protocol.effects import HeuristicRecord
from coordinator.protocol.phases import Phase
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Rollback
from participant_sdk.xa import RETRY, AckKind, Decision, DecisionState, Heuristic
from tests.engine.recovering import CLOCK, LEASE_S, LEFT, LOG_ID, RIGHT, World, node, until, world
from tests.engine.test_engine import call, credit, debit

pytestmark = pytest.mark.timeout(60)
WHY = "ticket 17: the bank says it was paid"


@pytest.fixture
async def around() -> AsyncGenerator[World]:
    async with world() as each:
        yield each


async def forgotten(around: World) -> Xid:
    """A branch whose decision the log has forgotten: only an operator can end it."""
    xid = await around.leave(decided=False)
    around.log.tables.pruned_below_unix_ms = xid.unix_ms + 1
    return xid


async def adopting(assembly: Assembly) -> None:
    """Wait until dead coordinators may be fenced."""
    await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
    await assembly.life.take_over()


async def refusal(assembly: Assembly, xid: Xid, participant: str = LEFT, reason: str = WHY) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        await assembly.resolution.resolve(xid, participant, Decision.COMMIT, reason, preview=False)
    return refused.value


async def test_a_branch_is_forced_with_its_reason_kept_before_and_its_end_kept_after(around: World) -> None:
    """R12."""
    xid = await forgotten(around)
    async with node(around) as assembly:
        await adopting(assembly)
        shown = await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=True)
        assert shown.ack is None
        assert shown.branch is not None
        assert shown.branch.phase is around.phase(LEFT, xid) is BranchPhase.PREPARED
        assert around.log.tables.actions == []
        forced = await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)
        assert forced.ack is not None
        assert forced.ack.kind is AckKind.HEURISTIC_COMMIT
        assert "pincex tx forget" in forced.advice
        assert around.phase(LEFT, xid) is BranchPhase.HEURISTIC
        (action,) = around.log.tables.actions
        assert (action.action, action.xid, action.participant, action.reason) == ("RESOLVE", xid, LEFT, WHY)
        record = around.log.tables.heuristics[xid, LEFT]
        assert (record.heuristic, record.message) == (Heuristic.COMMIT, WHY)
        assert around.phase(RIGHT, xid) is BranchPhase.PREPARED, "the other one is not touched"
        again = await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, "once more", preview=False)
        assert again.ack is not None
        assert len(around.log.tables.actions) == 1
        assert (await refuse_other(assembly, xid)).code == "NOT_IN_DOUBT"


async def refuse_other(assembly: Assembly, xid: Xid) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        await assembly.resolution.resolve(xid, LEFT, Decision.ROLLBACK, WHY, preview=False)
    return refused.value


async def test_without_a_reason_or_a_known_participant_nothing_is_asked(around: World) -> None:
    async with node(around) as assembly:
        for reason in ("", "   ", "x" * 1001):
            with pytest.raises(InvalidRequestError) as resolving:
                await assembly.resolution.resolve(Xid.make(1, 1, 1), LEFT, Decision.COMMIT, reason, preview=True)
            assert resolving.value.field == "reason"
            with pytest.raises(InvalidRequestError) as forgetting:
                await assembly.resolution.forget(Xid.make(1, 1, 1), reason)
            assert forgetting.value.field == "reason"
        with pytest.raises(InvalidRequestError) as nobody:
            await assembly.resolution.resolve(Xid.make(1, 1, 1), "nobody", Decision.COMMIT, WHY, preview=True)
        assert nobody.value.field == "participant"


async def test_a_transaction_that_runs_is_not_forced_nor_one_that_has_ended(around: World) -> None:
    async with node(around, name="other", lease_s=30.0) as other, node(around) as assembly:
        xid = assembly.engine.begin(30.0, "default", "")
        assert (await refusal(assembly, xid)).code == "TRANSACTION_LIVE"
        with pytest.raises(WrongPhaseError) as undecided:
            await assembly.resolution.retry(xid)
        assert undecided.value.code == "NOT_DECIDED"
        elsewhere = await refusal(assembly, other.engine.begin(30.0, "default", ""))
        assert elsewhere.code == "TRANSACTION_LIVE"
        assert "other:1" in elsewhere.message
        ended = await assembly.engine.execute(call(debit(LEFT), credit(RIGHT)))
        assert (await refusal(assembly, ended.outcome.xid)).code == "ALREADY_FINISHED"
        assert await assembly.resolution.retry(ended.outcome.xid) is Phase.COMMITTED
        assert around.log.tables.actions == []


@pytest.mark.parametrize("decided", [True, False])
async def test_what_the_log_can_decide_is_not_forced(around: World, *, decided: bool) -> None:
    """R12: refused where a decision is known, a presumed one too."""
    xid = await around.leave(decided=decided)
    if decided:
        # Not held here: it counts as finished.
        around.log.checkpoint(Checkpoint(xid.incarnation, 1))
    async with node(around) as assembly:
        await until(lambda: assembly.commit.lease.unbroken_s(CLOCK.monotonic_s()) > LEASE_S)
        around.log.fence_expired(assembly.engine.incarnation, resigned_only=False)
        refused = await refusal(assembly, xid)
        assert refused.code == "DECISION_KNOWN"
        assert ("COMMIT" if decided else "ROLLBACK") in refused.message
        assert "pincex recovery trigger" in refused.message
        assert around.phase(LEFT, xid) is BranchPhase.PREPARED


async def test_of_our_own_without_a_trace_the_log_is_told_first(around: World) -> None:
    """R7: a live owner's own xid without a row is ROLLBACK, and so it is decided."""
    async with node(around) as assembly:
        finished = await assembly.engine.execute(call(debit(LEFT, "99999999")))
        xid = Xid.make(
            finished.outcome.xid.unix_ms + 1, finished.outcome.xid.incarnation, finished.outcome.xid.sequence
        )
        await around.prepare(LEFT, xid)
        assert (await refusal(assembly, xid)).code == "DECISION_KNOWN"


async def test_rollback_of_our_own_without_a_trace_is_told_once_it_is_on_record(around: World) -> None:
    """R7: who asks while it is being written hears nothing that could turn out otherwise."""
    async with node(around) as assembly:
        given = assembly.engine.begin(30.0, "default", "")
        await assembly.engine.rollback(given, "to have given one out")
        xid = Xid.make(given.unix_ms + 1, given.incarnation, given.sequence)
        around.log_tap.fails = lambda statement: statement == "append"
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(assembly.inquiries.decision(xid))
            await until(lambda: assembly.engine.find(xid) is not None)
            assert (await assembly.inquiries.decision(xid)).state is DecisionState.PENDING
            around.log_tap.fails = lambda _: False
        assert first.result().state is DecisionState.ROLLBACK
        assert xid in around.log.tables.decisions


async def test_who_asks_about_a_transaction_that_runs_here_is_to_ask_again_and_here(around: World) -> None:
    """R7: it may still commit."""
    async with node(around) as assembly:
        answer = await assembly.inquiries.decision(assembly.engine.begin(30.0, "default", ""))
        assert (answer.state, answer.owner_address) == (DecisionState.PENDING, assembly.engine.incarnation.address)


async def test_an_xid_of_our_own_that_was_never_given_out_gets_no_decision(around: World) -> None:
    """R7: somebody made it up, and no row is written for it."""
    async with node(around) as assembly:
        invented = Xid.make(CLOCK.unix_ms(), assembly.engine.incarnation.number, 77)
        assert (await assembly.inquiries.decision(invented)).state is DecisionState.FORGOTTEN
        assert invented not in around.log.tables.decisions


async def test_while_the_log_cannot_be_read_only_the_participant_itself_can_force(around: World) -> None:
    """R19: it is said how."""
    xid = await forgotten(around)
    async with node(around) as assembly:
        await adopting(assembly)
        around.log_tap.fails = lambda _: True
        with pytest.raises(UnavailableError) as unread:
            await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)
        assert "pincex.tx.v1.ResourceService/ResolveBranch" in unread.value.message
        assert LOG_ID in unread.value.message
        around.log_tap.fails = lambda statement: statement == "record_action"
        with pytest.raises(UnavailableError):
            await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)
        assert around.phase(LEFT, xid) is BranchPhase.PREPARED, "what is not on record is not done"


async def test_in_hold_a_branch_that_cannot_wait_may_be_forced(around: World) -> None:
    """R15."""
    xid = await around.leave(decided=False)
    around.log.hold("restored")
    async with node(around) as assembly:
        with pytest.raises(WrongPhaseError):
            await assembly.resolution.retry(xid)
        (shown, _) = (await assembly.resolution.list_in_doubt("", "", 10)).branches
        assert shown.state is DecisionState.PENDING
        assert "pincex recovery release" in shown.advice
        forced = await assembly.resolution.resolve(xid, LEFT, Decision.ROLLBACK, WHY, preview=False)
        assert forced.ack is not None
        assert around.phase(LEFT, xid) is BranchPhase.HEURISTIC


async def test_a_participant_that_is_away_or_has_no_such_branch(around: World) -> None:
    xid = await forgotten(around)
    async with node(around) as assembly:
        await adopting(assembly)
        around.wires[LEFT].is_cut = True
        with pytest.raises(UnavailableError):
            await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)
        around.wires[LEFT].is_cut = False
        stranger = Xid.make(1, 1, 1)
        around.log.tables.pruned_below_unix_ms = xid.unix_ms + 1
        assert (await refusal(assembly, stranger)).code == "NOT_IN_DOUBT"


async def test_a_branch_that_ends_by_itself_in_between_is_not_called_forced(around: World) -> None:
    xid = await forgotten(around)
    async with node(around) as assembly:
        await adopting(assembly)
        rollback = [Rollback(LOG_ID, xid)]
        around.log_tap.before = lambda statement: (
            around.resource(LEFT).rollback(rollback) if statement == "record_action" else None
        )
        assert (await refusal(assembly, xid)).code == "NOT_IN_DOUBT"
        assert around.log.tables.heuristics == {}


async def test_a_heuristic_end_of_who_is_not_configured_any_more_can_be_forgotten(around: World) -> None:
    xid = await forgotten(around)
    around.log.record_heuristics([HeuristicRecord(xid, "gone", Heuristic.HAZARD, WHY)])
    async with node(around) as assembly:
        assert await assembly.resolution.forget(xid, WHY) == ("gone",)
        assert around.log.tables.forgotten == {(xid, "gone"): WHY}


async def test_a_lost_reply_is_never_success_and_the_same_again_settles_it(around: World) -> None:
    """R19."""
    xid = await forgotten(around)
    async with node(around) as assembly:
        await adopting(assembly)
        around.wires[LEFT].loses_replies = True
        with pytest.raises(OutcomeUnknownError) as unknown:
            await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)
        assert "GetBranch" in unknown.value.message
        assert around.log.tables.heuristics == {}
        around.wires[LEFT].loses_replies = False
        around.log_tap.fails = lambda statement: statement == "record_heuristics"
        with pytest.raises(OutcomeUnknownError):
            await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)
        around.log_tap.fails = lambda _: False
        assert (await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)).ack is not None
        assert around.log.tables.heuristics[xid, LEFT].message == WHY
        assert len(around.log.tables.actions) == 1


# What was ended by hand.


async def test_an_end_forced_at_the_participant_itself_comes_to_the_log_once_and_stays_until_forgotten(
    around: World,
) -> None:
    """R12, invariant 10."""
    xid = await forgotten(around)
    await around.resource(LEFT).resolve(LOG_ID, xid, Decision.ROLLBACK, WHY)
    async with node(around) as assembly:
        await adopting(assembly)
        for _ in range(2):
            await assembly.passes.trigger(Scope.ORPHANS)
        await until(lambda: (xid, LEFT) in around.log.tables.heuristics)
        assert around.log.tables.heuristics[xid, LEFT].message == WHY
        (left,) = (await assembly.resolution.list_in_doubt(LEFT, "", 10)).branches
        assert left.branch.heuristic is Heuristic.ROLLBACK
        assert "pincex tx forget" in left.advice
        assert await assembly.resolution.forget(xid, WHY) == (LEFT,)
        assert around.phase(LEFT, xid) is BranchPhase.ROLLED_BACK
        assert around.log.tables.forgotten == {(xid, LEFT): WHY}
        assert await assembly.resolution.forget(xid, WHY) == (LEFT,), "again it does nothing more"
        await assembly.passes.trigger(Scope.ORPHANS)
        assert (await assembly.resolution.list_in_doubt(LEFT, "", 10)).branches == ()


async def test_an_end_that_was_told_when_it_was_forced_is_not_told_again_by_a_sweep(around: World) -> None:
    """Invariant 10."""
    xid = await forgotten(around)
    async with node(around) as assembly:
        await adopting(assembly)
        kept: list[str] = []
        around.log_tap.before = lambda statement: kept.append(statement) if statement == "record_heuristics" else None
        with capture_logs() as lines:
            await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)
            await assembly.passes.trigger(Scope.ORPHANS)
            await until(lambda: len(kept) == 2)
        told = [line for line in lines if line["event"] in ("branch_forced", "heuristic_outcome")]
        assert [(line["event"], line["transaction_id"]) for line in told] == [("branch_forced", str(xid))]


async def test_nothing_is_marked_as_forgotten_while_a_participant_is_away(around: World) -> None:
    """Invariant 10."""
    xid = await forgotten(around)
    async with node(around) as assembly:
        with pytest.raises(RefusedError) as refused:
            await assembly.resolution.forget(xid, WHY)
        assert refused.value.code == "NOT_HEURISTIC"
        await adopting(assembly)
        await assembly.resolution.resolve(xid, LEFT, Decision.COMMIT, WHY, preview=False)
        around.wires[LEFT].is_cut = True
        with pytest.raises(UnavailableError):
            await assembly.resolution.forget(xid, WHY)
        around.wires[LEFT].is_cut = False
        around.log_tap.fails = lambda _: True
        with pytest.raises(UnavailableError):
            await assembly.resolution.forget(xid, WHY)
        around.log_tap.fails = lambda _: False
        assert around.log.tables.forgotten == {}
        assert await assembly.resolution.forget(xid, WHY) == (LEFT,)


async def test_nothing_is_marked_as_forgotten_while_a_participant_asks_to_be_told_later(around: World) -> None:
    """Such as one whose own database keeps it from forgetting now."""
    xid = await forgotten(around)
    async with node(around) as assembly:
        await adopting(assembly)
        await assembly.resolution.resolve(xid, LEFT, Decision.ROLLBACK, WHY, preview=False)
        around.wires[LEFT].forget_says = RETRY
        with pytest.raises(UnavailableError, match="nothing is marked"):
            await assembly.resolution.forget(xid, "settled by hand")
        assert not around.log.tables.forgotten
        around.wires[LEFT].forget_says = None
        assert await assembly.resolution.forget(xid, "settled by hand") == (LEFT,)
        assert (xid, LEFT) in around.log.tables.forgotten


async def test_a_commit_that_meets_a_heuristic_end_keeps_it_also_after_a_takeover(around: World) -> None:
    """Invariant 10; the merge with the ordinary end is MIXED."""
    xid = await around.leave(decided=True)
    await around.resource(LEFT).resolve(LOG_ID, xid, Decision.ROLLBACK, WHY)
    for _ in range(2):
        async with node(around) as assembly:
            await until(lambda: (xid, LEFT) in around.log.tables.heuristics)
            await until(lambda: around.phase(RIGHT, xid) is BranchPhase.COMMITTED)
            await until(lambda: not assembly.engine.unfinished)
            if (held := assembly.engine.find(xid)) is not None:
                outcome = held.transaction.outcome()
                assert outcome is not None
                assert outcome.heuristic is Heuristic.MIXED
        # As if nothing had been told to the log of what is finished.
        around.log.tables.checkpoints.clear()
    assert list(around.log.tables.heuristics) == [(xid, LEFT)]
    assert around.phase(LEFT, xid) is BranchPhase.HEURISTIC


async def test_a_heuristic_end_is_not_forgotten_while_others_are_owed(around: World) -> None:
    xid = await around.leave(decided=True)
    await around.resource(LEFT).resolve(LOG_ID, xid, Decision.ROLLBACK, WHY)
    around.log_tap.fails = lambda statement: statement == "fence_expired"
    async with node(around) as assembly:
        around.taps[RIGHT].shut()
        around.log_tap.fails = lambda _: False
        await until(lambda: (xid, LEFT) in around.log.tables.heuristics)
        with pytest.raises(RefusedError) as early:
            await assembly.resolution.forget(xid, WHY)
        assert early.value.code == "TRANSACTION_LIVE"
        around.taps[RIGHT].open()


async def test_driving_what_nobody_knows_is_an_error(around: World) -> None:
    async with node(around) as assembly:
        with pytest.raises(UnknownTransactionError):
            await assembly.resolution.retry(Xid.make(CLOCK.unix_ms(), 1, 1))
