"""What the log's rows become after a crash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.protocol import events
from coordinator.protocol.effects import DecisionRecord, Send, StoredDecision, Verb, replayed
from coordinator.protocol.outcome import BranchOutcome, decode_votes, encode_votes, is_readable
from coordinator.protocol.phases import Phase
from coordinator.protocol.recovery import fold
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import (
    ALREADY_DONE,
    DONE,
    PREPARED,
    READ_ONLY,
    Decision,
    Vote,
    VoteKind,
    business_no,
    transient_no,
)
from tests.protocol.interpreter import TIMING, XID


def prepared_with(results: list[str]) -> Vote:
    return Vote(VoteKind.PREPARED, results=tuple(results))


VOTE = st.one_of(
    st.none(),
    st.just(READ_ONLY),
    st.builds(business_no, st.text(), st.text(), field=st.text()),
    st.builds(transient_no, st.text(), st.text()),
    st.builds(prepared_with, st.lists(st.text(), max_size=3)),
)


def stored(decision: Decision, prepared: tuple[str, ...], results: str = "") -> StoredDecision:
    return StoredDecision(DecisionRecord(XID, decision, prepared, RequestId("t", "r"), b"", "WHY", results), 5, 9, 0)


def test_a_decided_commit_is_sent_to_those_who_prepared_until_they_acknowledge() -> None:
    (tx,), silent = fold([stored(Decision.COMMIT, ("a", "b"))], TIMING)
    assert silent == []
    assert tx.phase is Phase.COMMITTING
    assert (tx.incarnation, tx.sequence) == (5, 9)
    step = tx.step(events.Woken(), 10.0)
    assert step.messages == (Send(Verb.COMMIT, "a"), Send(Verb.COMMIT, "b"))
    assert step.reply is None
    assert not tx.step(events.Acknowledged("a", ALREADY_DONE), 10.0).finished
    last = tx.step(events.Acknowledged("b", DONE), 10.0)
    assert last.finished
    assert last.reply is None, "nobody waits for the answer of a recovered transaction"


def test_a_recorded_rollback_is_sent_to_those_the_row_names() -> None:
    (tx,), _ = fold([stored(Decision.ROLLBACK, ("a",))], TIMING)
    assert tx.phase is Phase.ROLLING_BACK
    assert tx.step(events.Woken(), 10.0).messages == (Send(Verb.ROLLBACK, "a"),)


def test_rows_that_name_nobody_are_finished() -> None:
    rows = [stored(Decision.ROLLBACK, ()), stored(Decision.COMMIT, ())]
    driven, silent = fold(rows, TIMING)
    assert driven == []
    assert silent == rows


@given(st.lists(st.tuples(st.sampled_from("abc"), VOTE), max_size=4))
def test_votes_in_the_log_read_back(votes: list[tuple[str, Vote | None]]) -> None:
    branches = tuple(BranchOutcome(name, vote, done=False) for name, vote in votes)
    text = encode_votes(branches)
    if text:
        assert [(b.participant, b.vote) for b in decode_votes(text)] == votes
    else:
        assert all(vote is not None and vote.is_yes and not vote.results for _, vote in votes)


def test_a_replayed_business_no_tells_who_said_what() -> None:
    """R3: same id and digest again: that answer."""
    no = business_no("INSUFFICIENT_FUNDS", "needs 5 BTC")
    votes = encode_votes((BranchOutcome("a", no, done=True), BranchOutcome("b", None, done=False)))
    outcome = replayed(stored(Decision.ROLLBACK, (), votes))
    assert outcome.replayed
    assert outcome.phase is Phase.ROLLED_BACK
    assert outcome.message == "a: needs 5 BTC"
    assert [branch.vote for branch in outcome.branches] == [no, None]
    assert outcome.owed == ("b",)


def test_a_replayed_commit_does_not_claim_that_all_is_applied() -> None:
    outcome = replayed(stored(Decision.COMMIT, ("a", "b")))
    assert outcome.phase is Phase.COMMITTED
    assert [branch.vote for branch in outcome.branches] == [PREPARED, PREPARED]
    assert not outcome.applied


def test_a_transaction_keeps_its_xid_through_the_fold() -> None:
    (tx,), _ = fold([stored(Decision.COMMIT, ("a",))], TIMING)
    assert isinstance(tx.xid, Xid)
    assert tx.xid == XID


@pytest.mark.parametrize(
    "results",
    [
        "no JSON",
        '{"v":9}',
        "7",
        "null",
        "[[[]]]",
        "[" * 100_000,
        '[{"participant":"a","kind":77}]',
        '[{"participant":7}]',
        '[{"participant":"a","kind":1}]',
    ],
)
def test_a_row_whose_results_cannot_be_read_is_told_all_the_same(results: str) -> None:
    """R17: the decision and its branches stand beside them; one such row stops nobody."""
    assert not is_readable(results)
    row = stored(Decision.COMMIT, ("a", "b"), results)
    (tx,), _ = fold([row], TIMING)
    assert tx.step(events.Woken(), 10.0).messages == (Send(Verb.COMMIT, "a"), Send(Verb.COMMIT, "b"))
    assert [branch.participant for branch in replayed(row).branches] == ["a", "b"]


def test_whom_a_row_names_has_prepared_whatever_its_results_say() -> None:
    """R2: the decision lists the branches that voted PREPARED."""
    results = encode_votes((BranchOutcome("a", business_no("NO", "no"), done=True),))
    assert is_readable(results)
    assert is_readable("")
    (tx,), _ = fold([stored(Decision.COMMIT, ("a",), results)], TIMING)
    assert tx.branches.owed == ["a"]
