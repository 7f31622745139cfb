"""One transaction: its phase table at work. Deterministic, total, no I/O.

``Transaction.step(event, now_s)`` changes only its own transaction and returns a ``Step``: the
records to append, the messages to send, the reply to give, when to be woken. What must wait
for a durable record is caused by the log's answer, ``Recorded``, and never stands in the step
that carries the record. So these rules can be read here:

R1   Commit is sent, and COMMITTED is told, only in ``_on_recorded``.
R2   ``_decide`` is reached only when every branch voted yes; anything else rolls back.
R3   a business "no" with a request_id is recorded before it is told; a transient one is looked up.
R5   DECIDING knows no timer and no vote: only ``Recorded`` leaves it.
R16  deadlines roll back from ACTIVE and PREPARING, and never later.
"""

from __future__ import annotations

from typing import Final, assert_never

from coordinator.protocol import events
from coordinator.protocol.answer import Answer
from coordinator.protocol.branches import Branches, BranchState
from coordinator.protocol.effects import (
    NOTHING,
    DecisionRecord,
    HeuristicRecord,
    Refusal,
    Send,
    Step,
    StoredDecision,
    Verb,
    replayed,
    sends,
)
from coordinator.protocol.outcome import Outcome, encode_votes
from coordinator.protocol.phases import ACTIVE, COMMITTING, DECIDING, EDGES, PREPARING, ROLLING_BACK, Cause, Phase
from coordinator.protocol.resends import Resends
from coordinator.protocol.timing import Timing
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision, Vote, VoteKind


class Transaction:
    """One transaction, from ACTIVE to its end. Mutable with slots: several events touch each."""

    __slots__ = (
        "_retry",
        "_rollback_only",
        "_timing",
        "answer",
        "branches",
        "deadline_s",
        "decision",
        "digest",
        "incarnation",
        "message",
        "phase",
        "prepare_by_s",
        "reason",
        "request",
        "resends",
        "sequence",
        "xid",
    )

    def __init__(
        self, xid: Xid, deadline_s: float, timing: Timing, *, request: RequestId | None = None, digest: bytes = b""
    ) -> None:
        self.xid = xid
        self.deadline_s = deadline_s
        self.request = request
        self.digest = digest
        self.phase = ACTIVE
        self.branches = Branches()
        self.decision: Decision | None = None
        self.reason = ""
        self.message = ""
        self.incarnation = 0
        self.sequence = 0
        self._timing = timing
        self._rollback_only: str | None = None
        self._retry = False
        self.prepare_by_s = deadline_s
        self.resends = Resends(timing, xid)
        self.answer = Answer()

    def step(self, event: events.Event, now_s: float) -> Step:  # noqa: C901, PLR0911, PLR0912
        """Take one event. Total: an event that means nothing in this phase changes nothing."""
        # One case for each kind of event, the frequent ones first.
        match event:
            case events.Voted():
                return self._on_voted(event, now_s)
            case events.Acknowledged():
                return self._on_acknowledged(event, now_s)
            case events.Recorded():
                return self._on_recorded(event, now_s)
            case events.CommitAsked():
                return self._on_commit_asked(event, now_s)
            case events.Enlist():
                return self._on_enlist(event)
            case events.SetRollbackOnly():
                return self._on_rollback_only(event)
            case events.RollbackAsked():
                return self._on_rollback_asked(event, now_s)
            case events.Close():
                return self._on_close(event, now_s)
            case events.LookedUp():
                return self._on_looked_up(event, now_s)
            case events.HeuristicRecorded():
                return self._on_heuristic_recorded(event, now_s)
            case events.Reachable():
                return self._on_reachable(event)
            case events.Woken():
                return self._on_woken(event, now_s)
            case _:
                assert_never(event)

    def outcome(self) -> Outcome | None:
        """How it ended, once that is certain; None before."""
        if self.decision is None:
            return None
        return Outcome(
            self.xid,
            self.decision,
            self.phase,
            self.reason,
            self.message,
            retry=self._retry,
            branches=self.branches.outcomes(),
            heuristic=self.branches.heuristic(self.decision),
        )

    # Before the decision.

    def _on_enlist(self, event: events.Enlist) -> Step:
        if self.phase is not ACTIVE:
            return Step(refusal=Refusal.NOT_ACTIVE)
        if self._rollback_only is not None:
            return Step(refusal=Refusal.ROLLBACK_ONLY)
        if not self.branches.enlist(event.participant, event.carried, event.embedded):
            return Step(refusal=Refusal.MIXED_WORK)
        return Step(wake_at_s=self.deadline_s)

    def _on_rollback_only(self, event: events.SetRollbackOnly) -> Step:
        if self.phase is not ACTIVE:
            return Step(refusal=Refusal.NOT_ACTIVE)
        if self._rollback_only is None:
            self._rollback_only = event.reason
        return NOTHING

    def _on_commit_asked(self, event: events.CommitAsked, now_s: float) -> Step:
        if self.phase is not ACTIVE:
            return Step(refusal=Refusal.NOT_ACTIVE)
        self.answer.wait_applied = event.wait_applied
        if self._rollback_only is not None:
            return self._roll_back(now_s, "ROLLBACK_ONLY", self._rollback_only)
        if now_s >= self.deadline_s:
            return self._roll_back(now_s, "TIMEOUT", "the transaction's time had passed before commit was asked")
        self._move(Cause.COMMIT_ASKED)
        if not self.branches:
            return self._decide()
        self.prepare_by_s = min(self.deadline_s, now_s + self._timing.prepare_timeout_s)
        return Step(sends(_PREPARE, tuple(self.branches)), wake_at_s=self.prepare_by_s)

    def _on_rollback_asked(self, event: events.RollbackAsked, now_s: float) -> Step:
        if self.phase in (ACTIVE, PREPARING):
            return self._roll_back(now_s, event.code, event.reason)
        return Step(refusal=Refusal.NOT_ACTIVE)

    def _on_close(self, event: events.Close, now_s: float) -> Step:
        if self.phase is not ACTIVE or self.branches:
            return Step(refusal=Refusal.NOT_ACTIVE)
        step = self._roll_back(now_s, event.reason, event.message, binds=True)
        self._retry = self.request is None
        return step

    def _on_voted(self, event: events.Voted, now_s: float) -> Step:
        branch = self.branches.get(event.participant)
        if branch is None or branch.vote is not None:
            return NOTHING
        if self.phase is PREPARING:
            return self._count_vote(branch, event.vote, now_s)
        if self.phase is ROLLING_BACK:
            return self._take_late_vote(branch, event.vote, now_s)
        return NOTHING

    def _count_vote(self, branch: BranchState, vote: Vote, now_s: float) -> Step:
        branch.take_vote(vote)
        if vote.kind is _NO:
            return self._roll_back(now_s, vote.reason, branch.objection, binds=vote.is_business_no)
        return self._decide() if self.branches.all_voted() else NOTHING

    def _take_late_vote(self, branch: BranchState, vote: Vote, now_s: float) -> Step:
        """A vote after the transaction began to roll back: a business "no" still outweighs a transient one (R3)."""
        branch.take_vote(vote)
        if vote.is_business_no and self._retry and not self.answer.given:
            self._retry = False
            self.reason, self.message = vote.reason, branch.objection
            return self._settle(now_s, record=self._bind() if self.request else None)
        return self._settle(now_s)

    # The decision.

    def _decide(self) -> Step:
        """Hand COMMIT to the log. Nothing else leaves with it (R1)."""
        self._move(Cause.ALL_VOTED_YES)
        results = encode_votes(self.branches.values())
        record = DecisionRecord(
            self.xid, Decision.COMMIT, self.branches.prepared, self.request, self.digest, "", results
        )
        return Step(record=record)

    def _on_recorded(self, event: events.Recorded, now_s: float) -> Step:
        if self.phase is DECIDING:
            if event.stored is not None:
                return self._refused(event, event.stored, now_s)
            return self._committed(event, now_s)
        return self._bound(event, now_s) if self.answer.log_owes else NOTHING

    def _committed(self, event: events.Recorded, now_s: float) -> Step:
        self.decision = Decision.COMMIT
        self.incarnation, self.sequence = event.incarnation, event.sequence
        self._move(Cause.COMMIT_DURABLE)
        self._schedule(now_s, self._timing.commit_timeout_s)
        return self._settle(now_s, messages=self._owed_messages(_COMMIT))

    def _refused(self, event: events.Recorded, stored: StoredDecision, now_s: float) -> Step:
        """The log holds ROLLBACK instead: the request_id is another's, or a value of the record cannot be stored."""
        self.decision = Decision.ROLLBACK
        self.incarnation, self.sequence = event.incarnation, event.sequence
        self.reason = stored.record.reason
        self.message = "the decision log refused a value of this transaction's record"
        self._move(Cause.COMMIT_REFUSED)
        self._schedule(now_s, self._timing.rollback_timeout_s)
        messages = self._owed_messages(Verb.ROLLBACK)
        if stored.record.xid != self.xid:
            self.reason, self.message = "REQUEST_ID_BOUND", f"transaction {stored.record.xid} ended the request"
            self.answer.stored = stored
            return self._settle(now_s, messages=messages)
        return self._settle(now_s, messages=messages, lookup=self._looks_up())

    def _roll_back(self, now_s: float, reason: str, message: str, *, binds: bool = False) -> Step:
        """Begin to undo, from ACTIVE or PREPARING. With a request_id the log has a word before the client is told.

        ``binds``: the rollback is recorded, and bound to the request_id where there is one.
        """
        self.decision = Decision.ROLLBACK
        self.reason, self.message = reason, message
        bare = not self.branches
        self._move(Cause.NO)
        self._schedule(now_s, self._timing.rollback_timeout_s)
        messages = self._owed_messages(Verb.ROLLBACK)
        record = self._bind() if binds and (self.request is not None or bare) else None
        return self._settle(now_s, messages=messages, record=record, lookup=self._looks_up(binds=binds))

    def _looks_up(self, *, binds: bool = False) -> bool:
        """Unless it binds, a rollback is told after what other attempts at the request did was looked up (R3)."""
        self._retry = not binds
        if self.request is None or binds:
            return False
        self.answer.log_owes += 1
        return True

    def _bind(self) -> DecisionRecord:
        """The record of a rollback, which binds it to the request_id where there is one."""
        self.answer.log_owes += 1
        return DecisionRecord(
            self.xid,
            Decision.ROLLBACK,
            request=self.request,
            digest=self.digest,
            reason=self.reason,
            results=encode_votes(self.branches.values()),
        )

    def _bound(self, event: events.Recorded, now_s: float) -> Step:
        self.incarnation, self.sequence = event.incarnation, event.sequence
        stored = event.stored
        if stored is not None and stored.record.xid == self.xid:
            # The log refused the record's values and kept a bare ROLLBACK: nothing is bound, so this is transient.
            self.answer.log_owes -= 1
            return self._settle(now_s, lookup=self._looks_up())
        return self._told_by_log(stored, now_s)

    def _on_looked_up(self, event: events.LookedUp, now_s: float) -> Step:
        return self._told_by_log(event.stored, now_s) if self.answer.log_owes else NOTHING

    def _told_by_log(self, stored: StoredDecision | None, now_s: float) -> Step:
        self.answer.log_owes -= 1
        self.answer.stored = self.answer.stored or stored
        return self._settle(now_s)

    def _answer(self) -> Outcome | Refusal | None:
        """Answer with the outcome, or with what the request_id is bound to: an error for other operations (R3)."""
        self.answer.given = True
        stored = self.answer.stored
        if stored is None:
            return self.outcome()
        if self.digest and stored.record.digest and self.digest != stored.record.digest:
            return Refusal.REQUEST_REUSED
        return replayed(stored)

    # After the decision.

    def _on_acknowledged(self, event: events.Acknowledged, now_s: float) -> Step:
        branch = self.branches.get(event.participant)
        if branch is None or branch.done or self.phase not in _TELLING or self.decision is None:
            return NOTHING
        if not branch.take_ack(event.ack, self.decision):
            return NOTHING
        if branch.heuristic is not None:
            self.answer.heuristics_owed += (branch.participant,)
            end = HeuristicRecord(self.xid, branch.participant, branch.heuristic, event.ack.message)
            return self._settle(now_s, heuristics=(end,))
        return self._settle(now_s) if self.branches.all_awaited_done() else NOTHING

    def _on_heuristic_recorded(self, event: events.HeuristicRecorded, now_s: float) -> Step:
        owed = self.answer.heuristics_owed
        if event.participant not in owed:
            return NOTHING
        self.answer.heuristics_owed = tuple([name for name in owed if name != event.participant])
        return self._settle(now_s)

    def _on_reachable(self, event: events.Reachable) -> Step:
        branch = self.branches.get(event.participant)
        if branch is None or branch.done or self.phase not in _TELLING:
            return NOTHING
        return Step(messages=(Send(_TELLING[self.phase], branch.participant),))

    def _on_woken(self, event: events.Woken, now_s: float) -> Step:
        match self.phase:
            case Phase.ACTIVE if now_s >= self.deadline_s:
                return self._roll_back(now_s, "TIMEOUT", "commit was not asked for in time")
            case Phase.PREPARING if now_s >= self.prepare_by_s:
                return self._time_out(now_s)
            case Phase.COMMITTING | Phase.ROLLING_BACK:
                return self._resend(event, now_s)
            case _:
                return Step(wake_at_s=self._wake_at_s())

    def _time_out(self, now_s: float) -> Step:
        silent = ", ".join(self.branches.silent)
        self.branches.take_silence_for_no()
        return self._roll_back(now_s, "TIMEOUT", f"no vote in time from {silent}")

    def _resend(self, event: events.Woken, now_s: float) -> Step:
        if now_s < self.resends.at_s:
            return self._settle(now_s)
        if event.blocked:
            self.resends.postpone(now_s)
            return self._settle(now_s)
        attention = self.resends.count(now_s)
        return self._settle(now_s, messages=self._owed_messages(_TELLING[self.phase]), attention=attention)

    def _settle(
        self,
        now_s: float,
        *,
        messages: tuple[Send, ...] = (),
        record: DecisionRecord | None = None,
        lookup: bool = False,
        heuristics: tuple[HeuristicRecord, ...] = (),
        attention: bool = False,
    ) -> Step:
        """Finish what can be finished, the phase, the answer, the transaction, beside what the event asks for."""
        all_done = self.branches.all_done()
        if all_done and self.phase in _TELLING:
            self._move(Cause.ALL_ACKNOWLEDGED)
        answer = self._answer() if self.answer.is_due(self.branches, now_s, all_done=all_done) else None
        reply, refusal = (None, answer) if isinstance(answer, Refusal) else (answer, None)
        finished = all_done and self.answer.is_free()
        wake_at_s = None if finished else self._wake_at_s()
        return Step(messages, record, lookup, heuristics, reply, refusal, wake_at_s, finished, attention)

    def _owed_messages(self, verb: Verb) -> tuple[Send, ...]:
        return sends(verb, tuple(self.branches.owed))

    def _schedule(self, now_s: float, answer_timeout_s: float) -> None:
        self.answer.by_s = now_s + answer_timeout_s
        self.resends.schedule(now_s)

    def _wake_at_s(self) -> float | None:
        if self.phase in _TELLING:
            return self.answer.wake_at_s(self.resends.at_s)
        if self.phase is PREPARING:
            return self.prepare_by_s
        return self.deadline_s if self.phase is ACTIVE else None

    def _move(self, cause: Cause) -> None:
        self.phase = EDGES[self.phase][cause]


_NO: Final = VoteKind.ROLLED_BACK
_PREPARE: Final = Verb.PREPARE
_COMMIT: Final = Verb.COMMIT
_TELLING: Final = {COMMITTING: _COMMIT, ROLLING_BACK: Verb.ROLLBACK}
