"""What must be true of the machines after every move, by the numbers of the protocol's invariants and rules.

The oracle looks at the log's rows, the participants' durable rows, what was sent and what clients
were told; never at what a coordinator believes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from coordinator.log.memory_store import MemoryLogStore
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.outcome import Outcome
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.xa import AckKind, Decision, Heuristic, VoteKind
from tests.simulation.machines.coordinator import Told
from tests.simulation.machines.messages import Acknowledged, Commit, Message, Rollback, Voted
from tests.simulation.machines.participant import NONE, ParticipantMachine, Row

_FINAL = (AckKind.DONE, AckKind.ALREADY_DONE)


@dataclass(slots=True)
class Oracle:
    """What was seen so far. Mutable: it grows with every move."""

    enlisted: dict[Xid, tuple[str, ...]] = field(default_factory=dict[Xid, tuple[str, ...]])
    told: dict[Xid, Decision] = field(default_factory=dict[Xid, Decision])
    bound: dict[str, tuple[Decision, Xid]] = field(default_factory=dict[str, tuple[Decision, Xid]])
    rows: dict[Xid, Decision] = field(default_factory=dict[Xid, Decision])
    fenced: dict[int, int] = field(default_factory=dict[int, int])
    by_hand: dict[tuple[str, Xid], Heuristic] = field(default_factory=dict[tuple[str, Xid], Heuristic])
    violations: list[str] = field(default_factory=list[str])

    def copy(self) -> Oracle:
        """The same knowledge, growing by itself."""
        return Oracle(
            dict(self.enlisted),
            dict(self.told),
            dict(self.bound),
            dict(self.rows),
            dict(self.fenced),
            dict(self.by_hand),
            list(self.violations),
        )

    def key(self) -> object:
        """What of it decides whether a later move is a violation."""
        return tuple(self.told.items()), tuple(self.bound.items()), tuple(self.by_hand.items())

    # -- Messages, as they are sent

    def sent(self, message: Message, store: MemoryLogStore, participants: Mapping[str, ParticipantMachine]) -> None:
        """Judge a message at the moment it leaves (invariant 3)."""
        match message:
            case Commit():
                self._sent_commit(message, store)
            case Rollback() if _decision(store, message.xid) is Decision.COMMIT:
                self.violations.append(f"invariant 1: Rollback of {message.xid} is sent, and COMMIT is durable")
            case Voted() if message.vote.is_yes and message.participant:
                row = participants[message.participant].durable.get(message.xid, NONE)
                if row.vote is None or not row.vote.is_yes:
                    self.violations.append(f"R8: {message.participant} votes yes, and the branch is not durable")
            case Acknowledged():
                self._sent_ack(message, participants[message.participant].durable.get(message.xid, NONE))
            case _:
                pass

    def _sent_commit(self, message: Commit, store: MemoryLogStore) -> None:
        stored = store.tables.decisions.get(message.xid)
        if stored is None or stored.record.decision is not Decision.COMMIT:
            self.violations.append(f"R1: Commit of {message.xid} is sent, and COMMIT is not durable")
        elif (stored.incarnation, stored.sequence) != (message.incarnation, message.sequence):
            self.violations.append(f"R15: Commit of {message.xid} carries another sequence than its row")
        elif message.participant not in stored.record.prepared:
            self.violations.append(f"R2: {message.participant} is told COMMIT and did not vote PREPARED")

    def _sent_ack(self, message: Acknowledged, row: Row) -> None:
        wanted = BranchPhase.COMMITTED if message.decision is Decision.COMMIT else BranchPhase.ROLLED_BACK
        if message.ack.kind in _FINAL and row.phase is not wanted:
            self.violations.append(f"R9: {message.participant} acknowledges {wanted.name}, durable is {row.phase.name}")
        by_hand = (message.participant, message.xid) in self.by_hand
        if message.ack.kind not in (*_FINAL, AckKind.RETRY) and not by_hand:
            self.violations.append(f"{message.participant} acknowledges {message.ack.kind.name}: no hand did that")

    # -- Answers to clients

    def heard(self, told: Told, store: MemoryLogStore) -> None:
        """Judge what a client is told (R1, R3, invariants 4 and 11)."""
        outcome = told.outcome
        if outcome is None:
            return
        durable = _decision(store, outcome.xid)
        if outcome.decision is Decision.COMMIT and durable is not Decision.COMMIT:
            self.violations.append(f"R1: COMMITTED of {outcome.xid} is told, and is not durable")
        if outcome.decision is Decision.ROLLBACK and durable is Decision.COMMIT:
            self.violations.append(f"invariant 4: ROLLED_BACK of {outcome.xid} is told, and it committed")
        if self.told.setdefault(outcome.xid, outcome.decision) is not outcome.decision:
            self.violations.append(f"invariant 1: {outcome.xid} is told both ways")
        if told.request and not outcome.retry:
            self._bound(told.request, outcome, durable)

    def _bound(self, request: str, outcome: Outcome, durable: Decision | None) -> None:
        if durable is not outcome.decision:
            self.violations.append(f"R3: {request} is told {outcome.decision.name} for good, and that is not durable")
        if self.bound.setdefault(request, (outcome.decision, outcome.xid)) != (outcome.decision, outcome.xid):
            self.violations.append(f"invariant 11: {request} is told two answers")

    # -- The log, after each statement

    def wrote(self, store: MemoryLogStore, participants: Mapping[str, ParticipantMachine]) -> None:
        """Compare the log with what it was (invariants 1, 2 and 7)."""
        tables = store.tables
        # Rows only come, and last: a count and the youngest show every change but to an old row.
        if len(tables.decisions) != len(self.rows):
            for xid, stored in list(tables.decisions.items())[len(self.rows) :]:
                self.rows[xid] = stored.record.decision
                self._new_row(stored, participants)
        for number, row in tables.incarnations.items():
            last = row.last_sequence
            if row.fenced_by is not None and self.fenced.setdefault(number, last) != last:
                self.violations.append(f"invariant 7: incarnation {number} wrote after it was fenced")

    def _new_row(self, stored: StoredDecision, participants: Mapping[str, ParticipantMachine]) -> None:
        record = stored.record
        if record.decision is not Decision.COMMIT:
            if (xid := record.xid) in self.told and self.told[xid] is Decision.COMMIT:
                self.violations.append(f"invariant 1: {xid} gets a ROLLBACK row and was told COMMITTED")
            return
        if self.told.get(record.xid) is Decision.ROLLBACK:
            self.violations.append(f"invariant 4: {record.xid} gets a COMMIT row and was told ROLLED_BACK")
        yes: list[str] = []
        for name in self.enlisted.get(record.xid, ()):
            row = participants[name].durable.get(record.xid, NONE)
            if row.vote is None or not row.vote.is_yes:
                self.violations.append(f"R2: {record.xid} is COMMIT without the yes of {name}")
            elif row.vote.kind is VoteKind.PREPARED:
                yes.append(name)
                if row.phase not in (BranchPhase.PREPARED, BranchPhase.COMMITTED, BranchPhase.HEURISTIC):
                    self.violations.append(f"R8: {record.xid} is COMMIT, and {name} is {row.phase.name}")
        if list(record.prepared) != yes:
            self.violations.append(f"R2: {record.xid} lists {record.prepared} as prepared, and {yes} are")


def broken(oracle: Oracle, store: MemoryLogStore, participants: Mapping[str, ParticipantMachine]) -> Iterator[str]:
    """Everything that is wrong in this state, whatever led to it (invariants 1, 4, 5, 9, 10 and 11)."""
    yield from oracle.violations
    rows = store.tables.decisions
    for xid, before in oracle.rows.items():
        if xid not in rows or rows[xid].record.decision is not before:
            yield f"invariant 1: the decision of {xid} changed or went"
    for name, participant in participants.items():
        for xid, row in participant.durable.items():
            yield from _branch(oracle, name, xid, row, rows.get(xid))
    commits: dict[str, Xid] = {}
    for xid, stored in rows.items():
        request = stored.record.request
        is_commit = request is not None and stored.record.decision is Decision.COMMIT
        if request is not None and is_commit and commits.setdefault(request.name, xid) != xid:
            yield f"invariant 11: {request.name} committed twice"


def _branch(oracle: Oracle, name: str, xid: Xid, row: Row, stored: StoredDecision | None) -> Iterator[str]:
    decision = stored.record.decision if stored else None
    if (name, xid) in oracle.by_hand:
        return
    if row.applied > 1 or row.applied != (row.phase is BranchPhase.COMMITTED):
        yield f"invariant 5: {name} applied {xid} {row.applied} times and is {row.phase.name}"
    if row.phase is BranchPhase.COMMITTED and decision is not Decision.COMMIT:
        yield f"invariants 1 and 9: {name} committed {xid}, and the log does not say so"
    owes = stored is not None and decision is Decision.COMMIT and name in stored.record.prepared
    if row.phase is BranchPhase.ROLLED_BACK and owes:
        yield f"invariants 1 and 9: {name} rolled {xid} back, and the log says COMMIT"
    if row.phase is BranchPhase.HEURISTIC:
        yield f"invariant 10: {name} ended {xid} by hand, and nobody asked for it"


def left(oracle: Oracle, store: MemoryLogStore, participants: Mapping[str, ParticipantMachine]) -> Iterator[str]:
    """What may not be left at rest (invariants 4, 6 and 8)."""
    yield from broken(oracle, store, participants)
    for name, participant in participants.items():
        for xid in participant.in_doubt():
            yield f"invariant 8: {name} is in doubt of {xid}"
    for xid, stored in store.tables.decisions.items():
        for name in stored.record.prepared if stored.record.decision is Decision.COMMIT else ():
            row = participants[name].durable.get(xid, NONE)
            if not row.applied and (name, xid) not in oracle.by_hand:
                yield f"invariant 4: {xid} committed, and {name} has not applied it"
    for number, row in store.tables.incarnations.items():
        if row.fenced_by is not None and store.unfinished(number):
            yield f"invariant 8: incarnation {number} left decisions that nobody finished"


def _decision(store: MemoryLogStore, xid: Xid) -> Decision | None:
    stored = store.tables.decisions.get(xid)
    return stored.record.decision if stored else None
