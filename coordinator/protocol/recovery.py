"""Fold the log's unfinished rows into transactions to be driven to their end."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.outcome import decode_votes
from coordinator.protocol.phases import Phase
from coordinator.protocol.timing import Timing
from coordinator.protocol.transaction import Transaction
from participant_sdk.xa import PREPARED, Decision, VoteKind


def redo(stored: StoredDecision, timing: Timing) -> Transaction:
    """Read a decided transaction back, to be told to the branches that its row names. Nobody waits for its answer.

    The first ``Woken`` sends the decision to each; those that applied it before answer ALREADY_DONE. Whom the
    row names has prepared, whatever its results say, or if they cannot be read.
    """
    record = stored.record
    transaction = Transaction(record.xid, 0.0, timing, request=record.request, digest=record.digest)
    transaction.decision = record.decision
    transaction.phase = Phase.COMMITTING if record.decision is Decision.COMMIT else Phase.ROLLING_BACK
    transaction.reason = record.reason
    transaction.incarnation, transaction.sequence = stored.incarnation, stored.sequence
    transaction.answer.given = True
    votes = {branch.participant: branch.vote for branch in decode_votes(record.results)}
    for name in record.prepared:
        vote = votes.get(name)
        transaction.branches.add(name).take_vote(
            vote if vote is not None and vote.kind is VoteKind.PREPARED else PREPARED
        )
    return transaction


def fold(rows: Iterable[StoredDecision], timing: Timing) -> tuple[list[Transaction], list[StoredDecision]]:
    """Part a fenced incarnation's unfinished decisions into transactions to drive, and rows with nothing to send.

    A row that names no branch is finished: nobody prepared, or those who did ask for themselves (R7).
    """
    rows = list(rows)
    driven = [redo(stored, timing) for stored in rows if stored.record.prepared]
    return driven, [stored for stored in rows if not stored.record.prepared]
