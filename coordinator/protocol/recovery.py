"""Fold the log's unfinished rows into transactions to be driven to their end."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.phases import Phase
from coordinator.protocol.timing import Timing
from coordinator.protocol.transaction import Transaction
from participant_sdk.xa import PREPARED, Decision


def redo(stored: StoredDecision, timing: Timing) -> Transaction:
    """Read a decided COMMIT back as a transaction in COMMITTING. Nobody waits for its answer.

    The first ``Woken`` sends Commit to every branch that voted PREPARED; those that applied it before
    answer ALREADY_DONE.
    """
    record = stored.record
    transaction = Transaction(record.xid, 0.0, timing, request=record.request, digest=record.digest)
    transaction.decision = record.decision
    transaction.phase = Phase.COMMITTING
    transaction.incarnation, transaction.sequence = stored.incarnation, stored.sequence
    transaction.answer.given = True
    for name in record.prepared:
        transaction.branches.add(name).take_vote(PREPARED)
    return transaction


def fold(rows: Iterable[StoredDecision], timing: Timing) -> tuple[list[Transaction], list[StoredDecision]]:
    """Part a fenced incarnation's unfinished decisions into transactions to drive, and rows with nothing to send.

    A ROLLBACK row names no branches: they were told by the incarnation that died, or they ask (R7).
    """
    driven: list[Transaction] = []
    silent: list[StoredDecision] = []
    for stored in rows:
        if stored.record.decision is Decision.COMMIT and stored.record.prepared:
            driven.append(redo(stored, timing))
        else:
            silent.append(stored)
    return driven, silent
