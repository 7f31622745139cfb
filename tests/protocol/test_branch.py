"""The branch table at its participant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.branch import TABLE, BranchCall, BranchPhase, call_of, step
from participant_sdk.xa import AckKind, Decision, Heuristic

VOTES = (BranchCall.VOTE_PREPARED, BranchCall.VOTE_READ_ONLY, BranchCall.VOTE_ROLLED_BACK)
ENDED = (BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK, BranchPhase.HEURISTIC)


def test_a_rollback_before_its_prepare_leaves_a_tombstone_that_keeps_the_prepare_out() -> None:
    """R10."""
    tombstone = step(BranchPhase.NONE, BranchCall.ROLLBACK)
    assert tombstone.phase is BranchPhase.ROLLED_BACK
    for vote in VOTES:
        assert step(tombstone.phase, vote).phase is BranchPhase.ROLLED_BACK


def test_commit_of_an_unknown_branch_is_a_hazard() -> None:
    """R11."""
    for phase in (BranchPhase.NONE, BranchPhase.ACTIVE):
        transition = step(phase, BranchCall.COMMIT)
        assert transition.phase is phase
        assert transition.ack is not None
        assert transition.ack.kind is AckKind.HEURISTIC_HAZARD


def test_what_voted_yes_does_not_expire() -> None:
    """R12."""
    assert step(BranchPhase.PREPARED, BranchCall.EXPIRE).phase is BranchPhase.PREPARED


def test_only_the_outcome_and_the_operator_move_a_prepared_branch() -> None:
    """R12."""
    moving = {call for call in BranchCall if step(BranchPhase.PREPARED, call).phase is not BranchPhase.PREPARED}
    assert moving == {
        BranchCall.COMMIT,
        BranchCall.ROLLBACK,
        BranchCall.RESOLVE_COMMIT,
        BranchCall.RESOLVE_ROLLBACK,
    }


def test_only_what_voted_yes_can_be_forced() -> None:
    """R12: what is not known, not prepared, or decided, stays as it is."""
    forced = {phase for (phase, _), transition in TABLE.items() if transition.phase is BranchPhase.HEURISTIC}
    assert forced == {BranchPhase.PREPARED}


def test_the_table_is_total() -> None:
    for phase in BranchPhase:
        for call in BranchCall:
            transition = step(phase, call, Heuristic.COMMIT)
            if call not in VOTES and call not in (BranchCall.ENLIST, BranchCall.EXPIRE):
                assert transition.ack is not None, f"{call} in {phase} needs an answer"
    assert all(call not in VOTES or phase in (BranchPhase.NONE, BranchPhase.ACTIVE) for phase, call in TABLE)


@given(st.lists(st.sampled_from(list(BranchCall))), st.sampled_from(list(Heuristic)[:2]))
def test_an_end_stands_whatever_comes(calls: list[BranchCall], heuristic: Heuristic) -> None:
    """Invariants 9 and 10: never both, but by an operator's hand, which stays until it is forgotten."""
    for end in ENDED:
        phase = end
        for call in calls:
            phase = step(phase, call, heuristic).phase
            if end is not BranchPhase.HEURISTIC:
                assert phase is end
            elif call is BranchCall.FORGET:
                kept = BranchPhase.COMMITTED if heuristic is Heuristic.COMMIT else BranchPhase.ROLLED_BACK
                assert phase is kept
                return


@given(st.sampled_from(list(BranchPhase)), st.sampled_from(list(BranchCall)), st.sampled_from(list(Heuristic)[:2]))
def test_every_call_is_idempotent(phase: BranchPhase, call: BranchCall, heuristic: Heuristic) -> None:
    """R10: a second time changes nothing more."""
    once = step(phase, call, heuristic)
    assert step(once.phase, call, heuristic).phase is once.phase


def test_a_forced_branch_tells_how_it_ended() -> None:
    for decision, heuristic, kind in (
        (Decision.COMMIT, Heuristic.COMMIT, AckKind.HEURISTIC_COMMIT),
        (Decision.ROLLBACK, Heuristic.ROLLBACK, AckKind.HEURISTIC_ROLLBACK),
    ):
        forced = step(BranchPhase.PREPARED, call_of(decision))
        assert forced.ack is not None
        assert forced.ack.kind is kind
        for call in (BranchCall.COMMIT, BranchCall.ROLLBACK):
            told = step(BranchPhase.HEURISTIC, call, heuristic)
            assert told.ack == forced.ack
            assert told.phase is BranchPhase.HEURISTIC
        assert step(BranchPhase.HEURISTIC, BranchCall.VOTE_PREPARED, heuristic).ack is None
