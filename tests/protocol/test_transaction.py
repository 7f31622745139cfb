"""What transcripts do not show of a transaction."""

from __future__ import annotations

from coordinator.protocol import events
from coordinator.protocol.outcome import decode_votes
from coordinator.protocol.timing import Timing
from coordinator.protocol.transaction import Transaction
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import DONE, PREPARED, READ_ONLY, Ack, AckKind
from tests.protocol.interpreter import TIMING, VOTES, XID


def test_there_is_no_outcome_before_the_log_has_answered() -> None:
    """R1, R5."""
    tx = Transaction(XID, 100.0, TIMING)
    tx.step(events.Enlist("a", carried=1), 0.0)
    assert tx.outcome() is None
    tx.step(events.CommitAsked(), 0.0)
    assert tx.outcome() is None
    tx.step(events.Voted("a", PREPARED), 0.0)
    assert tx.outcome() is None
    tx.step(events.Recorded(7, 1), 0.0)
    outcome = tx.outcome()
    assert outcome is not None
    assert outcome.owed == ("a",)


def test_what_the_votes_returned_is_stored_with_the_decision() -> None:
    """R3: the same request gets the same answer, from whatever coordinator."""
    tx = Transaction(XID, 100.0, TIMING, request=RequestId("default", "order-1"))
    tx.step(events.Enlist("a", carried=1), 0.0)
    tx.step(events.CommitAsked(), 0.0)
    vote = PREPARED._replace(results=('{"balance":"1"}',))
    record = tx.step(events.Voted("a", vote), 0.0).record
    assert record is not None
    assert [branch.vote for branch in decode_votes(record.results)] == [vote]


def test_what_is_sent_again_is_counted() -> None:
    tx = Transaction(XID, 100.0, TIMING)
    tx.step(events.Enlist("a", carried=1), 0.0)
    tx.step(events.RollbackAsked("enough"), 0.0)
    assert tx.resends.attempts == 0
    tx.step(events.Woken(), 50.0)
    assert tx.resends.attempts == 1


def test_after_so_many_repetitions_it_asks_for_attention_once_and_goes_on_slowly() -> None:
    timing = Timing(retry_initial_s=1, retry_max_s=30, attempts_max=3)
    tx = Transaction(XID, 100.0, timing)
    tx.step(events.Enlist("a", carried=1), 0.0)
    tx.step(events.RollbackAsked("enough"), 0.0)
    flags, waits, now_s = list[bool](), list[float](), 0.0
    for _ in range(5):
        now_s = tx.resends.at_s
        step = tx.step(events.Woken(), now_s)
        assert step.messages
        flags.append(step.attention)
        waits.append(tx.resends.at_s - now_s)
    assert flags == [False, False, True, False, False]
    assert waits[1] < 6
    assert min(waits[2:]) > 20


def test_what_would_reach_nobody_is_not_sent_nor_counted() -> None:
    """A breaker that is open for an hour does not make a transaction one that needs attention."""
    tx = Transaction(XID, 100.0, TIMING)
    tx.step(events.Enlist("a", carried=1), 0.0)
    tx.step(events.RollbackAsked("enough"), 0.0)
    for _ in range(10):
        step = tx.step(events.Woken(blocked=True), tx.resends.at_s)
        assert not step.messages
        assert not step.attention
    assert tx.resends.attempts == 0
    assert tx.step(events.Reachable("a"), 1000.0).messages


def test_retries_slow_down_to_the_cap_and_spread_by_the_xid() -> None:
    timing = Timing(retry_initial_s=1.0, retry_max_s=30.0)
    for last in range(256):
        xid = Xid(bytes(15) + bytes([last]))
        waits = [timing.backoff_s(attempt, xid) for attempt in range(64)]
        assert waits == sorted(waits)
        assert 0.75 <= waits[0] < 1.25
        assert 22.5 <= waits[-1] < 37.5


def test_a_rollback_acknowledged_before_the_late_vote_stays_acknowledged() -> None:
    tx = Transaction(XID, 100.0, TIMING)
    tx.step(events.Enlist("a", carried=1), 0.0)
    tx.step(events.Enlist("b", carried=1), 0.0)
    tx.step(events.CommitAsked(), 0.0)
    tx.step(events.Voted("a", VOTES["TRANSIENT"]), 0.0)
    tx.step(events.Acknowledged("b", DONE), 0.0)
    tx.step(events.Voted("b", PREPARED), 0.0)
    assert tx.branches["b"].done


def test_only_who_prepared_and_acknowledged_commit_counts_as_having_applied_it() -> None:
    """R15: a participant that comes back with less has lost what it said."""
    tx = Transaction(XID, 100.0, TIMING)
    for name in ("done", "reader", "by_hand", "silent"):
        tx.step(events.Enlist(name, carried=1), 0.0)
    tx.step(events.CommitAsked(), 0.0)
    for name in ("done", "by_hand", "silent"):
        tx.step(events.Voted(name, PREPARED), 0.0)
    tx.step(events.Voted("reader", READ_ONLY), 0.0)
    tx.step(events.Recorded(7, 1), 0.0)
    tx.step(events.Acknowledged("done", DONE), 0.0)
    tx.step(events.Acknowledged("by_hand", Ack(AckKind.HEURISTIC_ROLLBACK)), 0.0)
    assert [name for name in (*tx.branches, "stranger") if tx.branches.has_acknowledged(name)] == ["done"]


def test_what_a_participant_lost_after_it_acknowledged_is_owed_to_it_again() -> None:
    """R15, while another branch is owed still. One that ended by hand has ended."""
    tx = Transaction(XID, 100.0, TIMING)
    for name in ("lost", "silent", "by_hand"):
        tx.step(events.Enlist(name, carried=1), 0.0)
    tx.step(events.CommitAsked(), 0.0)
    for name in tx.branches:
        tx.step(events.Voted(name, PREPARED), 0.0)
    tx.step(events.Recorded(7, 1), 0.0)
    tx.step(events.Acknowledged("lost", DONE), 0.0)
    tx.step(events.Acknowledged("by_hand", Ack(AckKind.HEURISTIC_ROLLBACK)), 0.0)
    assert not tx.step(events.Reachable("lost"), 0.0).messages
    assert [name for name in tx.branches if tx.branches.reopen(name)] == ["lost"]
    assert tx.branches.owed == ["lost", "silent"]
    assert tx.step(events.Reachable("lost"), 0.0).messages


def test_work_that_never_left_owes_its_participant_nothing() -> None:
    """Prepare leaves once, and the work with it: a participant that is down holds nothing to be undone."""
    tx = Transaction(XID, 100.0, TIMING)
    for name in ("up", "down"):
        tx.step(events.Enlist(name, carried=1), 0.0)
    tx.step(events.CommitAsked(), 0.0)
    step = tx.step(events.Voted("down", VOTES["UNSENT"]), 0.0)
    assert [send.participant for send in step.messages] == ["up"]
    assert tx.step(events.Acknowledged("up", DONE), 0.0).finished


def test_work_done_under_the_xid_is_undone_though_prepare_never_left() -> None:
    """R13: an embedded branch is there since Enlist."""
    tx = Transaction(XID, 100.0, TIMING)
    tx.step(events.Enlist("down", embedded=1), 0.0)
    tx.step(events.CommitAsked(), 0.0)
    assert not tx.step(events.Voted("down", VOTES["UNSENT"]), 0.0).finished
    assert tx.branches.owed == ["down"]


def test_what_was_sent_and_has_no_vote_is_undone() -> None:
    """A session that was lost may have carried it."""
    tx = Transaction(XID, 100.0, TIMING)
    tx.step(events.Enlist("lost", carried=1), 0.0)
    tx.step(events.CommitAsked(), 0.0)
    tx.step(events.Voted("lost", VOTES["TRANSIENT"]), 0.0)
    assert tx.branches.owed == ["lost"]
