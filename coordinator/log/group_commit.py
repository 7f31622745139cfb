"""Group commit: the engine's side of the decision log.

The engine hands over single records, lookups and inquiries; they travel in batches, and the
answers come back in batches, once they are certain:

- a record's ``Recorded`` after its row is durable (R1). If its request_id was bound already, the
  stored row is read, this transaction's own ROLLBACK row (without request_id) is written, and
  then ``Recorded.stored`` is the answer (R3). If the database refuses the record's values, the
  own ROLLBACK row is the answer too, with the reason ``RECORD_REFUSED`` (R17); so it is for a "no" that may
  not bind its request_id before participants have reported, with ``PARTICIPANTS_UNREPORTED`` (R15).
- a lookup's or an inquiry's answer after a later write of our own was confirmed (R7); only
  answers that bind nobody (nothing found; PENDING; FORGOTTEN) come at once. An inquiry's answer and
  the write that confirms it are of one generation of the log, or it is asked again: the fence that it
  rests on may be gone with the tail of a log that was restored in between (R15).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from typing import Final, NamedTuple, TypeVar

import structlog

from coordinator.log.appends import Appends, Sequenced
from coordinator.log.completion import Completion
from coordinator.log.decision_log import BACKOFF_CAP_S, BACKOFF_FIRST_S, DecisionLog, Incarnation, LogUnavailableError
from coordinator.log.ended import IncarnationEndedError
from coordinator.log.inquiry import Answer, judge
from coordinator.log.lease import Lease
from coordinator.log.reported import Reported
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from coordinator.protocol.events import Recorded
from participant_sdk.backoff import Backoff
from participant_sdk.batching import BATCH_CAP_DEFAULT, QUEUE_BOUND_DEFAULT, Batcher, QueueFullError
from participant_sdk.clock import Clock
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision

REQUEST_BOUND: Final = "REQUEST_ID_BOUND"
RECORD_REFUSED: Final = "RECORD_REFUSED"
PARTICIPANTS_UNREPORTED: Final = "PARTICIPANTS_UNREPORTED"

Rows = TypeVar("Rows")
_Waiting = asyncio.Future[Answer] | asyncio.Future[None] | asyncio.Future[StoredDecision | None]

_LOG: Final = structlog.get_logger(__name__)


class _Lookup(NamedTuple):
    request: RequestId


class _Question(NamedTuple):
    request: RequestId
    answer: asyncio.Future[StoredDecision | None]


class _Inquiry(NamedTuple):
    xid: Xid
    participants: tuple[str, ...]
    answer: asyncio.Future[Answer]


class GroupCommit:
    """One incarnation's way to write and read decisions.

    ``on_recorded`` gets each flush's records, in order of their sequence; the record is the row that
    was written, so it says ROLLBACK where ``Recorded.stored`` is set. ``on_looked_up`` gets each
    round's lookups. ``participants_of`` names every participant of a COMMIT record's transaction, not only
    those that prepared. All run between the loop's steps, must not block, and may call ``append`` and
    ``lookup``. ``run`` must be running for anything to happen.
    """

    def __init__(
        self,
        log: DecisionLog,
        incarnation: Incarnation,
        *,
        clock: Clock,
        random: Random,
        reported: Reported,
        participants_of: Callable[[DecisionRecord], Iterable[str]],
        on_recorded: Callable[[list[tuple[DecisionRecord, Recorded]]], None],
        on_looked_up: Callable[[list[tuple[RequestId, StoredDecision | None]]], None],
        batch_size: int = BATCH_CAP_DEFAULT,
        queue_bound: int = QUEUE_BOUND_DEFAULT,
    ) -> None:
        self.incarnation: Final = incarnation
        self.completion: Final = Completion(incarnation.number)
        self._log = log
        self._clock = clock
        self._backoff = Backoff(random, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
        self._reported = reported
        self._on_recorded = on_recorded
        self._on_looked_up = on_looked_up
        self._appends = Appends(
            log,
            incarnation,
            clock=clock,
            random=random,
            batch_size=batch_size,
            queue_bound=queue_bound,
            reported=reported,
            participants_of=participants_of,
            on_written=self._written,
            on_conflicts=self._conflicts,
            on_refused=self._refused,
            on_unbound=self._unbound,
        )
        # Lookups are bounded below. Conflicts are not: each belongs to a transaction that was let in.
        self._lookups: Batcher[_Lookup | _Question | DecisionRecord] = Batcher(
            self._look_up, cap=batch_size, bound=sys.maxsize
        )
        self._queue_bound = queue_bound
        self._inquiries: Batcher[_Inquiry] = Batcher(self._inquire, cap=batch_size, bound=queue_bound)
        # Own ROLLBACK rows under way, and what their transactions are told once they are written:
        # the row that the request_id is bound to, or that the record was refused (None).
        self._instead: dict[Xid, StoredDecision | None] = {}
        self._waiting: dict[_Waiting, None] = {}
        self._ended = False

    @property
    def lease(self) -> Lease:
        """Since when this incarnation's lease has been renewed."""
        return self._appends.lease

    def __len__(self) -> int:
        """How many records are queued for the next flushes, or wait for reports."""
        return len(self._appends)

    def append(self, record: DecisionRecord) -> None:
        """Queue a record; ``on_recorded`` tells when it is durable. QueueFullError at the bound, nothing queued."""
        self._appends.put(record)

    def lookup(self, request: RequestId) -> None:
        """Queue the question what a request_id is bound to. QueueFullError at the bound, nothing queued."""
        if len(self._lookups) >= self._queue_bound:
            raise QueueFullError(f"{self._queue_bound} lookups are queued for the decision log, the most allowed")
        self._lookups.put(_Lookup(request))

    async def bound(self, request: RequestId) -> StoredDecision | None:
        """Ask the log what a request_id is bound to (R3). LogUnavailableError when this incarnation ends first.

        QueueFullError at the bound. A cancelled caller leaves nothing behind.
        """
        self._check_running()
        if len(self._lookups) >= self._queue_bound:
            raise QueueFullError(f"{self._queue_bound} lookups are queued for the decision log, the most allowed")
        answer: asyncio.Future[StoredDecision | None] = asyncio.get_running_loop().create_future()
        self._lookups.put(_Question(request, answer))
        self._waiting[answer] = None
        try:
            return await answer
        finally:
            del self._waiting[answer]

    async def read(self, xid: Xid, participants: Sequence[str] = ()) -> Answer:
        """Ask the log of one xid (R7). LogUnavailableError when the read failed: that is no answer.

        ``participants`` are the transaction's, as far as the asker knows them: ROLLBACK is presumed only
        once all of them have reported, and without names, all that are configured (R15).
        QueueFullError at the bound. A cancelled caller leaves nothing behind.
        """
        self._check_running()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._inquiries.put(_Inquiry(xid, tuple(participants), answer))
        self._waiting[answer] = None
        try:
            return await answer
        finally:
            del self._waiting[answer]

    async def confirm(self) -> None:
        """Wait until a write that begins from now on is durable, and so all that was read before (R7).

        LogUnavailableError when this incarnation ends first.
        """
        self._check_running()
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._appends.confirm(lambda: None if confirmed.done() else confirmed.set_result(None))
        self._waiting[confirmed] = None
        try:
            await confirmed
        finally:
            del self._waiting[confirmed]

    def renew(self) -> None:
        """Have the lease renewed by an empty batch, unless other writes do so often enough."""
        self._appends.renew()

    async def run(self) -> None:
        """Do the work until cancelled.

        FencedError, LogTailLostError or SequenceBrokenError when this incarnation may not write any
        more: what was open is never reported, and inquiries fail with LogUnavailableError.
        """
        ended: list[IncarnationEndedError] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._appends.run())
                tasks.create_task(self._lookups.run())
                tasks.create_task(self._inquiries.run())
        except* IncarnationEndedError as group:
            ended.extend(error for error in group.exceptions if isinstance(error, IncarnationEndedError))
        finally:
            self._ended = True
            for future in list(self._waiting):
                if not future.done():
                    future.set_exception(LogUnavailableError(f"incarnation {self.incarnation.number} has ended"))
        if ended:
            raise ended[0]

    def _check_running(self) -> None:
        if self._ended:
            raise LogUnavailableError(f"incarnation {self.incarnation.number} has ended")

    def _written(self, batch: Sequence[Sequenced]) -> None:
        number = self.incarnation.number
        decided = self.completion.decided
        for record, sequence in batch:
            decided(sequence, record.xid)
        if self._instead:
            self._on_recorded([(record, self._recorded(record, sequence)) for record, sequence in batch])
        elif batch:
            self._on_recorded([(record, Recorded(number, sequence)) for record, sequence in batch])

    def _recorded(self, record: DecisionRecord, sequence: int) -> Recorded:
        number = self.incarnation.number
        if record.xid not in self._instead:
            return Recorded(number, sequence)
        stored = self._instead.pop(record.xid) or StoredDecision(record, number, sequence, self._clock.unix_ms())
        return Recorded(number, sequence, stored)

    def _refused(self, record: DecisionRecord, message: str) -> DecisionRecord:
        _LOG.error("decision_record_refused", transaction_id=str(record.xid), error=message)
        self._instead[record.xid] = None
        return _own_rollback(record, RECORD_REFUSED)

    def _unbound(self, record: DecisionRecord) -> DecisionRecord:
        self._instead[record.xid] = None
        return _own_rollback(record, PARTICIPANTS_UNREPORTED)

    def _conflicts(self, records: Sequence[DecisionRecord]) -> None:
        for record in records:
            self._lookups.put(record)

    async def _look_up(self, items: list[_Lookup | _Question | DecisionRecord]) -> None:
        requests = list(dict.fromkeys(item.request for item in items if item.request is not None))
        rows = await self._until_read(lambda: self._log.read_requests(requests))
        asked = [item.request for item in items if isinstance(item, _Lookup)]
        unbound = [(request, None) for request in asked if request not in rows]
        if unbound:
            self._on_looked_up([*unbound])
        bound = [(request, rows[request]) for request in asked if request in rows]
        if bound:
            self._appends.confirm(lambda: self._on_looked_up([*bound]))
        self._answer([item for item in items if isinstance(item, _Question)], rows)
        conflicts = [item for item in items if isinstance(item, DecisionRecord)]
        if conflicts:
            await self._resolve(conflicts, rows)

    def _answer(self, questions: Sequence[_Question], rows: Mapping[RequestId, StoredDecision]) -> None:
        """Tell what is bound once it is known to be durable; what is not bound binds nobody (R7)."""
        for question in questions:
            row = rows.get(question.request)
            if row is None:
                _settle(question.answer, None)
            else:
                self._appends.confirm(partial(_settle, question.answer, row))

    async def _resolve(self, conflicts: list[DecisionRecord], rows: Mapping[RequestId, StoredDecision]) -> None:
        """Write the own ROLLBACK rows of transactions whose request_id is bound (R3)."""
        rollbacks: list[DecisionRecord] = []
        others: list[DecisionRecord] = []
        for record in conflicts:
            row = None if record.request is None else rows.get(record.request)
            if row is None or row.record.xid == record.xid:
                others.append(record)
            else:
                self._instead[record.xid] = row
                rollbacks.append(_own_rollback(record, REQUEST_BOUND))
        if rollbacks:
            self._appends.put_first(rollbacks)
        if others:
            await self._meet_own_rows(others)

    async def _meet_own_rows(self, records: list[DecisionRecord]) -> None:
        """Answer records whose own xid has a row already with that row; the others go again."""
        decisions = (await self._until_read(lambda: self._log.read([record.xid for record in records]))).decisions
        met: list[tuple[DecisionRecord, Recorded]] = []
        for record in records:
            row = decisions.get(record.xid)
            if row is None:
                self._appends.put_first([record])
            else:
                stored = self._stored_instead(record, row)
                met.append((row.record, Recorded(row.incarnation, row.sequence, stored)))
        if met:
            self._appends.confirm(lambda: self._on_recorded(met))

    def _stored_instead(self, record: DecisionRecord, row: StoredDecision) -> StoredDecision | None:
        """What is there instead of what was asked for, where the transaction's own row is met; None where it is that.

        A row that does not bind the record's request is not the record's: a "no" came later than one that could not
        bind. Nor is it where the record itself was put in place of another.
        """
        if record.xid in self._instead:
            return self._instead.pop(record.xid) or row
        same = (row.record.decision, row.record.request) == (record.decision, record.request)
        return None if same else row

    async def _inquire(self, items: list[_Inquiry]) -> None:
        generation = self._reported.generation
        try:
            snapshot = await self._log.read(list(dict.fromkeys(item.xid for item in items)))
        except LogUnavailableError as error:
            for item in items:
                if not item.answer.done():
                    item.answer.set_exception(LogUnavailableError(str(error)))
            return
        # A snapshot of an unknown generation proves nothing against the reports of this one.
        is_same = generation == self._reported.generation
        final: list[tuple[_Inquiry, Answer]] = []
        for item in items:
            missing = self._reported.missing(item.participants)
            unreported = missing if is_same else item.participants or self._reported.participants
            answer = judge(item.xid, snapshot, self.incarnation, unreported)
            if answer.is_final:
                final.append((item, answer))
            else:
                _tell(item, answer)
        if final:
            self._appends.confirm(lambda: self._tell_confirmed(final, generation))

    def _tell_confirmed(self, answers: list[tuple[_Inquiry, Answer]], generation: int) -> None:
        is_same = generation == self._reported.generation
        for item, answer in answers:
            if is_same:
                _tell(item, answer)
            elif not item.answer.done():
                self._ask_again(item)

    def _ask_again(self, item: _Inquiry) -> None:
        try:
            self._inquiries.put(item)
        except QueueFullError as error:
            item.answer.set_exception(LogUnavailableError(f"the decision log was connected to anew: {error}"))

    async def _until_read(self, read: Callable[[], Awaitable[Rows]]) -> Rows:
        while True:
            try:
                rows = await read()
            except LogUnavailableError as error:
                _LOG.warning("decision_log_read_failed", error=str(error))
                await self._backoff.wait()
            else:
                self._backoff.reset()
                return rows


def _own_rollback(record: DecisionRecord, reason: str) -> DecisionRecord:
    return DecisionRecord(record.xid, Decision.ROLLBACK, record.prepared, reason=reason)


def _settle(answer: asyncio.Future[StoredDecision | None], row: StoredDecision | None) -> None:
    if not answer.done():
        answer.set_result(row)


def _tell(item: _Inquiry, answer: Answer) -> None:
    if not item.answer.done():
        item.answer.set_result(answer)
