"""What must be true at every moment of a run, watched from outside: frames, the log's rows, stores, answers.

The oracle believes nobody. It reads the frames on the simulated wire, the rows that a crash
would leave in the log and in the participants' stores, and keeps its own record of what
clients were told. The numbers are those of the protocol's rules and invariants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from google.protobuf.message import Message
from pincex.tx.v1 import common_pb2, resource_pb2

from coordinator.log.memory_store import MemoryLogStore
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.outcome import Outcome
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation
from participant_sdk.resources.memory_store import BranchKey, MemoryStore
from participant_sdk.xa import Decision, VoteKind
from tests.simulation.frames import short

VIOLATIONS_MAX: Final = 20


class Intent(NamedTuple):
    """What one client wants; ``request_id`` is empty where it names its intent by nothing."""

    number: int
    operations: tuple[Operation, ...]
    request_id: str


@dataclass(slots=True)
class Told:
    """What was said of one transaction or one request. Mutable: it grows as clients are told."""

    decision: Decision
    xid: Xid
    intent: Intent


@dataclass(slots=True)
class Oracle:
    """The online part; ``rest`` judges what is left when all has come to rest."""

    log: MemoryLogStore
    stores: Mapping[str, MemoryStore]
    note: Callable[[str], None]
    now: Callable[[], float]
    violations: list[str] = field(default_factory=list[str])
    enlisted: dict[Xid, tuple[str, ...]] = field(default_factory=dict[Xid, tuple[str, ...]])
    votes: dict[Xid, dict[str, int]] = field(default_factory=dict[Xid, dict[str, int]])
    told: dict[Xid, Told] = field(default_factory=dict[Xid, Told])
    bound: dict[str, Told] = field(default_factory=dict[str, Told])
    begun_at_s: dict[Xid, float] = field(default_factory=dict[Xid, float])
    told_at_s: dict[Xid, float] = field(default_factory=dict[Xid, float])
    bound_at_s: dict[str, float] = field(default_factory=dict[str, float])
    _rows: dict[Xid, Decision] = field(default_factory=dict[Xid, Decision])
    _fenced: dict[int, int] = field(default_factory=dict[int, int])

    def decisions(self) -> Mapping[Xid, StoredDecision]:
        """The log's rows, as a crash now would leave them."""
        return self.log.tables.decisions

    def violated(self, what: str) -> None:
        """Note a violation; the run ends at the next occasion."""
        self.note(f"VIOLATION {what}")
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(what)

    # -- Frames

    def saw(self, source: str, target: str, frame: Message) -> None:
        """Judge a frame at the moment it is sent."""
        match frame:
            case resource_pb2.SessionRequest():
                self._saw_request(frame)
            case resource_pb2.SessionResponse():
                self._saw_response(source, frame)
            case _:
                self.violated(f"{source} sent {target} a {type(frame).__name__}")

    def _saw_request(self, frame: resource_pb2.SessionRequest) -> None:
        for xid, request in zip(Xid.unpack(frame.prepares.xids), frame.prepares.requests, strict=True):
            enlisted = tuple(request.participants)
            self.begun_at_s.setdefault(xid, self.now())
            if self.enlisted.setdefault(xid, enlisted) != enlisted:
                self.violated(f"Prepares of {short(xid)} name different participants")
        for batch in frame.commits:
            for xid, sequence in zip(Xid.unpack(batch.xids), batch.sequences, strict=True):
                self._saw_commit(xid, batch.incarnation, sequence)
        for xid in Xid.unpack(frame.rollbacks.xids):
            if self._decision(xid) is Decision.COMMIT:
                self.violated(f"invariant 1: Rollback of {short(xid)} was sent, and COMMIT is durable")

    def _saw_commit(self, xid: Xid, incarnation: int, sequence: int) -> None:
        stored = self.decisions().get(xid)
        if stored is None or stored.record.decision is not Decision.COMMIT:
            self.violated(f"R1: Commit of {short(xid)} was sent, and COMMIT is not durable")
        elif (stored.incarnation, stored.sequence) != (incarnation, sequence):
            self.violated(f"R15: Commit of {short(xid)} says {incarnation}#{sequence}, the log {stored.sequence}")

    def _saw_response(self, source: str, frame: resource_pb2.SessionResponse) -> None:
        for xid in Xid.unpack(frame.votes.prepared_xids):
            self._saw_vote(source, xid, VoteKind.PREPARED)
        for xid, vote in zip(Xid.unpack(frame.votes.xids), frame.votes.votes, strict=True):
            self._saw_vote(source, xid, vote.kind)
        for xid in Xid.unpack(frame.commit_acks.done_xids):
            self._saw_end(source, xid, BranchPhase.COMMITTED)
        for xid, ack in zip(Xid.unpack(frame.commit_acks.xids), frame.commit_acks.acks, strict=True):
            self._saw_ack(source, xid, ack, BranchPhase.COMMITTED)
        for xid in Xid.unpack(frame.rollback_acks.done_xids):
            self._saw_end(source, xid, BranchPhase.ROLLED_BACK)
        for xid, ack in zip(Xid.unpack(frame.rollback_acks.xids), frame.rollback_acks.acks, strict=True):
            self._saw_ack(source, xid, ack, BranchPhase.ROLLED_BACK)

    def _saw_vote(self, source: str, xid: Xid, kind: int) -> None:
        self.votes.setdefault(xid, {})
        if kind not in (VoteKind.PREPARED, VoteKind.READ_ONLY):
            return
        self.votes[xid][source] = kind
        stored = self.stores[source].durable.branches.get(BranchKey(self.log.log_id, xid))
        if stored is None or stored.branch.vote is None or not stored.branch.vote.is_yes:
            self.violated(f"R8: {source} votes yes to {short(xid)}, and the branch is not durable")

    def _saw_ack(self, source: str, xid: Xid, ack: common_pb2.Ack, phase: BranchPhase) -> None:
        if ack.kind in (common_pb2.ACK_KIND_DONE, common_pb2.ACK_KIND_ALREADY_DONE):
            self._saw_end(source, xid, phase)
        elif ack.kind != common_pb2.ACK_KIND_RETRY:
            kind = common_pb2.AckKind.Name(ack.kind)
            self.violated(f"{source} acknowledges {short(xid)} with {kind}, and no operator was there")

    def _saw_end(self, source: str, xid: Xid, phase: BranchPhase) -> None:
        if (now := self._phase(source, xid)) is not phase:
            self.violated(f"R9: {source} acknowledges {short(xid)} as {phase.name}, and durable is {now.name}")

    # -- The log

    def check_log(self) -> None:
        """Compare the log with what it was before its last statement (invariants 1, 2 and 7; R14)."""
        rows = self.decisions()
        for xid, before in self._rows.items():
            now = rows.get(xid)
            if now is None or now.record.decision is not before:
                self.violated(f"invariant 1: the decision of {short(xid)} was {before.name} and is changed or gone")
        for xid, stored in rows.items():
            if xid not in self._rows:
                self._rows[xid] = stored.record.decision
                self._check_new(xid, stored)
        for number, row in self.log.tables.incarnations.items():
            if number in self._fenced and row.last_sequence != self._fenced[number]:
                self.violated(f"invariant 7: incarnation {number} wrote after it was fenced")
            if row.fenced_by is not None:
                self._fenced[number] = row.last_sequence

    def check_finished(self) -> None:
        """What the log calls finished must be applied at every branch, durably (R14)."""
        for number, row in self.log.tables.incarnations.items():
            unfinished = {stored.record.xid for stored in self.log.unfinished(number)}
            for xid in row.decisions.values():
                if xid not in unfinished:
                    self._check_applied(xid)

    def _check_applied(self, xid: Xid) -> None:
        record = self.decisions()[xid].record
        for name in record.prepared if record.decision is Decision.COMMIT else ():
            if self._phase(name, xid) is not BranchPhase.COMMITTED:
                self.violated(f"R14: {short(xid)} counts as finished, and {name} is {self._phase(name, xid).name}")

    def _check_new(self, xid: Xid, stored: StoredDecision) -> None:
        if stored.record.request is not None:
            self.bound_at_s[stored.record.request.name] = self.now()
        if stored.record.decision is Decision.COMMIT:
            self._check_votes(xid, stored.record.prepared)

    def _check_votes(self, xid: Xid, prepared: tuple[str, ...]) -> None:
        votes = self.votes.get(xid, {})
        silent = [name for name in self.enlisted.get(xid, ()) if name not in votes]
        if silent or xid not in self.enlisted:
            self.violated(f"R2: {short(xid)} is COMMIT without the votes of {', '.join(silent) or 'anybody'}")
        yes = sorted(name for name, kind in votes.items() if kind == VoteKind.PREPARED)
        if sorted(prepared) != yes:
            self.violated(f"R2: {short(xid)} lists {sorted(prepared)} as prepared, and {yes} are")
        for name in prepared:
            if self._phase(name, xid) not in (BranchPhase.PREPARED, BranchPhase.COMMITTED):
                self.violated(f"R8: {short(xid)} is COMMIT, and {name} is {self._phase(name, xid).name}")

    def _phase(self, name: str, xid: Xid) -> BranchPhase:
        stored = self.stores[name].durable.branches.get(BranchKey(self.log.log_id, xid))
        return stored.branch.phase if stored else BranchPhase.NONE

    def _decision(self, xid: Xid) -> Decision | None:
        stored = self.decisions().get(xid)
        return stored.record.decision if stored else None

    # -- Answers

    def was_told(self, intent: Intent, outcome: Outcome, asked_s: float) -> None:
        """Judge an answer at the moment the coordinator gives it (R1, R3, invariants 4 and 11)."""
        decision = outcome.decision
        durable = self._decision(outcome.xid)
        self.note(f"told {intent.number} {short(outcome.xid)} {decision.name} retry={outcome.retry} {outcome.reason}")
        if decision is Decision.COMMIT and durable is not Decision.COMMIT:
            self.violated(f"R1: a client is told that {short(outcome.xid)} committed, and COMMIT is not durable")
        if decision is Decision.ROLLBACK and durable is Decision.COMMIT:
            self.violated(f"invariant 4: a client is told that {short(outcome.xid)} rolled back, and it committed")
        before = self.told.setdefault(outcome.xid, Told(decision, outcome.xid, intent))
        if before.decision is not decision:
            self.violated(f"invariant 1: {short(outcome.xid)} was told {before.decision.name}, then {decision.name}")
        if outcome.retry:
            self._was_told_retry(intent, outcome.xid, asked_s)
        self.told_at_s[outcome.xid] = self.now()
        if intent.request_id and not outcome.retry:
            self._was_bound(intent, outcome, durable)

    def _was_told_retry(self, intent: Intent, xid: Xid, asked_s: float) -> None:
        """*Retry* comes after a look at the log: one that this attempt made, and no earlier call's (R3)."""
        bound_s = self.bound_at_s.get(intent.request_id, inf)
        if bound_s < self.begun_at_s.get(xid, -inf) or (bound_s < asked_s and self.told_at_s.get(xid, inf) < asked_s):
            self.violated(f"R3: {intent.request_id} was bound, and a client is told to send it again")

    def _was_bound(self, intent: Intent, outcome: Outcome, durable: Decision | None) -> None:
        if durable is not outcome.decision:
            self.violated(f"R3: {intent.request_id} is told {outcome.decision.name} for good, and that is not durable")
        before = self.bound.setdefault(intent.request_id, Told(outcome.decision, outcome.xid, intent))
        if (before.decision, before.xid) != (outcome.decision, outcome.xid):
            self.violated(
                f"invariant 11: {intent.request_id} was told {before.decision.name} by {short(before.xid)}, "
                f"then {outcome.decision.name} by {short(outcome.xid)}"
            )
