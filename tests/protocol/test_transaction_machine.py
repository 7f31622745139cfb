"""Random events against one transaction, judged by the invariants and not by the implementation."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coordinator.protocol import events
from coordinator.protocol.effects import DecisionRecord, Refusal, Step, StoredDecision, Verb
from coordinator.protocol.outcome import Outcome
from coordinator.protocol.phases import EDGES, FINISHED, Phase
from coordinator.protocol.transaction import Transaction
from participant_sdk.ids import RequestId
from participant_sdk.xa import Ack, AckKind, Decision, VoteKind
from tests.protocol.interpreter import DIGEST, OTHER, TIMING, VOTES, XID

NAMES = ("a", "b", "c")


class TransactionMachine(RuleBasedStateMachine):
    """Keeps its own account of what was said by whom, and checks each step against it."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.sent: list[tuple[Verb, str]] = []
        self.first_votes: dict[str, VoteKind] = {}
        self.open_records: list[DecisionRecord] = []
        self.open_lookups = 0
        self.looked_up_once = False
        self.durable: Decision | None = None
        self.replies: list[Outcome] = []
        self.refused = False
        self.finished = False
        self.stored_answer = False

    @initialize(
        request=st.booleans(),
        wait=st.booleans(),
        names=st.lists(st.sampled_from(NAMES), unique=True, max_size=3),
        asked=st.sampled_from([True, True, True, False]),
    )
    def begin(self, request: bool, wait: bool, names: list[str], asked: bool) -> None:
        """Most begin with commit asked for, because that is where the protocol begins."""
        self.request = RequestId("default", "r") if request else None
        self.tx = Transaction(XID, 100.0, TIMING, request=self.request, digest=DIGEST if request else b"")
        self.wait = wait
        for name in names:
            self.take(events.Enlist(name, carried=1))
        if asked:
            self.take(events.CommitAsked(wait))

    def take(self, event: events.Event) -> Step:
        before = self.tx.phase
        step = self.tx.step(event, self.now_s)
        after = self.tx.phase
        assert after is before or reachable(before, after), f"no edges lead from {before} to {after}"
        if before in (Phase.COMMITTING, Phase.COMMITTED):
            assert after not in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
        if before is Phase.DECIDING and not isinstance(event, events.Recorded):
            assert after is Phase.DECIDING, "R5: only the log's answer leaves DECIDING"
        self.check(step)
        return step

    def check(self, step: Step) -> None:
        for verb, participant in step.messages:
            assert participant in self.tx.branches
            if verb is Verb.COMMIT:
                assert self.durable is Decision.COMMIT, "R1: Commit leaves only after COMMIT is durable"
                assert self.first_votes[participant] is VoteKind.PREPARED, "R2: only the prepared are told"
            if verb is Verb.ROLLBACK:
                assert self.durable is not Decision.COMMIT, "a committed transaction never rolls back"
            self.sent.append((verb, participant))
        if step.record is not None:
            self.check_record(step.record)
        self.open_lookups += step.lookup
        if step.reply is not None:
            self.check_reply(step.reply)
        self.refused |= step.refusal is Refusal.REQUEST_REUSED
        assert not (self.finished and step.finished and step.reply), "a finished transaction says nothing more"
        self.finished |= step.finished

    def check_record(self, record: DecisionRecord) -> None:
        if record.decision is Decision.COMMIT:
            assert len(self.first_votes) == len(self.tx.branches), "R2: every branch has voted"
            assert VoteKind.ROLLED_BACK not in self.first_votes.values(), "R2: and none said no"
            assert self.now_s < self.tx.prepare_by_s or not self.tx.branches or self.voted_in_time
        assert record.request == self.request
        self.open_records.append(record)

    def check_reply(self, reply: Outcome) -> None:
        assert not self.replies, "one answer"
        assert not self.refused
        if not reply.replayed:
            if reply.decision is Decision.COMMIT:
                assert self.durable is Decision.COMMIT, "R1: told only after it is durable"
            elif not reply.retry and self.request is not None:
                assert self.durable is Decision.ROLLBACK, "R3: a binding no is durable before it is told"
            elif self.request is not None:
                assert self.looked_up_once, "R3: looked up before retry is told"
        self.replies.append(reply)

    @precondition(lambda self: self.tx.phase is Phase.ACTIVE)
    @rule(name=st.sampled_from(NAMES))
    def enlist(self, name: str) -> None:
        self.take(events.Enlist(name, carried=1))

    @precondition(lambda self: self.tx.phase is Phase.ACTIVE)
    @rule(reason=st.just("closed"))
    def rollback_only(self, reason: str) -> None:
        self.take(events.SetRollbackOnly(reason))

    @rule()
    def commit(self) -> None:
        self.take(events.CommitAsked(self.wait))

    @rule()
    def roll_back(self) -> None:
        self.take(events.RollbackAsked("no more"))

    @rule(name=st.sampled_from(NAMES), vote=st.sampled_from(sorted(VOTES)))
    def vote(self, name: str, vote: str) -> None:
        counted = self.tx.phase is Phase.PREPARING and name in self.tx.branches and name not in self.first_votes
        if counted:
            self.first_votes[name] = VOTES[vote].kind
            self.voted_in_time = True
        self.take(events.Voted(name, VOTES[vote]))

    @precondition(lambda self: self.open_records)
    @rule(how=st.sampled_from(["own", "refused", "COMMIT", "ROLLBACK", "other"]))
    def recorded(self, how: str) -> None:
        record = self.open_records.pop(0)
        if how == "own" or (record.request is None and how != "refused"):
            self.durable = record.decision
            self.take(events.Recorded(7, 1))
            return
        if how == "refused":
            self.take(events.Recorded(7, 1, StoredDecision(DecisionRecord(XID, Decision.ROLLBACK), 7, 1, 0)))
        else:
            self.stored_answer = True
            digest = b"\x02" * 32 if how == "other" else DIGEST
            decision = Decision.COMMIT if how == "other" else Decision[how]
            bound = DecisionRecord(OTHER, decision, ("a",), self.request, digest)
            self.take(events.Recorded(7, 1, StoredDecision(bound, 6, 4, 0)))

    @precondition(lambda self: self.open_lookups)
    @rule(found=st.booleans())
    def looked_up(self, found: bool) -> None:
        self.open_lookups -= 1
        self.looked_up_once = True
        bound = DecisionRecord(OTHER, Decision.COMMIT, ("a",), self.request, DIGEST)
        self.take(events.LookedUp(StoredDecision(bound, 6, 4, 0) if found else None))

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(list(AckKind)))
    def acknowledge(self, name: str, kind: AckKind) -> None:
        step = self.take(events.Acknowledged(name, Ack(kind)))
        if step.heuristics:
            assert not step.reply, "R12: stored before it is told"
            self.take(events.HeuristicRecorded(name))

    @rule(name=st.sampled_from(NAMES))
    def reachable(self, name: str) -> None:
        self.take(events.Reachable(name))

    @rule(later_s=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
    def time_passes(self, later_s: float) -> None:
        self.now_s += later_s
        step = self.take(events.Woken())
        assert step.wake_at_s is None or step.wake_at_s > self.now_s, "an alarm in the past would ring for ever"

    @invariant()
    def answered_when_finished(self) -> None:
        if self.finished:
            assert self.tx.phase in FINISHED
            assert self.replies or self.refused

    def teardown(self) -> None:
        """Invariant 8: once every fault heals, it comes to its end."""
        for _ in range(40):
            if self.finished or self.tx.phase is Phase.ACTIVE:
                return
            while self.open_records:
                self.recorded("own")
            while self.open_lookups:
                self.looked_up(found=False)
            for name in list(self.tx.branches):
                self.vote(name, "PREPARED")
                self.acknowledge(name, AckKind.DONE)
        assert self.finished


def reachable(start: Phase, end: Phase) -> bool:
    """Whether edges of the table lead from one phase to the other; one step may pass through several."""
    nexts = EDGES[start].values()
    return end in nexts or any(reachable(phase, end) for phase in nexts)


TransactionMachine.TestCase.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)
TestTransactionMachine = TransactionMachine.TestCase
