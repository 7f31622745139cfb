"""What a run has lost, been told by hand, or dropped by right: all that the oracle must not insist on.

A log that loses its tail keeps its promises for every COMMIT that some participant had applied by
then: the end of HOLD brings it back. A decision that nobody had applied cannot be recovered, as the
documents say; about such a transaction, and about the request that it had bound, nothing is promised.
A participant that loses what it had flushed has holes: branches that it voted on and does not know.
A branch ended by hand is the operator's. A decision below the horizon may be gone once its
transaction has ended everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coordinator.protocol.effects import StoredDecision
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.resources.memory_store import MemoryStore, State
from participant_sdk.xa import Decision
from tests.simulation.faults import Sight, Tally

ENDED = (BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK, BranchPhase.HEURISTIC)


@dataclass(slots=True)
class Losses:
    """What is known of losses. Mutable: it grows.

    ``decisions`` are rows that were durable and are gone from the log, lost or pruned; ``requests`` are bindings
    that nobody needs to keep any more.
    """

    log_id: str
    tally: Tally
    decisions: dict[Xid, StoredDecision] = field(default_factory=dict[Xid, StoredDecision])
    pruned: dict[Xid, None] = field(default_factory=dict[Xid, None])
    unrecoverable: dict[Xid, None] = field(default_factory=dict[Xid, None])
    requests: dict[str, None] = field(default_factory=dict[str, None])
    holes: dict[tuple[str, Xid], None] = field(default_factory=dict[tuple[str, Xid], None])
    # Branches that an operator asked to force, and those that were.
    asked: dict[tuple[str, Xid], None] = field(default_factory=dict[tuple[str, Xid], None])
    hands: dict[tuple[str, Xid], None] = field(default_factory=dict[tuple[str, Xid], None])
    log_tails: int = 0
    # How often each incarnation's number was drawn: a log that lost its tail may give one out again.
    drawn: Counter[int] = field(default_factory=Counter[int])
    # Participants that were restored from older copies: what they had acknowledged may be to do again.
    restored: dict[str, None] = field(default_factory=dict[str, None])
    # What restored participants had acknowledged, by incarnation, and how often each told a coordinator of less.
    acknowledged: dict[str, Mapping[int, int]] = field(default_factory=dict[str, Mapping[int, int]])
    told_less: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    def is_promised(self, xid: Xid) -> bool:
        """One outcome, and the same everywhere, is promised of this transaction."""
        return xid not in self.unrecoverable

    def is_promised_at(self, participant: str, xid: Xid) -> bool:
        """The outcome is promised at this participant too: it has lost nothing of it, and no hand was on it."""
        return self.is_promised(xid) and (participant, xid) not in self.holes and (participant, xid) not in self.hands

    def is_even(self, xid: Xid) -> bool:
        """Every participant is promised to do its part, so the effects of the whole add up."""
        touched = {**self.holes, **self.hands}
        return self.is_promised(xid) and not any(one == xid for _, one in touched)

    # -- The log

    def drew(self, number: int) -> None:
        """A coordinator drew an incarnation."""
        self.drawn[number] += 1
        self.tally[Sight.DRAWN_TWICE] += self.drawn[number] == 2

    def lost_decisions(self, gone: Iterable[StoredDecision], stores: Mapping[str, MemoryStore]) -> None:
        """The log lost its tail: durable rows are gone."""
        self.log_tails += 1
        for stored in gone:
            record = stored.record
            self.decisions[record.xid] = stored
            self.tally[Sight.DECISION_LOST] += 1
            if record.decision is Decision.COMMIT and self._is_applied(stored, stores):
                self.tally[Sight.LOST_WAS_APPLIED] += 1
                continue
            self.tally[Sight.LOST_WAS_NOT] += 1
            self.unrecoverable[record.xid] = None
            if record.request is not None:
                self.requests[record.request.name] = None

    def pruned_decision(self, stored: StoredDecision) -> None:
        """The log dropped a row after its retention, and with it its binding."""
        self.tally[Sight.PRUNED] += 1
        self.decisions[stored.record.xid] = stored
        self.pruned[stored.record.xid] = None
        if stored.record.request is not None:
            self.requests[stored.record.request.name] = None

    def _is_applied(self, stored: StoredDecision, stores: Mapping[str, MemoryStore]) -> bool:
        """Whether some participant had applied a COMMIT; one without branches prepared has nothing to apply."""
        xid = stored.record.xid
        return any(
            key.xid == xid and branch.branch.phase is BranchPhase.COMMITTED
            for name in stored.record.prepared
            for key, branch in stores[name].durable.branches.items()
        )

    # -- A participant

    def lost_branches(self, name: str, before: State, after: State, acknowledged: Mapping[int, int]) -> None:
        """A participant went back to an older copy; ``acknowledged`` is what the log's checkpoints say of it."""
        for key, stored in before.branches.items():
            older = after.branches.get(key)
            phase = stored.branch.phase
            vote = stored.branch.vote
            if older is None and (phase is not BranchPhase.ROLLED_BACK or (vote is not None and vote.is_yes)):
                self.tally[Sight.BRANCH_LOST] += 1
                self.holes[name, key.xid] = None
            elif older is not None and phase in ENDED and older.branch.phase is BranchPhase.PREPARED:
                self.tally[Sight.END_LOST] += 1
        for key in before.pruned:
            # What had been dropped by right is nobody's to send again.
            if key not in after.pruned:
                self.holes[name, key.xid] = None
        self.restored[name] = None
        self.acknowledged[name] = acknowledged

    def welcomed(self, name: str, coordinator: str, watermarks: Mapping[int, int]) -> None:
        """A participant told a coordinator what it has applied."""
        known = self.acknowledged.get(name, {})
        if any(watermarks.get(number, 0) < sequence for number, sequence in known.items()):
            self.told_less[name, coordinator] += 1
