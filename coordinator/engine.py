"""The engine owns the transactions: it feeds events to the protocol's objects and performs their steps.

It is single-threaded and never awaits while it holds a transaction: links, log and callers
call in, each event is one ``step``, and what the step asks for is queued at the links and the
log, whose rounds carry everybody's. What must wait for the log is caused by the log's answer
(``recorded``), so persist-then-send needs no care here.

After a decision is durable the engine owns phase two; no request's task does. A caller that
gives up takes its own future along and nothing else (R16).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from coordinator import canonical
from coordinator.admission import Admission, Limits, check_growth, share_out, unknown_service
from coordinator.alarms import Alarms
from coordinator.answered import Answered
from coordinator.errors import OutcomeUnknownError, TransactionError, UnknownTransactionError
from coordinator.heuristic_keeper import HeuristicKeeper
from coordinator.incarnation import IncarnationLife
from coordinator.intents import Intents
from coordinator.log.decision_log import Incarnation
from coordinator.log.group_commit import GroupCommit
from coordinator.needing_attention import NeedingAttention
from coordinator.outgoing import Outgoing
from coordinator.protocol import events
from coordinator.protocol.effects import NOTHING, DecisionRecord, HeuristicRecord, Refusal, Step, StoredDecision
from coordinator.protocol.outcome import Outcome
from coordinator.protocol.phases import ACTIVE, DECIDING, PREPARING
from coordinator.protocol.timing import Timing
from coordinator.protocol.transaction import Transaction
from coordinator.refusals import refused
from coordinator.requests import Ended, Enlisted, ExecuteCall, TransactionView
from coordinator.resending import Resending
from coordinator.running import STORY_MAX, Finished, History, Running, StoryLine, Told, resolving
from coordinator.watching import Watchers
from participant_sdk.clock import Clock
from participant_sdk.ids import RequestId, Xid, XidSource
from participant_sdk.link import Link
from participant_sdk.participant import Operation
from participant_sdk.xa import Decision

PRESUMED: Final = "PRESUMED"
ROLLBACK_ASKED: Final = "ROLLBACK_ASKED"
_COMMIT_ASKED: Final = {wait_applied: events.CommitAsked(wait_applied) for wait_applied in (False, True)}
_LOG: Final = structlog.get_logger(__name__)


class Engine:
    """All transactions of one incarnation. ``connect`` comes once, before the first call."""

    def __init__(
        self,
        incarnation: Incarnation,
        clock: Clock,
        *,
        timing: Timing,
        limits: Limits,
        on_finished: Callable[[Finished], None],
    ) -> None:
        self.incarnation = incarnation
        self.history = History()
        self.attention = NeedingAttention()
        self.watchers = Watchers()
        self._clock = clock
        self._timing = timing
        self.admission = Admission(limits)
        self._on_finished = on_finished
        self._xids = XidSource(incarnation.number)
        self._alarms = Alarms(clock, self._ring)
        self._running: dict[Xid, Running] = {}
        self.resending = Resending(self._running, self._reach)
        self._intents = Intents()
        # Transactions whose lookup is under way.
        self._lookups: dict[RequestId, list[Xid]] = {}

    async def run(self) -> None:
        """Wake transactions when their time comes, until cancelled."""
        await self._alarms.run()

    def connect(
        self, links: Mapping[str, Link], commit: GroupCommit, life: IncarnationLife, heuristics: HeuristicKeeper
    ) -> None:
        """Attach the parts that call back into the engine."""
        self._links = links
        self._outgoing = Outgoing(links, self.incarnation.log_id, self._clock)
        self._commit = commit
        self._life = life
        self._heuristics = heuristics
        self.answered = Answered(self._running, self._take, self._clock, life)

    def connect_locks(self, take: Callable[[Running, ExecuteCall], None], drop: Callable[[Running], None]) -> None:
        """Attach who takes a call's locks and then asks for commit, and who lets go of a finished transaction's."""
        self._take_locks, self._drop_locks = take, drop

    # What callers ask.

    def execute(self, call: ExecuteCall) -> asyncio.Future[Ended]:
        """Run one transaction. The future gets an outcome, OutcomeUnknownError or RequestReusedError.

        Errors raised at once are those of ``submit``.
        """
        future, told = resolving()
        self.submit(call, told)
        return future

    def submit(self, call: ExecuteCall, told: Told) -> None:
        """Run one transaction, and call ``told`` with its outcome, OutcomeUnknownError or RequestReusedError.

        ``told`` may be called from within; it must not raise, nor call the engine.
        Raises at once, with nothing begun: InvalidRequestError (unknown service, no operations),
        RequestReusedError, RequestInUseError, BusyError, OutcomeUnknownError (stopped).
        """
        shares = share_out(call.operations, self._links)
        request = RequestId(call.tenant, call.request_id) if call.request_id else None
        if request is not None and (twin := self._intents.twin(request, call.digest)) is not None:
            twin.await_end(told)
            return
        running = self._open(call.timeout_s, request, call.digest)
        running.carry(shares, len(call.operations))
        # It is born with its branches, rather than told of each: nothing can be wrong with them.
        running.transaction.branches.share(shares)
        running.await_end(told)
        if call.lock_keys:
            self._alarms.set(running.transaction.xid, running.transaction.deadline_s)
            self._take_locks(running, call)  # Commit is asked for once they are held.
        else:
            self._take(running, _COMMIT_ASKED[call.wait_applied], running.began_s)

    def begin(self, timeout_s: float, tenant: str, request_id: str, call_id: str = "") -> Xid:
        """Begin an interactive transaction, or tell again which one this call began. Errors as for ``execute``."""
        request = RequestId(tenant, request_id) if request_id else None
        if request is not None and (begun := self._intents.begun(request, call_id)) is not None:
            return begun
        running = self._open(timeout_s, request, b"")
        running.call_id = call_id
        self._alarms.set(running.transaction.xid, running.transaction.deadline_s)
        return running.transaction.xid

    def enlist(self, xid: Xid, participant: str, operations: Sequence[Operation], embedded: int) -> Enlisted:
        """Add work to a branch. UnknownTransactionError, WrongPhaseError, InvalidRequestError."""
        running = self.held(xid)
        if participant not in self._links:
            raise unknown_service(participant, self._links, field="participant")
        check_growth(running.transaction.branches.get(participant), running.operations, operations, embedded)
        now_s = self._clock.monotonic_s()
        self._take(running, events.Enlist(participant, len(operations), embedded), now_s, refuse=True)
        running.add_operations(participant, tuple(operations))
        running.tell(self._clock.unix_ms(), "enlisted", participant)
        branch = running.transaction.branches[participant]
        return Enlisted(branch.number, max(0.0, running.transaction.deadline_s - now_s))

    def set_rollback_only(self, xid: Xid, reason: str) -> None:
        """Leave the transaction no end but rollback. UnknownTransactionError, WrongPhaseError."""
        self._take(self.held(xid), events.SetRollbackOnly(reason), self._clock.monotonic_s(), refuse=True)

    def commit(self, xid: Xid, *, wait_applied: bool = True) -> asyncio.Future[Ended]:
        """End an interactive transaction; again, or too late, it tells how it ended."""
        running = self.held(xid)
        tx = running.transaction
        future = running.waiter()
        if tx.phase is ACTIVE:
            if tx.request is not None and not tx.digest:
                tx.digest = canonical.digest([op for share in running.operations.values() for op in share])
            self._take(running, events.CommitAsked(wait_applied), self._clock.monotonic_s())
        return future

    def rollback(self, xid: Xid, reason: str, code: str = ROLLBACK_ASKED) -> asyncio.Future[Ended]:
        """Undo a transaction that is not being decided yet; later, it tells how it ended. ``code`` says why."""
        running = self.held(xid)
        future = running.waiter()
        if running.transaction.phase in (ACTIVE, PREPARING):
            self._take(running, events.RollbackAsked(reason, code), self._clock.monotonic_s())
        return future

    def close_intent(self, tenant: str, request_id: str, reason: str) -> asyncio.Future[Ended]:
        """Bind ROLLBACK to a request_id, unless it is bound already: the answer tells which (R3)."""
        running = self._open(self._timing.rollback_timeout_s, None, b"")
        running.transaction.request = RequestId(tenant, request_id)
        return self._close(running, "INTENT_CLOSED", reason)

    def presume(self, xid: Xid) -> asyncio.Future[Ended]:
        """Record ROLLBACK of an xid that this incarnation gave out and that left no trace (R7)."""
        if (running := self.find(xid)) is not None:
            return running.waiter()
        self.admission.enter(len(self._running))
        now_s = self._clock.monotonic_s()
        running = Running(Transaction(xid, now_s, self._timing), now_s, xid.unix_ms)
        self._running[xid] = running
        return self._close(running, PRESUMED, "somebody asked, and nothing was decided")

    # What is shown.

    def find(self, xid: Xid) -> Running | None:
        """The transaction, running or finished lately."""
        return self._running.get(xid) or self.history.get(xid)

    def held(self, xid: Xid) -> Running:
        """The transaction; UnknownTransactionError where it is not held."""
        if (running := self.find(xid)) is None:
            raise UnknownTransactionError(f"transaction {xid} is not held by this coordinator", xid=xid)
        return running

    def new_id(self) -> Xid:
        """An identifier that no transaction has: for what transactions are parts of."""
        return self._xids.next(self._clock.unix_ms())

    def gave(self, xid: Xid) -> bool:
        """Whether this incarnation gave the xid out."""
        return self._xids.gave(xid)

    def views(self) -> list[TransactionView]:
        """Everything held, newest first: what runs, then what finished lately."""
        running = [r.view().without_events() for r in reversed(self._running.values())]
        return running + [r.view().without_events() for r in self.history.newest_first()]

    @property
    def in_flight(self) -> int:
        """Transactions whose client has no answer yet."""
        return self.admission.inside

    @property
    def unfinished(self) -> int:
        """Transactions held: without an answer, or with branches owed."""
        return len(self._running)

    # What happens: the log's, the links' and the clock's events.

    def recorded(self, answers: Sequence[tuple[DecisionRecord, events.Recorded]]) -> None:
        """The log holds these decisions durably."""
        now_s, unix_ms = self._clock.monotonic_s(), self._clock.unix_ms()
        stories = {decision: (unix_ms, "recorded", "", decision) for decision in Decision}
        for record, recorded in answers:
            running = self._running.get(record.xid)
            if running is None:
                self._life.finished(recorded.incarnation, recorded.sequence)
                continue
            self._take(running, recorded, now_s, stories[record.decision])

    def looked_up(self, answers: Sequence[tuple[RequestId, StoredDecision | None]]) -> None:
        """The log tells what these request_ids are bound to."""
        now_s = self._clock.monotonic_s()
        for request, stored in answers:
            for xid in self._lookups.pop(request, ()):
                if (running := self._running.get(xid)) is not None:
                    self._take(running, events.LookedUp(stored), now_s)

    def link_up(self, participant: str) -> None:
        """A session to this participant is open: send again what it is owed."""
        self.resending.soon(participant)

    def link_down(self, participant: str, reason: str) -> None:
        """A session was lost. Its votes have come as transient "no"; what it is owed waits for ``link_up``."""
        _LOG.warning("participant_down", participant=participant, reason=reason)

    def heuristics_recorded(self, records: Sequence[HeuristicRecord]) -> None:
        """The log keeps these heuristic ends."""
        for record in records:
            if (running := self._running.get(record.xid)) is not None:
                self._take(running, events.HeuristicRecorded(record.participant), self._clock.monotonic_s())

    def drive(self, tx: Transaction, story: str, decided_unix_ms: int) -> None:
        """Take over a transaction that was decided before, and bring it to its end; nothing if it is held."""
        if tx.xid in self._running:
            return
        now_s = self._clock.monotonic_s()
        running = Running(tx, now_s, tx.xid.unix_ms, stored_unix_ms=decided_unix_ms)
        running.decided_s = now_s
        running.tell(self._clock.unix_ms(), "recovered", "", story)
        if (outcome := tx.outcome()) is not None:
            running.end(Ended(outcome, 0.0))
        self._running[tx.xid] = running
        self._wake(running, now_s)

    def stop(self, why: str) -> None:
        """Take nothing more, and tell everybody who waits that the outcome is unknown."""
        self.admission.close(why)
        self._alarms.clear()
        for running in self._running.values():
            if running.ended is None:
                xid = running.transaction.xid
                running.end(OutcomeUnknownError(f"transaction {xid}: {why}; ask again, any coordinator knows", xid=xid))

    # Inside.

    def _open(self, timeout_s: float, request: RequestId | None, digest: bytes) -> Running:
        self.admission.enter(len(self._running))
        now_s, unix_ms = self._clock.monotonic_s(), self._clock.unix_ms()
        xid = self._xids.next(unix_ms)
        tx = Transaction(xid, now_s + timeout_s, self._timing, request=request, digest=digest)
        running = Running(tx, now_s, unix_ms)
        self._running[xid] = running
        self._intents.add(running)
        return running

    def _close(self, running: Running, reason: str, message: str) -> asyncio.Future[Ended]:
        future = running.waiter()
        self._take(running, events.Close(reason, message), running.began_s)
        return future

    def _ring(self, xid: Xid) -> None:
        if (running := self._running.get(xid)) is not None:
            self._wake(running, self._clock.monotonic_s())

    def _wake(self, running: Running, now_s: float) -> None:
        tx = running.transaction
        blocked = tx.decision is not None and self._outgoing.is_blocked(tx.branches.owed)
        self._take(running, events.Woken(blocked), now_s)

    def _reach(self, running: Running, participant: str) -> None:
        self._take(running, events.Reachable(participant), self._clock.monotonic_s())

    def _take(
        self,
        running: Running,
        event: events.Event,
        now_s: float,
        line: StoryLine | None = None,
        *,
        refuse: bool = False,
    ) -> None:
        """Feed one event to one transaction and perform the step. ``line`` is what its story says of the event."""
        if line is not None and len(running.story) < STORY_MAX:
            running.story.append(line)
        tx = running.transaction
        before = tx.phase
        step = tx.step(event, now_s)
        if step is NOTHING:
            return
        if tx.phase is not before:
            self._moved(running, now_s)
        messages, record, lookup, heuristics, reply, refusal, wake_at_s, finished, attention = step
        if refusal is not None or lookup or heuristics or attention:
            self._perform_rare(running, step, refuse=refuse)
        if messages:
            self._outgoing.send(running, messages)
        if record is not None:
            self._commit.append(record)
        if reply is not None:
            self._end(running, Ended(self._known(reply) if reply.replayed else reply, now_s - running.began_s))
        if finished:
            self._finish(running, now_s)
        elif wake_at_s is not None:
            self._alarms.set(tx.xid, wake_at_s)

    def _moved(self, running: Running, now_s: float) -> None:
        tx = running.transaction
        if tx.phase is DECIDING:
            running.prepared_s = now_s
        elif tx.decision is not None and not running.decided_s:
            running.decided_s = now_s
            running.drop_operations()
        if self.watchers.all:
            self.watchers.tell(running.view())

    def _perform_rare(self, running: Running, step: Step, *, refuse: bool) -> None:
        """Perform what hardly any step asks for."""
        tx = running.transaction
        if step.refusal is not None:
            error = refused(tx, step.refusal)
            if step.refusal is Refusal.REQUEST_REUSED:
                self._end(running, error)
            elif refuse:
                raise error
        if step.lookup and tx.request is not None:
            self._lookups.setdefault(tx.request, []).append(tx.xid)
            self._commit.lookup(tx.request)
        if step.heuristics:
            self._heuristics.put(step.heuristics)
        if step.attention:
            self.attention.ask(running, self._clock.unix_ms())

    def _end(self, running: Running, ended: Ended | TransactionError) -> None:
        if running.ended is None:
            self.admission.leave()
            running.end(ended)

    def _known(self, reply: Outcome) -> Outcome:
        """A stored answer, with what is known here of the branches of the transaction that bound it."""
        original = self.find(reply.xid)
        return reply if original is None else reply._replace(branches=original.transaction.branches.outcomes())

    def _finish(self, running: Running, now_s: float) -> None:
        tx = running.transaction
        del self._running[tx.xid]
        self._alarms.drop(tx.xid)
        self.attention.pop(tx.xid, None)
        self._intents.remove(running)
        if running.locks:
            self._drop_locks(running)
        if tx.sequence:
            self._life.finished(tx.incarnation, tx.sequence)
        self.history.add(running)
        self._on_finished(running.finished(now_s))
