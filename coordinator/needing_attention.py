"""Transactions whose outcome was told as often as is usual, and not acknowledged: an operator is to look why."""

from __future__ import annotations

from typing import Final

import structlog

from coordinator.running import Running
from participant_sdk.ids import Xid

_LOG: Final = structlog.get_logger(__name__)


class NeedingAttention(dict[Xid, Running]):
    """Those that are not finished, in the order in which that was found. They go on, slowly."""

    __slots__ = ()

    def ask(self, running: Running, unix_ms: int) -> None:
        """Ask for attention, in the log and in the transaction's own story."""
        tx = running.transaction
        self[tx.xid] = running
        owed, attempts = tx.branches.owed, tx.resends.attempts
        running.tell(unix_ms, "needs_attention", "", f"{attempts} attempts; owed: {', '.join(owed)}")
        _LOG.error("transaction_needs_attention", transaction_id=str(tx.xid), attempts=attempts, owed=owed)
