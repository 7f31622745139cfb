"""One incarnation as a machine: the product's transactions, completion and fold, around one write at a time.

``Transaction.step``, ``Completion``, ``fold`` and ``judge`` are the product's. What the product does
in tasks is modelled by its decision alone: ``Appends`` by ``_write``, ``took`` and ``_settle`` (R4,
R5), ``GroupCommit`` by ``resolve`` (R3), the engine by ``_perform``, the inquiries by ``decide``. A
timer may ring at any moment: time itself is left out, and with it all that it decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Final, NamedTuple

from coordinator.log.completion import Completion
from coordinator.log.decision_log import Appended, AppendStatus, Checkpoint, Incarnation, Snapshot
from coordinator.log.inquiry import judge
from coordinator.protocol import events
from coordinator.protocol.effects import DecisionRecord, HeuristicRecord, Send, Step, StoredDecision, Verb
from coordinator.protocol.outcome import Outcome
from coordinator.protocol.phases import FINISHED, Phase
from coordinator.protocol.recovery import fold
from coordinator.protocol.timing import Timing
from coordinator.protocol.transaction import Transaction
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision, DecisionState, transient_no
from tests.simulation.machines.messages import Acknowledged, Answered, Commit, Message, Prepare, Rollback, Voted

TENANT: Final = "default"
NOW_S: Final = 1.0
LATER_S: Final = 100.0
PAST_S: Final = 200.0
TIMING: Final = Timing()
UNREACHABLE: Final = transient_no("PARTICIPANT_UNREACHABLE", "the session was lost")


class Timer(Enum):
    """Which of a transaction's timers rings."""

    DEADLINE = auto()
    RESEND = auto()
    ANSWER = auto()


class Statement(NamedTuple):
    """An append on its way to the log: it may take effect at any time, or never."""

    owner: Incarnation
    expected: int
    records: tuple[DecisionRecord, ...]


class Told(NamedTuple):
    """What a client was told of one attempt; ``outcome`` is None for an error about a reused request_id."""

    xid: Xid
    request: str
    outcome: Outcome | None


class CoordinatorMachine:
    """One incarnation. ``sent`` and ``told`` collect what leaves; whoever moves the machine takes it away."""

    __slots__ = (
        "awaited",
        "completions",
        "conflicts",
        "heuristics",
        "incarnation",
        "instead",
        "is_over",
        "lookups",
        "queue",
        "sent",
        "sequence",
        "told",
        "transactions",
        "uncertain",
        "wrongs",
        "xids",
    )

    def __init__(self, incarnation: Incarnation) -> None:
        self.incarnation = incarnation
        self.xids = 0
        self.transactions: dict[Xid, Transaction] = {}
        self.queue: list[DecisionRecord] = []
        self.awaited: Statement | None = None
        self.uncertain = False
        self.sequence = 0
        self.instead: dict[Xid, StoredDecision] = {}
        self.conflicts: list[DecisionRecord] = []
        self.lookups: list[Xid] = []
        self.heuristics: list[HeuristicRecord] = []
        self.completions: dict[int, Completion] = {incarnation.number: Completion(incarnation.number)}
        self.is_over = False
        self.sent: list[Message] = []
        self.told: list[Told] = []
        self.wrongs: list[str] = []

    # -- What clients ask

    def begin(self, participants: Sequence[str], request: str = "") -> Transaction:
        """Begin a transaction with one operation for each participant, and ask for commit."""
        transaction = self._new(request)
        for name in participants:
            transaction.step(events.Enlist(name, 1), NOW_S)
        self._take(transaction, events.CommitAsked())
        return transaction

    def close(self, request: str) -> Transaction:
        """Bind ROLLBACK to a request, unless it is bound."""
        transaction = self._new(request)
        transaction.digest = b""
        self._take(transaction, events.Close("INTENT_CLOSED", "the client gave up"))
        return transaction

    def roll_back(self, xid: Xid) -> None:
        """Let the client change its mind."""
        self._take(self.transactions[xid], events.RollbackAsked("the client changed its mind"))

    # -- What participants say

    def take(self, message: Voted | Acknowledged) -> None:
        """Take a vote or an acknowledgement."""
        transaction = self.transactions.get(message.xid)
        if transaction is None:
            return
        if isinstance(message, Voted):
            self._take(transaction, events.Voted(message.participant, message.vote))
        elif transaction.decision is message.decision:
            self._take(transaction, events.Acknowledged(message.participant, message.ack))

    def lose_session(self, participant: str, xid: Xid) -> None:
        """Answer an outstanding Prepare with a transient "no", as a link does that loses its session."""
        self._take(self.transactions[xid], events.Voted(participant, UNREACHABLE))

    def reach(self, participant: str) -> None:
        """Send again what a participant is owed."""
        for transaction in list(self.transactions.values()):
            self._take(transaction, events.Reachable(participant))

    def ring(self, xid: Xid, timer: Timer) -> None:
        """Let one of a transaction's timers ring."""
        transaction = self.transactions[xid]
        match timer:
            case Timer.DEADLINE:
                transaction.prepare_by_s = NOW_S
            case Timer.RESEND:
                transaction.resends.at_s = NOW_S
            case Timer.ANSWER:
                transaction.answer.by_s = NOW_S
        self._take(transaction, events.Woken())

    def timers(self) -> Iterator[tuple[Xid, Timer]]:
        """Every timer that may ring now, and that does something."""
        for xid, transaction in self.transactions.items():
            if transaction.phase is Phase.PREPARING:
                yield xid, Timer.DEADLINE
            elif transaction.phase in (Phase.COMMITTING, Phase.ROLLING_BACK):
                yield xid, Timer.RESEND
                if not transaction.answer.given:
                    yield xid, Timer.ANSWER

    # -- What the log answers

    def write(self) -> Statement | None:
        """The append to send: everything queued, one flush at a time; None where one is open or nothing waits."""
        if self.is_over or self.awaited is not None or not self.queue:
            return None
        first: dict[Xid, DecisionRecord] = {}
        left: list[DecisionRecord] = []
        for record in self.queue:
            if record.xid in first:
                left.append(record)
            else:
                first[record.xid] = record
        self.awaited = Statement(self.incarnation, self.sequence, tuple(first.values()))
        self.queue = left
        return self.awaited

    def lose_answer(self) -> Statement | None:
        """The connection is lost: the result is unknown, and the same batch is written again (R5)."""
        self.uncertain = self.uncertain or self.awaited is not None
        return self.awaited

    def took(self, appended: Appended, rows: Mapping[Xid, StoredDecision]) -> None:
        """Take the answer to the append that is awaited; ``rows`` is what a read now shows of its xids."""
        statement = self.awaited
        if statement is None:
            return
        match appended.status:
            case AppendStatus.WRITTEN:
                self.awaited, self.uncertain = None, False
                self.sequence = appended.last_sequence
                self._written(statement, appended)
            case AppendStatus.SEQUENCE_AHEAD if self.uncertain:
                self._settle(statement, appended.last_sequence, rows)
            case AppendStatus.HELD:
                pass
            case AppendStatus.FENCED | AppendStatus.TIMELINE_CHANGED:
                self.is_over = True
            case _:
                self.wrongs.append(f"the log answers {appended.status.name} to {self.incarnation.number}")

    def look_up(self, xid: Xid, stored: StoredDecision | None) -> None:
        """Take what a transaction's request is bound to."""
        self.lookups.remove(xid)
        self._take(self.transactions[xid], events.LookedUp(stored))

    def resolve(self, record: DecisionRecord, bound: StoredDecision | None, own: StoredDecision | None) -> None:
        """Take what stands in the way of a record: another's binding (R3), or a row of its own xid."""
        self.conflicts.remove(record)
        if bound is not None and bound.record.xid != record.xid:
            self.instead[record.xid] = bound
            rollback = DecisionRecord(record.xid, Decision.ROLLBACK, record.prepared, reason="REQUEST_ID_BOUND")
            self.queue.insert(0, rollback)
        elif own is None:
            self.queue.insert(0, record)
        else:
            same = own.record.decision is record.decision
            self._record(record.xid, own.incarnation, own.sequence, None if same else own)

    def kept_heuristics(self) -> list[HeuristicRecord]:
        """Let the log keep every heuristic end that waits, and tell so."""
        kept, self.heuristics = self.heuristics, []
        return kept

    def heuristics_recorded(self, records: Sequence[HeuristicRecord]) -> None:
        """The log keeps these ends durably."""
        for record in records:
            if record.xid in self.transactions:
                self._take(self.transactions[record.xid], events.HeuristicRecorded(record.participant))

    # -- Recovery

    def adopt(self, number: int, decisions: Sequence[StoredDecision]) -> None:
        """Redo what a fenced incarnation decided and did not finish (R6)."""
        if number in self.completions or not decisions:
            return
        self.completions[number] = completion = Completion(number)
        driven, silent = fold(completion.take_over(decisions), TIMING)
        for stored in silent:
            completion.finished(stored.sequence)
        for transaction in driven:
            held = self.transactions.get(transaction.xid)
            if held is None:
                self.transactions[transaction.xid] = transaction
                self._take(transaction, events.Woken())
            elif held.phase in FINISHED:
                completion.finished(transaction.sequence)

    def checkpoints(self) -> list[Checkpoint]:
        """The checkpoints to write now (R14)."""
        due: list[Checkpoint] = []
        for number, completion in list(self.completions.items()):
            checkpoint = completion.checkpoint()
            if checkpoint is not None:
                completion.wrote(checkpoint)
                due.append(checkpoint)
            elif number != self.incarnation.number and not len(completion):
                del self.completions[number]
        return due

    def decide(self, participant: str, xid: Xid, snapshot: Snapshot) -> Answered:
        """Answer a participant in doubt (R7)."""
        transaction = self.transactions.get(xid)
        if transaction is None:
            answer = judge(xid, snapshot, self.incarnation)
            stored = answer.stored
            if answer.state is DecisionState.COMMIT and stored is not None:
                return Answered(participant, xid, answer.state, stored.incarnation, stored.sequence)
            return Answered(participant, xid, answer.state, 0, 0)
        if transaction.decision is None:
            return Answered(participant, xid, DecisionState.PENDING, 0, 0)
        if transaction.decision is Decision.COMMIT:
            return Answered(participant, xid, DecisionState.COMMIT, transaction.incarnation, transaction.sequence)
        return Answered(participant, xid, DecisionState.ROLLBACK, 0, 0)

    @property
    def unfinished(self) -> bool:
        """Something is owed: to a branch, to the log, or to a client."""
        return bool(
            self.queue
            or self.awaited
            or self.lookups
            or self.conflicts
            or self.heuristics
            or any(t.phase not in FINISHED or not t.answer.given for t in self.transactions.values())
        )

    # -- Inside

    def _new(self, request: str) -> Transaction:
        self.xids += 1
        xid = Xid.make(self.incarnation.number * 1000, self.incarnation.number, self.xids)
        named = RequestId(TENANT, request) if request else None
        transaction = Transaction(xid, LATER_S, TIMING, request=named, digest=b"digest" if request else b"")
        self.transactions[xid] = transaction
        return transaction

    def _take(self, transaction: Transaction, event: events.Event) -> None:
        step = transaction.step(event, NOW_S)
        # Time is left out: each timer is somewhere ahead, and no try is the hundredth.
        transaction.prepare_by_s = LATER_S
        transaction.resends.at_s = LATER_S
        transaction.answer.by_s = LATER_S
        transaction.resends.attempts = 0
        self._perform(transaction, step)

    def _perform(self, transaction: Transaction, step: Step) -> None:
        for send in step.messages:
            self.sent.append(self._message(transaction, send))
        if step.record is not None:
            self.queue.append(step.record)
        if step.lookup:
            self.lookups.append(transaction.xid)
        if step.heuristics:
            self.heuristics += step.heuristics
        if step.reply is not None or step.refusal is not None:
            request = transaction.request.name if transaction.request else ""
            self.told.append(Told(transaction.xid, request, step.reply))
        if step.finished and transaction.sequence and transaction.incarnation in self.completions:
            self.completions[transaction.incarnation].finished(transaction.sequence)

    def _message(self, transaction: Transaction, send: Send) -> Message:
        number = self.incarnation.number
        match send.verb:
            case Verb.PREPARE:
                request = transaction.request.name if transaction.request else ""
                return Prepare(send.participant, transaction.xid, number, request)
            case Verb.COMMIT:
                return Commit(send.participant, transaction.xid, number, transaction.incarnation, transaction.sequence)
            case Verb.ROLLBACK:
                return Rollback(send.participant, transaction.xid, number)

    def _written(self, statement: Statement, appended: Appended) -> None:
        for sequence, record in enumerate(statement.records, statement.expected + 1):
            if record.xid in appended.conflicts:
                self.conflicts.append(record)
            else:
                self._durable(record.xid, sequence)

    def _settle(self, statement: Statement, last_sequence: int, rows: Mapping[Xid, StoredDecision]) -> None:
        """An earlier write of ours arrived after all: the rows present are the truth (R5)."""
        self.awaited, self.uncertain, self.sequence = None, False, last_sequence
        absent = [record for record in statement.records if record.xid not in rows]
        self.queue[:0] = absent
        present = [rows[record.xid] for record in statement.records if record.xid in rows]
        for stored in present:
            if stored.incarnation != self.incarnation.number:
                self.wrongs.append(f"{stored.record.xid} was written by {stored.incarnation}, and never by its owner")
            self._durable(stored.record.xid, stored.sequence)

    def _durable(self, xid: Xid, sequence: int) -> None:
        number = self.incarnation.number
        self.completions[number].decided(sequence, xid)
        self._record(xid, number, sequence, self.instead.pop(xid, None))

    def _record(self, xid: Xid, number: int, sequence: int, stored: StoredDecision | None) -> None:
        self._take(self.transactions[xid], events.Recorded(number, sequence, stored))
