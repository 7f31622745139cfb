"""When a transaction's client may be told, and whether it has been."""

from __future__ import annotations

from coordinator.protocol.branches import Branches
from coordinator.protocol.effects import StoredDecision


class Answer:
    """What stands between a certain outcome and its client.

    ``log_owes`` counts the log's answers that must come first (R3), ``heuristics_owed`` the participants
    whose heuristic ends must be durable first (R12). With ``wait_applied`` the client hears when
    every branch worth waiting for is done, or ``by_s`` has passed. ``stored`` is what the request_id was
    bound to by another transaction: then that is the answer. Mutable with slots: one for each transaction.
    """

    __slots__ = ("by_s", "given", "heuristics_owed", "log_owes", "stored", "wait_applied")

    def __init__(self) -> None:
        self.given = False
        self.stored: StoredDecision | None = None
        self.log_owes = 0
        self.heuristics_owed: tuple[str, ...] = ()
        self.wait_applied = True
        self.by_s = 0.0

    def is_free(self) -> bool:
        """Nothing must become durable before the client is told."""
        return not self.log_owes and not self.heuristics_owed

    def wake_at_s(self, resend_at_s: float) -> float:
        """When to look again: at the next repetition of the messages, or when the client waits no longer."""
        if self.given or self.log_owes or self.heuristics_owed:
            return resend_at_s
        return min(resend_at_s, self.by_s)

    def is_due(self, branches: Branches, now_s: float, *, all_done: bool) -> bool:
        """The client is to be told now. ``all_done``: of all branches, whether anybody waits for them or not."""
        if self.given or self.log_owes or self.heuristics_owed:
            return False
        return all_done or not self.wait_applied or now_s >= self.by_s or branches.all_awaited_done()
