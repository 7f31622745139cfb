"""The branches as the coordinator sees them: their share of the work, their votes, and what is owed to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

from coordinator.protocol import heuristics
from coordinator.protocol.outcome import BranchOutcome
from participant_sdk.xa import DONE, PREPARED, Ack, AckKind, Decision, Heuristic, Vote, VoteKind, XaCode, transient_no

OUTCOMES_KEPT_MAX: Final = 1024

# Named here, because finding a member in its enum costs as much as a call (``phases``).
_PREPARED: Final = VoteKind.PREPARED
_NO: Final = VoteKind.ROLLED_BACK
_RETRY: Final = AckKind.RETRY

SILENCE: Final = transient_no("TIMEOUT", "no vote in time", xa_code=XaCode.RBTIMEOUT)


class BranchState:
    """A branch of a transaction. Mutable with slots: one is made for every branch of every transaction.

    ``done`` says that it needs to hear nothing more: it acknowledged the outcome, or it ended with
    its vote. A transient "no" does not end it, because it may come from a link that lost the vote, or
    from a participant that does not know what its own database did; such a branch is told Rollback. But
    Prepare leaves once, and with it the work it carries: where it did not, the participant holds nothing.
    Work that was done at the participant itself, under the xid, is there all the same.
    """

    __slots__ = ("carried", "done", "embedded", "heuristic", "number", "participant", "vote")

    def __init__(self, participant: str, number: int) -> None:
        self.participant = participant
        self.number = number
        self.carried = 0
        self.embedded = 0
        self.vote: Vote | None = None
        self.done = False
        self.heuristic: Heuristic | None = None

    def take_vote(self, vote: Vote) -> None:
        """Keep the first vote. READ_ONLY and a business "no" end the branch; so does work that never left."""
        self.vote = vote
        if vote.kind is _PREPARED:
            return
        # A Rollback may have been acknowledged before the vote came.
        self.done = self.done or vote.kind is VoteKind.READ_ONLY or vote.is_business_no
        self.done = self.done or (vote.unsent and self.carried > 0)

    @property
    def objection(self) -> str:
        """The reason of its "no", in words."""
        said = self.vote and (self.vote.message or self.vote.reason)
        return f"{self.participant}: {said or 'voted no'}"

    def take_ack(self, ack: Ack, decision: Decision) -> bool:
        """Count an acknowledgement; False when it asks for another try."""
        if ack.kind is _RETRY:
            return False
        if ack is not DONE:
            self.heuristic = heuristics.of_ack(ack.kind, decision)
        self.done = True
        return True


class Branches(dict[str, BranchState]):
    """A transaction's branches by participant, in the order of their enlistment."""

    __slots__ = ()

    def add(self, participant: str) -> BranchState:
        """Add the participant's branch, with the next number from 1."""
        branch = self[participant] = BranchState(participant, len(self) + 1)
        return branch

    def share(self, work: Mapping[str, Collection[object]]) -> None:
        """Add a branch for each participant's share of a transaction's whole work; there are none yet."""
        for number, (participant, operations) in enumerate(work.items(), 1):
            branch = self[participant] = BranchState(participant, number)
            branch.carried = len(operations)

    def enlist(self, participant: str, carried: int, embedded: int) -> bool:
        """Add work to the participant's branch, which begins with it; False where that has work of the other kind."""
        branch = self.get(participant) or self.add(participant)
        if (branch.carried or carried) and (branch.embedded or embedded):
            return False
        branch.carried += carried
        branch.embedded += embedded
        return True

    def all_voted(self) -> bool:
        """Every branch has voted."""
        for branch in self.values():  # noqa: SIM110 - a generator costs several times as much, here and below
            if branch.vote is None:
                return False
        return True

    def all_done(self) -> bool:
        """Nobody is owed anything."""
        for branch in self.values():  # noqa: SIM110
            if not branch.done:
                return False
        return True

    def all_awaited_done(self) -> bool:
        """Nobody is owed anything that a client should wait for.

        A participant that cannot be reached, or whose silence was taken for "no", is owed its Rollback
        for as long as it takes; the client is told without it.
        """
        for branch in self.values():
            if not branch.done and (branch.vote is None or branch.vote.kind is not _NO):
                return False
        return True

    def take_silence_for_no(self) -> None:
        """Count every vote that has not come as a transient "no" (R2)."""
        for branch in self.values():
            if branch.vote is None:
                branch.take_vote(SILENCE)

    @property
    def silent(self) -> list[str]:
        """Those that have not voted."""
        return [branch.participant for branch in self.values() if branch.vote is None]

    @property
    def owed(self) -> list[str]:
        """Those that need to hear of the outcome, or to acknowledge it."""
        return [branch.participant for branch in self.values() if not branch.done]

    @property
    def prepared(self) -> tuple[str, ...]:
        """Those that voted PREPARED: the only ones that are told COMMIT (R2)."""
        return tuple([b.participant for b in self.values() if b.vote is not None and b.vote.kind is _PREPARED])

    def has_acknowledged(self, participant: str) -> bool:
        """Whether it acknowledged the outcome of what it had prepared, and did not end against it."""
        b = self.get(participant)
        if b is None or not b.done or b.heuristic is not None:
            return False
        return b.vote is not None and b.vote.kind is _PREPARED

    def reopen(self, participant: str) -> bool:
        """Owe it the outcome again, because it lost what it had acknowledged; False where it had not."""
        if not self.has_acknowledged(participant):
            return False
        self[participant].done = False
        return True

    def outcomes(self) -> tuple[BranchOutcome, ...]:
        """The branches as they stand, for people and for the log."""
        for b in self.values():
            if b.vote is not PREPARED or not b.done or b.heuristic is not None:
                return tuple([BranchOutcome(b.participant, b.vote, b.done, b.heuristic) for b in self.values()])
        return _plain_outcomes(tuple(self))

    def heuristic(self, decision: Decision) -> Heuristic | None:
        """How the whole ended against the decision, if it did."""
        for branch in self.values():
            if branch.heuristic is not None:
                return heuristics.merge(decision, [each.heuristic for each in self.values()])
        return None


@lru_cache(maxsize=OUTCOMES_KEPT_MAX)
def _plain_outcomes(participants: tuple[str, ...]) -> tuple[BranchOutcome, ...]:
    """Branches that are done after a bare yes, as nearly all are: the same few participants come all the time."""
    return tuple([BranchOutcome(name, PREPARED, done=True) for name in participants])
