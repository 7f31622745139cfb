"""One branch as the coordinator sees it: its share of the work, its vote, and whether it has ended."""

from __future__ import annotations

from coordinator.protocol import heuristics
from participant_sdk.xa import Ack, AckKind, Decision, Heuristic, Vote, VoteKind


class BranchState:
    """A branch of a transaction. Mutable with slots: one is made for every branch of every transaction.

    ``done`` says that it needs to hear nothing more: it acknowledged the outcome, or it ended with
    its vote. A transient "no" does not end it, because it may come from a link that lost the vote, or
    from a participant that does not know what its own database did; such a branch is told Rollback.
    """

    __slots__ = ("carried", "done", "embedded", "heuristic", "number", "participant", "vote")

    def __init__(self, participant: str, number: int, *, vote: Vote | None = None) -> None:
        self.participant = participant
        self.number = number
        self.carried = 0
        self.embedded = 0
        self.vote = vote
        self.done = False
        self.heuristic: Heuristic | None = None

    def take_vote(self, vote: Vote) -> None:
        """Keep the first vote. READ_ONLY and a business "no" end the branch."""
        self.vote = vote
        self.done = vote.kind is VoteKind.READ_ONLY or vote.is_business_no

    def take_ack(self, ack: Ack, decision: Decision) -> bool:
        """Count an acknowledgement; False when it asks for another try."""
        if ack.kind is AckKind.RETRY:
            return False
        self.heuristic = heuristics.of_ack(ack.kind, decision)
        self.done = True
        return True
