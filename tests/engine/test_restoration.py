"""R15: what branches put back into a log that lost its tail, and what they cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.errors import RefusedError
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from coordinator.protocol.outcome import decode_votes
from coordinator.restoration import Findings, Polled, find
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import RequestId, Xid
from participant_sdk.participant import Branch
from participant_sdk.xa import PREPARED, READ_ONLY, Decision, Heuristic

LOG_ID = "00000000000000aa"
NUMBER = 100
XID = Xid.make(1_000_000, NUMBER, 1)
OTHER = Xid.make(1_000_001, NUMBER, 2)
NAMES = ("left", "middle", "right")
HORIZON_MS = 500_000


def in_doubt(xid: Xid = XID, request_id: str = "order-1", participants: tuple[str, ...] = NAMES) -> Branch:
    return Branch(LOG_ID, xid, BranchPhase.PREPARED, PREPARED, None, "", participants, "default", request_id, b"digest")


def committed(xid: Xid = XID, sequence: int = 7, request_id: str = "order-1") -> Branch:
    branch = in_doubt(xid, request_id)
    return replace(branch, phase=BranchPhase.COMMITTED, incarnation=NUMBER, sequence=sequence)


def poll(
    *,
    left: tuple[Branch, ...] = (),
    middle: tuple[Branch, ...] = (),
    right: tuple[Branch, ...] = (),
    known: dict[Xid, StoredDecision] | None = None,
) -> Findings:
    """What a poll of three comes to, of a log whose incarnation stands at 5."""
    polled = [
        Polled(name, {NUMBER: max((branch.sequence for branch in branches), default=0)}, branches)
        for name, branches in zip(NAMES, (left, middle, right), strict=True)
    ]
    return find(polled, {NUMBER: 5}, known or {}, HORIZON_MS)


def test_a_commit_comes_back_as_it_was() -> None:
    """Its place, its binding, and everybody who is to be told."""
    heuristic = replace(in_doubt(), phase=BranchPhase.HEURISTIC, heuristic=Heuristic.ROLLBACK)
    findings = poll(left=(committed(),), middle=(in_doubt(),), right=(heuristic,))
    (lost,) = findings.lost
    stored = lost.row({}, 42)
    assert stored == StoredDecision(
        DecisionRecord(XID, Decision.COMMIT, NAMES, RequestId("default", "order-1"), b"digest"), NUMBER, 7, 42
    )
    assert findings.sequences == {NUMBER: 7}
    assert findings.undecided == 0


def test_a_request_is_bound_only_where_there_was_one() -> None:
    (lost,) = poll(left=(committed(request_id=""),)).lost
    assert lost.row({}, 0).record.request is None


def test_who_voted_read_only_is_not_told_and_its_results_are_answered_again() -> None:
    """R2, R3."""
    (lost,) = poll(left=(committed(),), right=(in_doubt(),)).lost
    assert lost.others == ("middle",)
    read = replace(in_doubt(), phase=BranchPhase.ROLLED_BACK, vote=READ_ONLY._replace(results=('{"balance":"1"}',)))
    record = lost.row({"middle": read}, 0).record
    assert record.prepared == ("left", "right")
    votes = {branch.participant: branch.vote for branch in decode_votes(record.results)}
    assert votes == {"left": PREPARED, "middle": read.vote, "right": PREPARED}


def test_who_rolled_back_against_the_decision_is_told_commit_and_so_found() -> None:
    """Its answer is a heuristic, which nobody may lose (R12)."""
    (lost,) = poll(left=(committed(),)).lost
    undone = replace(in_doubt(), phase=BranchPhase.ROLLED_BACK)
    assert lost.row({"middle": undone}, 0).record.prepared == ("left", "middle")


@pytest.mark.parametrize("phase", [BranchPhase.PREPARED, BranchPhase.HEURISTIC])
def test_a_branch_that_heard_commit_and_did_not_come_to_follow_it_is_proof(phase: BranchPhase) -> None:
    """R15: it has stored where COMMIT stands in the log, before anything else of it."""
    heard = replace(committed(), phase=phase)
    findings = poll(left=(heard,), right=(in_doubt(),))
    (lost,) = findings.lost
    assert (lost.incarnation, lost.sequence, lost.row({}, 0).record.prepared) == (NUMBER, 7, ("left", "right"))
    assert (findings.undecided, findings.sequences) == (0, {NUMBER: 7})
    rolled_back = StoredDecision(DecisionRecord(XID, Decision.ROLLBACK), NUMBER, 5, 0)
    with pytest.raises(RefusedError, match="the log says ROLLBACK"):
        poll(left=(heard,), known={XID: rolled_back})


def test_branches_without_a_decision_are_counted_but_for_the_forgotten() -> None:
    old = Xid.make(HORIZON_MS - 1, NUMBER, 3)
    findings = poll(left=(in_doubt(old), in_doubt(), in_doubt(OTHER)), right=(in_doubt(),))
    assert findings == Findings((), 3, {})


def test_what_the_log_still_knows_needs_nothing() -> None:
    known = StoredDecision(DecisionRecord(XID, Decision.COMMIT, NAMES), NUMBER, 7, 0)
    findings = poll(left=(committed(),), right=(in_doubt(participants=("left", "gone")),), known={XID: known})
    assert findings == Findings((), 0, {NUMBER: 7})


def test_a_participant_that_only_applied_raises_the_sequence() -> None:
    """Its branch may be gone: nobody may be given that sequence again."""
    findings = find([Polled("left", {NUMBER: 9, 200: 1}, ())], {NUMBER: 5, 300: 4}, {})
    assert findings == Findings((), 0, {NUMBER: 9, 200: 1})


@pytest.mark.parametrize(
    ("left", "right", "code", "said"),
    [
        (committed(), committed(sequence=8), "BRANCHES_DISAGREE", "right names sequence 8"),
        (committed(), replace(committed(), incarnation=99), "BRANCHES_DISAGREE", "of incarnation 99"),
        (replace(committed(), incarnation=99), in_doubt(), "BRANCHES_DISAGREE", "incarnation 100 gave it out"),
        (committed(), in_doubt(participants=("left", "right")), "BRANCHES_DISAGREE", "different participants"),
        (committed(), in_doubt(request_id="order-2"), "BINDING_CONFLICT", "different requests"),
        (committed(), replace(in_doubt(), request_digest=b"other"), "BINDING_CONFLICT", "different requests"),
        (committed(), committed(OTHER, request_id="order-2"), "BRANCHES_DISAGREE", "same sequence 7"),
        (committed(), committed(OTHER, 8), "BINDING_CONFLICT", f"bound to transaction {XID}"),
    ],
)
def test_branches_that_contradict_each_other_restore_nothing(left: Branch, right: Branch, code: str, said: str) -> None:
    with pytest.raises(RefusedError, match=said) as refused:
        poll(left=(left,), right=(right,))
    assert refused.value.code == code
    assert refused.value.xid in {XID, OTHER}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (StoredDecision(DecisionRecord(XID, Decision.ROLLBACK), NUMBER, 5, 0), "the log says ROLLBACK"),
        (StoredDecision(DecisionRecord(XID, Decision.COMMIT), NUMBER, 5, 0), "the log sequence 5"),
    ],
)
def test_a_branch_that_contradicts_the_log_restores_nothing(row: StoredDecision, said: str) -> None:
    with pytest.raises(RefusedError, match=said) as refused:
        poll(left=(committed(),), known={XID: row})
    assert refused.value.code == "BRANCHES_DISAGREE"


@pytest.mark.parametrize("branch", [in_doubt(participants=("left", "gone")), in_doubt(participants=("gone",))])
def test_a_branch_that_names_a_stranger_restores_nothing(branch: Branch) -> None:
    """The stranger may have committed it, and cannot be asked."""
    with pytest.raises(RefusedError, match="gone") as refused:
        poll(left=(branch,))
    assert refused.value.code == "PARTICIPANTS_MISSING"
