"""Whether what clients were told is what the databases hold: invariants 1, 4, 5, 6, 8 and 11 of the protocol."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from coordinator.demo.record import Intent, Notice
from coordinator.demo.snapshot import COMMITTED, Decision, Snapshot

_ROLLED_BACK: Final = 4
_VOTED_PREPARED: Final = 1
# Nothing stands in the way of these: a "no" to one of them is a defect.
MUST_COMMIT: Final = ("open", "coin deposit", "settlement", "release", "given back")
# Whatever has been done by these has an end that is none of money's: the steps and their compensations.
_ENDED: Final = ("COMPLETED", "COMPENSATED")


def broken_promises(snapshot: Snapshot, told: Mapping[str, Intent], notices: Sequence[Notice]) -> Iterator[str]:
    """Where clients were told one thing and the databases hold another, a sentence each."""
    decisions = {decision.xid: decision for decision in snapshot.decisions}
    yield from _wrong_branches(snapshot, decisions)
    yield from _repeated_requests(snapshot)
    for intent in told.values():
        yield from _wrong_answers(intent, decisions)
    yield from _wrong_workflows(snapshot, told)
    yield from _wrong_moves(snapshot, told)
    yield from _wrong_notices(snapshot, notices)


def _wrong_branches(snapshot: Snapshot, decisions: Mapping[UUID, Decision]) -> Iterator[str]:
    """Invariants 4 and 9: a branch is where the decision wants it, everywhere, and nothing is in doubt."""
    committed: set[tuple[str, UUID]] = set()
    for participant, branches in snapshot.branches.items():
        for branch in branches:
            decision = decisions.get(branch.xid)
            is_commit = decision is not None and decision.is_commit
            if branch.phase == COMMITTED:
                committed.add((participant, branch.xid))
            if branch.phase not in {COMMITTED, _ROLLED_BACK}:
                yield f"BRANCH_NOT_ENDED {participant} {branch.xid}: phase {branch.phase}"
            elif branch.phase == COMMITTED and not is_commit:
                yield f"COMMITTED_UNDECIDED {participant} {branch.xid}"
            elif branch.phase == _ROLLED_BACK and is_commit and branch.vote == _VOTED_PREPARED:
                yield f"DECISION_NOT_APPLIED {participant} {branch.xid}: COMMIT was decided, and it is rolled back"
    for decision in decisions.values():
        for participant in (decision.prepared or []) if decision.is_commit else []:
            if (participant, decision.xid) not in committed:
                yield f"DECISION_NOT_APPLIED {participant} {decision.xid}: COMMIT was decided"


def _repeated_requests(snapshot: Snapshot) -> Iterator[str]:
    """Invariant 11: a request commits at most once."""
    commits = Counter(each.request_id for each in snapshot.decisions if each.is_commit and each.request_id)
    yield from (f"REQUEST_COMMITTED_TWICE {name}: {count} times" for name, count in commits.items() if count > 1)


def _wrong_answers(intent: Intent, decisions: Mapping[UUID, Decision]) -> Iterator[str]:
    """Invariants 1 and 11: every answer to one request is the same, and is the log's."""
    if not intent.told:
        yield f"NEVER_TOLD {intent.request_id}: how it ended"
    if len({(told["state"], told.get("xid"), told.get("workflow_id")) for told in intent.told}) > 1:
        yield f"ANSWER_CHANGED {intent.request_id}: {intent.told}"
    if intent.what in MUST_COMMIT and intent.state != "COMMITTED":
        yield f"REFUSED_WITHOUT_REASON {intent.request_id}: {intent.told}"
    for told in intent.told:
        if (xid := told.get("xid")) is None:
            continue
        decision = decisions.get(UUID(xid))
        is_commit = decision is not None and decision.is_commit
        if is_commit is not (told["state"] == "COMMITTED"):
            yield f"TOLD_OTHERWISE {intent.request_id} {xid}: was told {told['state']}, and the log has {decision}"


def _wrong_workflows(snapshot: Snapshot, told: Mapping[str, Intent]) -> Iterator[str]:
    """Invariant 8: every workflow has ended, as its client was told."""
    for ran in snapshot.workflows:
        if ran.state not in _ENDED or ran.stuck:
            yield f"WORKFLOW_NOT_ENDED {ran.workflow_id} {ran.kind}: {ran.state} {ran.stuck or ''}"
        intent = told.get(ran.request_id or "")
        if intent is None or intent.state != ran.state:
            yield f"WORKFLOW_TOLD_OTHERWISE {ran.workflow_id}: {ran.state}, and its client was told {intent}"
    known = {ran.request_id for ran in snapshot.workflows}
    for intent in told.values():
        if "workflow" in intent.asked and intent.request_id not in known:
            yield f"WORKFLOW_LOST {intent.request_id}"


def _wrong_moves(snapshot: Snapshot, told: Mapping[str, Intent]) -> Iterator[str]:
    """Invariants 4 and 5: money came in and left for whom it was told, once, and for nobody else."""
    kept = Counter((move.user_id, move.currency, move.amount) for move in (*snapshot.bank_moves, *snapshot.chain_moves))
    promised = Counter(move for intent in told.values() for move in _moves_of(intent))
    yield from (f"MOVED_UNTOLD {move}: {many} times too often" for move, many in (kept - promised).items())
    yield from (f"TOLD_UNMOVED {move}: {many} times too seldom" for move, many in (promised - kept).items())
    wanted = Counter(
        (str(intent.asked["address"]), Decimal(intent.asked["amount"]))
        for intent in told.values()
        if intent.what == "coin withdrawal" and intent.state == "COMPLETED"
    )
    paid = Counter(snapshot.chain_paid)
    yield from (f"CHAIN_PAID_UNTOLD {each}" for each in (paid - wanted))
    yield from (f"CHAIN_NOT_PAID {each}" for each in (wanted - paid))


def _wrong_notices(snapshot: Snapshot, notices: Sequence[Notice]) -> Iterator[str]:
    """Invariant 5: the webhook was told of each deposit from the bank, under one id, and of nothing else."""
    bodies: dict[str, str] = {}
    for notice in notices:
        if not notice.is_signed:
            yield f"NOTICE_FORGED {notice.notice_id}: its signature is wrong"
        if bodies.setdefault(notice.notice_id, notice.body) != notice.body:
            yield f"NOTICE_CHANGED {notice.notice_id}: {bodies[notice.notice_id]}, and then {notice.body}"
    heard = Counter(_noticed(body) for body in bodies.values())
    recorded = Counter(
        (move.name, move.user_id, move.currency, move.amount) for move in snapshot.bank_moves if move.kind == "DEPOSIT"
    )
    yield from (f"NOTICE_WITHOUT_DEPOSIT {each}" for each in (heard - recorded))
    yield from (f"DEPOSIT_WITHOUT_NOTICE {each}" for each in (recorded - heard))


def _noticed(body: str) -> tuple[str, str, str, Decimal]:
    """Which deposit a notice tells of."""
    told: dict[str, str] = json.loads(body)["data"]
    return told["bank_reference"], told["user_id"], told["currency"], Decimal(told["amount"])


def _moves_of(intent: Intent) -> Iterator[tuple[str, str, Decimal]]:
    """What an intent that was told done has moved into the exchange, or out of it."""
    if intent.state not in {"COMMITTED", "COMPLETED"}:
        return
    asked: dict[str, Any] = intent.asked
    match intent.what:
        case "bank deposit":
            yield asked["user_id"], asked["currency"], Decimal(asked["amount"])
        case "coin withdrawal":
            yield asked["user_id"], asked["currency"], -Decimal(asked["amount"])
        case "coin deposit" | "bank withdrawal":
            for service, operation, given in asked["operations"]:
                if (service, operation) == ("wallet", "record_deposit"):
                    yield given["user_id"], given["currency"], Decimal(given["amount"])
                elif (service, operation) == ("fiat", "reserve_withdrawal"):
                    yield given["user_id"], given["currency"], -Decimal(given["amount"])
        case _:
            return
