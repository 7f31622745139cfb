"""What callers are told of an event that the protocol refused."""

from __future__ import annotations

from coordinator.errors import RequestReusedError, TransactionError, WrongPhaseError
from coordinator.protocol.effects import Refusal
from coordinator.protocol.transaction import Transaction


def refused(tx: Transaction, refusal: Refusal) -> TransactionError:
    """Make the error: RequestReusedError, which names whom the request_id is bound to, or WrongPhaseError."""
    if refusal is Refusal.REQUEST_REUSED:
        bound = tx.answer.stored.record.xid if tx.answer.stored else tx.xid
        return RequestReusedError(f"the request_id is bound to transaction {bound} with other operations", xid=bound)
    return WrongPhaseError(f"transaction {tx.xid} is {tx.phase.name}: {refusal.value}", code=refusal.name, xid=tx.xid)
