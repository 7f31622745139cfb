"""What must be true at every moment of a run, watched from outside: frames, the log's rows, stores, answers.

The oracle believes nobody. It reads the frames on the simulated wire, the rows that a crash
would leave in the log and in the participants' stores, and keeps its own record of what
clients were told. The numbers are those of the protocol's rules and invariants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, NamedTuple

from google.protobuf.message import Message
from pincex.tx.v1 import common_pb2, resource_pb2

from coordinator.log.memory_tables import Tables
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.outcome import Outcome
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Operation
from participant_sdk.resources.memory_store import BranchKey, MemoryStore, StoredBranch
from participant_sdk.xa import Decision, VoteKind
from tests.simulation.faults import Sight
from tests.simulation.frames import short
from tests.simulation.losses import Losses

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
    """The online part; ``rest`` judges what is left when all has come to rest.

    ``tables`` is the log as a crash of its server now would leave it; ``losses`` is what nobody can promise.
    """

    tables: Callable[[], Tables]
    losses: Losses
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
    begun_by_call: dict[Xid, None] = field(default_factory=dict[Xid, None])
    # Transactions with work that participants did under the xid.
    embedded: dict[Xid, None] = field(default_factory=dict[Xid, None])
    _rows: dict[Xid, StoredDecision] = field(default_factory=dict[Xid, StoredDecision])
    _fenced: dict[int, int] = field(default_factory=dict[int, int])

    def decisions(self) -> Mapping[Xid, StoredDecision]:
        """The log's rows, as a crash now would leave them."""
        return self.tables().decisions

    def row(self, xid: Xid) -> StoredDecision | None:
        """The decision as it is durable, or was until it was lost or pruned."""
        return self.decisions().get(xid) or self.losses.decisions.get(xid)

    def is_promised_at(self, name: str, xid: Xid) -> bool:
        """The outcome is promised at this participant too: it has lost nothing of it, and no hand ended it."""
        if (name, xid) in self.losses.asked:
            branch = self._branch(name, xid)
            if branch is not None and branch.branch.heuristic is not None:
                self.losses.hands[name, xid] = None
        return self.losses.is_promised_at(name, xid)

    def see_hands(self) -> None:
        """Look which branches were ended by hand, before they may be forgotten and dropped."""
        for name, xid in self.losses.asked:
            self.is_promised_at(name, xid)

    def knows(self, name: str, xid: Xid) -> bool:
        """Whether a participant has not dropped this branch by right; what it has dropped is a hazard to it (R11)."""
        return BranchKey(self.losses.log_id, xid) not in self.stores[name].durable.pruned

    def is_forced(self, request_id: str) -> bool:
        """A branch of this request was ended by hand."""
        branches = [self._branch(*asked) for asked in self.losses.asked if not self.is_promised_at(*asked)]
        return any(stored is not None and stored.branch.request_id == request_id for stored in branches)

    @property
    def begun(self) -> int:
        """How many transactions were begun, as far as anybody saw: by a Prepare, an answer, or a call of Begin."""
        return len(self.enlisted.keys() | self.told.keys() | self.begun_by_call.keys())

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
                if frame.HasField("hello") and not frame.hello.refusal:
                    marks = {mark.incarnation: mark.sequence for mark in frame.hello.watermarks}
                    self.losses.welcomed(source, target, marks)
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
            if self._decision(xid) is Decision.COMMIT and self.losses.is_promised(xid):
                self.violated(f"invariant 1: Rollback of {short(xid)} was sent, and COMMIT is durable")

    def _saw_commit(self, xid: Xid, incarnation: int, sequence: int) -> None:
        stored = self.row(xid)
        if not self.losses.is_promised(xid):
            return
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
        stored = self._branch(source, xid)
        if stored is None or stored.branch.vote is None or not stored.branch.vote.is_yes:
            self.violated(f"R8: {source} votes yes to {short(xid)}, and the branch is not durable")

    def _saw_ack(self, source: str, xid: Xid, ack: common_pb2.Ack, phase: BranchPhase) -> None:
        if ack.kind in (common_pb2.ACK_KIND_DONE, common_pb2.ACK_KIND_ALREADY_DONE):
            self._saw_end(source, xid, phase)
        elif ack.kind != common_pb2.ACK_KIND_RETRY and self.knows(source, xid) and self.is_promised_at(source, xid):
            kind = common_pb2.AckKind.Name(ack.kind)
            self.violated(f"{source} acknowledges {short(xid)} with {kind}, and no operator was there")

    def _saw_end(self, source: str, xid: Xid, phase: BranchPhase) -> None:
        if (now := self._phase(source, xid)) is not phase and self.knows(source, xid):
            self.violated(f"R9: {source} acknowledges {short(xid)} as {phase.name}, and durable is {now.name}")

    # -- The log

    def check_log(self, statements: Sequence[str] = ()) -> None:
        """Compare the log with what it was before these statements (invariants 1, 2 and 7; R14, R15)."""
        released = "release" in statements
        tables = self.tables()
        rows = tables.decisions
        for xid, before in list(self._rows.items()):
            now = rows.get(xid)
            if now is None and "prune" in statements:
                self._check_pruned(before)
            elif now is None or now.record.decision is not before.record.decision:
                what = before.record.decision.name
                self.violated(f"invariant 1: the decision of {short(xid)} was {what} and is changed or gone")
        for xid, stored in rows.items():
            if xid not in self._rows:
                self._rows[xid] = stored
                self._check_new(xid, stored)
                if tables.held and not released:
                    self.violated(f"R15: {short(xid)} was decided in HOLD")
        for number, row in tables.incarnations.items():
            if not released and number in self._fenced and row.last_sequence != self._fenced[number]:
                self.violated(f"invariant 7: incarnation {number} wrote after it was fenced")
            if not row.is_live:
                self._fenced[number] = row.last_sequence

    def log_lost(self) -> None:
        """The log has just lost its tail: what is promised from now on starts from what is left."""
        rows = self.decisions()
        gone = [row for xid, row in self._rows.items() if xid not in rows]
        self.losses.lost_decisions(gone, self.stores)
        for stored in gone:
            if stored.record.request is not None:
                # Until HOLD ends, a look at the log finds no binding, and *retry* is told.
                self.bound_at_s.pop(stored.record.request.name, None)
        self._rows = dict(rows)
        self._fenced.clear()

    def check_finished(self) -> None:
        """What the log calls finished must be applied at every branch, durably (R14)."""
        tables = self.tables()
        for number, row in tables.incarnations.items():
            unfinished = {stored.record.xid for stored in tables.unfinished(number)}
            for xid in row.decisions.values():
                if xid not in unfinished:
                    self._check_applied(tables.decisions[xid])

    def _check_applied(self, stored: StoredDecision) -> None:
        record = stored.record
        for name in record.prepared if record.decision is Decision.COMMIT else ():
            if self.is_promised_at(name, record.xid) and not self.has_committed(name, record.xid):
                phase = self._phase(name, record.xid).name
                if name not in self.losses.restored:
                    self.violated(f"R14: {short(record.xid)} counts as finished, and {name} is {phase}")

    def has_committed(self, name: str, xid: Xid) -> bool:
        """Whether a participant has durably committed a branch, or had before it was allowed to drop it."""
        key = BranchKey(self.losses.log_id, xid)
        return self._phase(name, xid) is BranchPhase.COMMITTED or key in self.stores[name].durable.pruned

    def _check_pruned(self, before: StoredDecision) -> None:
        """A decision may go only once its transaction has ended everywhere, and after the retention (R14)."""
        xid = before.record.xid
        del self._rows[xid]
        self._check_applied(before)
        self.losses.pruned_decision(before)
        if xid.unix_ms >= self.tables().pruned_below_unix_ms:
            self.violated(f"R14: {short(xid)} was pruned, and is not older than the horizon")

    def _check_new(self, xid: Xid, stored: StoredDecision) -> None:
        if stored.record.request is not None:
            self.bound_at_s[stored.record.request.name] = self.now()
        if not self.losses.is_promised(xid) or xid in self.losses.pruned:
            # What was dropped by right may come back with a copy, and with fewer branches than it had.
            return
        lost = self.losses.decisions.get(xid)
        if lost is not None:
            self._check_restored(lost, stored)
        if stored.record.decision is Decision.COMMIT:
            self._check_votes(xid, stored.record.prepared)

    def _check_restored(self, lost: StoredDecision, stored: StoredDecision) -> None:
        """A commit comes back as it was: its writer and sequence, its branches, its binding (R15)."""
        self.losses.tally[Sight.COMMIT_RESTORED] += 1
        before, now = lost.record, stored.record
        same = (
            before.decision,
            sorted(before.prepared),
            before.request,
            before.digest,
            lost.incarnation,
            lost.sequence,
        )
        if same != (now.decision, sorted(now.prepared), now.request, now.digest, stored.incarnation, stored.sequence):
            self.violated(f"R15: {short(before.xid)} was {lost}, and came back as {stored}")

    def _check_votes(self, xid: Xid, prepared: tuple[str, ...]) -> None:
        votes = self.votes.get(xid, {})
        prepared = tuple(name for name in prepared if self.is_promised_at(name, xid))
        silent = [name for name in self.enlisted.get(xid, ()) if name not in votes]
        if silent or xid not in self.enlisted:
            self.violated(f"R2: {short(xid)} is COMMIT without the votes of {', '.join(silent) or 'anybody'}")
        yes = sorted(
            name for name, kind in votes.items() if kind == VoteKind.PREPARED and self.is_promised_at(name, xid)
        )
        if sorted(prepared) != yes:
            self.violated(f"R2: {short(xid)} lists {sorted(prepared)} as prepared, and {yes} are")
        for name in prepared:
            if self._phase(name, xid) not in (BranchPhase.PREPARED, BranchPhase.COMMITTED):
                self.violated(f"R8: {short(xid)} is COMMIT, and {name} is {self._phase(name, xid).name}")

    def _phase(self, name: str, xid: Xid) -> BranchPhase:
        stored = self._branch(name, xid)
        return stored.branch.phase if stored else BranchPhase.NONE

    def _branch(self, name: str, xid: Xid) -> StoredBranch | None:
        return self.stores[name].durable.branches.get(BranchKey(self.losses.log_id, xid))

    def _decision(self, xid: Xid) -> Decision | None:
        stored = self.row(xid)
        return stored.record.decision if stored else None

    # -- Answers

    def was_told(self, intent: Intent, outcome: Outcome, asked_s: float) -> None:
        """Judge an answer at the moment the coordinator gives it (R1, R3, invariants 4 and 11)."""
        decision = outcome.decision
        durable = self._decision(outcome.xid)
        self.note(f"told {intent.number} {short(outcome.xid)} {decision.name} retry={outcome.retry} {outcome.reason}")
        if not self.losses.is_promised(outcome.xid):
            return
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
        if intent.request_id in self.losses.requests:
            return
        bound_s = self.bound_at_s.get(intent.request_id, inf)
        if bound_s < self.begun_at_s.get(xid, -inf) or (bound_s < asked_s and self.told_at_s.get(xid, inf) < asked_s):
            self.violated(f"R3: {intent.request_id} was bound, and a client is told to send it again")

    def _was_bound(self, intent: Intent, outcome: Outcome, durable: Decision | None) -> None:
        if intent.request_id in self.losses.requests:
            return
        if durable is not outcome.decision:
            self.violated(f"R3: {intent.request_id} is told {outcome.decision.name} for good, and that is not durable")
        before = self.bound.setdefault(intent.request_id, Told(outcome.decision, outcome.xid, intent))
        if (before.decision, before.xid) != (outcome.decision, outcome.xid):
            self.violated(
                f"invariant 11: {intent.request_id} was told {before.decision.name} by {short(before.xid)}, "
                f"then {outcome.decision.name} by {short(outcome.xid)}"
            )
