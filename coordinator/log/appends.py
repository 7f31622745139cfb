"""The writing half of group commit: one flush at a time, everything queued rides.

Each round is one append of the log (R4). What it answers:

- WRITTEN: the batch is durable, but for conflicts; so is everything that was read before it
  began (R7). Both are reported.
- unknown (R5): the same batch with the same expected sequence is written again, which waits
  behind the old backend, until the log refuses it because the sequence moved on. Then the rows
  present are the truth, reported after the next WRITTEN; the absent ones go again.
- unavailable: the same batch again.
- a refused value (R17): the batch goes again in halves until the bad record is alone.
- HELD (R15): the batch waits; empty batches renew the lease and confirm what was read.
- anything else: this incarnation has ended, and ``run`` raises. Nothing more is reported.

A COMMIT, and a "no" that binds a request_id, is written only once every participant of its transaction
has reported since the log was connected to last (R15): participants may have applied a COMMIT of that very
request that the log lost. A COMMIT waits aside; such a "no" goes on as one that binds nothing, so that a
participant that is away keeps no client of others waiting. What travels with them goes (R17):

1. A new connection takes no records as its first statement: that write fails, having connected. The
   reports are forgotten then, before anything can be written over it, and what may go goes at once.
2. A batch that was certainly not written is parted anew before each try: what may not go waits aside.
3. A batch that may have been written (R5) and holds a record that may not go now cannot be written
   again as it was, and must not stop the others for ever. Its other records go with the same expected
   sequence; if it has no others, one sequence is burned in their place.
4. Where that is WRITTEN, the sequence has moved past what the open write expects: it can never happen
   any more, and what it held wants a report like any other. It waits aside.
5. Where that is refused because the sequence has moved, the open write, or this one whose own answer
   was lost, did happen: the rows present are the truth, reports or none, for they are in this very
   log; the absent ones are parted anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final, Never

import structlog

from coordinator.log.decision_log import (
    BACKOFF_CAP_S,
    BACKOFF_FIRST_S,
    Appended,
    AppendStatus,
    BadRecordError,
    DecisionLog,
    Incarnation,
    LogUnavailableError,
    LogUncertainError,
    Snapshot,
)
from coordinator.log.ended import (
    FencedError,
    LogTailLostError,
    SequenceBrokenError,
)
from coordinator.log.lease import Lease
from coordinator.log.reported import Reported
from coordinator.protocol.effects import DecisionRecord
from participant_sdk.backoff import Backoff
from participant_sdk.batching import QueueFullError
from participant_sdk.clock import Clock
from participant_sdk.xa import Decision

HELD_PAUSE_S: Final = 0.25

Sequenced = tuple[DecisionRecord, int]

_LOG: Final = structlog.get_logger(__name__)


class Appends:
    """Writes records in batches and tells what became of each, in order of their sequence.

    ``on_written`` gets the records that are durable under these sequences; ``on_conflicts`` the
    records that were not inserted because of a row that is there already; ``on_refused`` gets a
    record that the database refuses with the reason, ``on_unbound`` a "no" that may not bind before
    participants have reported; both return the one to write in its place;
    ``participants_of`` names all participants of a record's transaction. The callbacks run in the
    loop's own task and must not block.
    """

    def __init__(
        self,
        log: DecisionLog,
        incarnation: Incarnation,
        *,
        clock: Clock,
        random: Random,
        batch_size: int,
        queue_bound: int,
        reported: Reported,
        participants_of: Callable[[DecisionRecord], Iterable[str]],
        on_written: Callable[[Sequence[Sequenced]], None],
        on_conflicts: Callable[[Sequence[DecisionRecord]], None],
        on_refused: Callable[[DecisionRecord, str], DecisionRecord],
        on_unbound: Callable[[DecisionRecord], DecisionRecord],
    ) -> None:
        if not 1 <= batch_size <= queue_bound:
            raise ValueError(f"a batch's size is from 1 to the queue's bound {queue_bound}, not {batch_size}")
        self.lease = Lease(incarnation.lease_s)
        self._log = log
        self._incarnation = incarnation
        self._clock = clock
        self._backoff = Backoff(random, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_CAP_S)
        self._batch_size = batch_size
        self._queue_bound = queue_bound
        self._reported = reported
        self._participants_of = participants_of
        self._on_written = on_written
        self._on_conflicts = on_conflicts
        self._on_refused = on_refused
        self._on_unbound = on_unbound
        self._sequence = 0
        self._queue: deque[DecisionRecord] = deque()
        # Batches taken from the queue and not settled; the first one goes next.
        self._taken: deque[list[DecisionRecord]] = deque()
        # Whether one of the taken batches may have been written, or may yet be (R5).
        self._uncertain = False
        # Records that were not written and want a report; they go again when one comes.
        self._aside: list[DecisionRecord] = []
        self._has_reports = False
        self._unconfirmed: list[Callable[[], None]] = []
        self._renewal_due = False
        self._wake = asyncio.Event()
        reported.whenever_reported(self._take_reports)

    def __len__(self) -> int:
        return len(self._queue) + len(self._aside)

    def put(self, record: DecisionRecord) -> None:
        """Queue a record. QueueFullError at the bound, with nothing queued."""
        if len(self._queue) + len(self._aside) >= self._queue_bound:
            raise QueueFullError(f"{self._queue_bound} records are queued for the decision log, the most allowed")
        if not self._queue:
            # Otherwise it is set, or the writer does not wait before the queue is empty.
            self._wake.set()
        self._queue.append(record)

    def put_first(self, records: Iterable[DecisionRecord]) -> None:
        """Put records that were taken before at the queue's front, past the bound."""
        self._queue.extendleft(reversed(list(records)))
        self._wake.set()

    def confirm(self, then: Callable[[], None]) -> None:
        """Call ``then`` once a write that begins from now on is durable: so is all that was read before (R7)."""
        self._unconfirmed.append(then)
        self._wake.set()

    def renew(self) -> None:
        """Have an empty batch written, unless other writes renew the lease often enough."""
        if self.lease.age_s(self._clock.monotonic_s()) >= self._incarnation.lease_s / 6:
            self._renewal_due = True
            self._wake.set()

    async def run(self) -> Never:
        """Write until cancelled. FencedError, LogTailLostError or SequenceBrokenError when it may not any more."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._readmit()
            while self._taken or self._queue or self._unconfirmed or self._renewal_due:
                records, burned = self._next()
                await self._round(records, burned)
                self._readmit()

    def _take_reports(self) -> None:
        self._has_reports = True
        self._wake.set()

    def _readmit(self) -> None:
        """Queue again, ahead of others, what waited aside and may go now."""
        if not self._has_reports:
            return
        self._has_reports = False
        going, self._aside = self._part(self._aside)
        self._queue.extendleft(reversed(going))

    def _next(self) -> tuple[list[DecisionRecord], int]:
        """What the next round writes: records, and how many sequences it burns instead of some."""
        self._reported.turn()
        if self._taken and self._uncertain:
            going, waiting = self._part(self._taken[0])
            return going, 1 if waiting and not going else 0
        while self._taken or self._queue:
            going, waiting = self._part(self._taken.popleft() if self._taken else self._take())
            self._set_aside(waiting)
            if going:
                self._taken.appendleft(going)
                return going, 0
        return [], 0

    def _take(self) -> list[DecisionRecord]:
        batch = [self._queue.popleft() for _ in range(min(self._batch_size, len(self._queue)))]
        if len({record.xid for record in batch}) == len(batch):
            return batch
        # Two records of one xid: the later one goes in a later batch, and meets the row of the first there.
        first = {record.xid: record for record in reversed(batch)}
        self._queue.extendleft(reversed([record for record in batch if first[record.xid] is not record]))
        return [record for record in batch if first[record.xid] is record]

    def _part(self, batch: list[DecisionRecord]) -> tuple[list[DecisionRecord], list[DecisionRecord]]:
        """Part what may be written now from what wants a report (R15)."""
        if self._reported.is_complete:
            return batch, []
        going: list[DecisionRecord] = []
        waiting: list[DecisionRecord] = []
        for record in batch:
            (going if self._may_go(record) else waiting).append(record)
        return going, waiting

    def _may_go(self, record: DecisionRecord) -> bool:
        binds = record.request is not None
        if record.decision is not Decision.COMMIT and not binds:
            return True
        participants = tuple(self._participants_of(record))
        # Whoever closes a request names no participants: any of them may have applied it.
        return not (participants or binds) or not self._reported.missing(participants)

    def _set_aside(self, records: list[DecisionRecord]) -> None:
        """Have COMMITs wait. A "no" that may not bind now binds nothing, so that nobody waits for one who is away."""
        commits = [record for record in records if record.decision is Decision.COMMIT]
        if commits and not self._aside:
            _LOG.warning("commits_wait_for_reports", participants=self._reported.missing())
        self._aside += commits
        unbound = [self._on_unbound(record) for record in records if record.decision is not Decision.COMMIT]
        self._queue.extendleft(reversed(unbound))

    async def _round(self, records: list[DecisionRecord], burned: int = 0) -> None:
        confirming, self._unconfirmed = self._unconfirmed, []
        self._renewal_due = False
        began_s, generation = self._clock.monotonic_s(), self._reported.generation
        try:
            appended = await self._log.append(self._incarnation, self._sequence, records, burned=burned)
        except BadRecordError as error:
            self._unconfirmed[:0] = confirming
            self._split(str(error))
        except (LogUnavailableError, LogUncertainError) as error:
            self._unconfirmed[:0] = confirming
            self._renewal_due = True
            uncertain = isinstance(error, LogUncertainError)
            self._uncertain |= bool(records) and uncertain
            _LOG.warning("decision_log_write_failed", uncertain=self._uncertain, records=len(records), error=str(error))
            # A new connection that takes no records yet is no outage.
            if uncertain or self._reported.generation == generation:
                await self._backoff.wait()
        else:
            if appended.status is AppendStatus.WRITTEN:
                self.lease.renewed(began_s, self._clock.monotonic_s())
                self._written(records, burned, appended, confirming)
            else:
                self._unconfirmed[:0] = confirming
                await self._refused(records, burned, appended)

    def _written(
        self, records: list[DecisionRecord], burned: int, appended: Appended, confirming: list[Callable[[], None]]
    ) -> None:
        self._backoff.reset()
        first = self._sequence + 1
        if appended.last_sequence != self._sequence + len(records) + burned:
            raise SequenceBrokenError(
                f"after {len(records) + burned} sequences from {first} the log's is {appended.last_sequence}"
            )
        self._sequence = appended.last_sequence
        if records or burned:
            self._settle_unwritten(self._taken.popleft(), records)
        for then in confirming:
            then()
        if not appended.conflicts:
            self._on_written([(record, sequence) for sequence, record in enumerate(records, first)])
            return
        conflicts = appended.conflicts
        self._on_written([(r, sequence) for sequence, r in enumerate(records, first) if r.xid not in conflicts])
        self._on_conflicts([record for record in records if record.xid in conflicts])

    def _settle_unwritten(self, taken: list[DecisionRecord], records: list[DecisionRecord]) -> None:
        """Put aside what the batch held back: now it is certain that no open write of it can happen."""
        self._uncertain = False
        if len(taken) > len(records):
            written = {record.xid for record in records}
            self._set_aside([record for record in taken if record.xid not in written])

    async def _refused(self, records: list[DecisionRecord], burned: int, appended: Appended) -> None:
        match appended.status:
            case AppendStatus.HELD if records or burned:
                _LOG.warning("decision_log_held", records=len(records), queued=len(self))
                await asyncio.sleep(HELD_PAUSE_S)
                await self._round([])
            case AppendStatus.SEQUENCE_AHEAD if self._uncertain:
                await self._settle(appended.last_sequence)
            case AppendStatus.FENCED:
                raise FencedError(await self._why_fenced())
            case AppendStatus.TIMELINE_CHANGED:
                raise FencedError(
                    f"incarnation {self._incarnation.number} ended with the log's timeline {self._incarnation.timeline}"
                )
            case AppendStatus.SEQUENCE_BEHIND:
                await self._hold(appended.last_sequence)
            case AppendStatus.SEQUENCE_AHEAD | AppendStatus.HELD | AppendStatus.WRITTEN:
                raise SequenceBrokenError(
                    f"the log answers {appended.status.name} at sequence {appended.last_sequence} to {len(records)}"
                    f" records after {self._sequence}, and no write of ours is open"
                )

    async def _why_fenced(self) -> str:
        message = f"incarnation {self._incarnation.number} was fenced"
        try:
            standing = await self._log.standing()
        except LogUnavailableError:
            return message
        if not standing.is_held:
            return message
        return f"{message}: the log is in HOLD: {standing.held_reason}; see the runbook docs/runbooks/hold.md"

    async def _settle(self, last_sequence: int) -> None:
        """Find out what the unknown write did: the log's sequence says that it happened (R5)."""
        records = [record for batch in self._taken for record in batch]
        rows = (await self._read(records)).decisions
        present = [(record, rows[record.xid]) for record in records if record.xid in rows]
        absent = [record for record in records if record.xid not in rows]
        for record, row in present:
            if row.incarnation != self._incarnation.number or row.record.decision is not record.decision:
                raise SequenceBrokenError(f"transaction {record.xid} has another decision in the log than was written")
        self._sequence = last_sequence
        self._uncertain = False
        self._taken.clear()
        if absent:
            self._taken.append(absent)
        sequenced = [(record, row.sequence) for record, row in present]
        self.confirm(lambda: self._on_written(sequenced))

    async def _read(self, records: list[DecisionRecord]) -> Snapshot:
        while True:
            try:
                return await self._log.read([record.xid for record in records])
            except LogUnavailableError as error:
                _LOG.warning("decision_log_read_failed", records=len(records), error=str(error))
                await self._backoff.wait()

    def _split(self, message: str) -> None:
        batch = self._taken.popleft()
        if len(batch) > 1:
            middle = len(batch) // 2
            self._taken.extendleft((batch[middle:], batch[:middle]))
            return
        instead = self._on_refused(batch[0], message)
        if instead == batch[0]:
            raise SequenceBrokenError(f"the log refuses even the bare row of transaction {instead.xid}: {message}")
        self._taken.appendleft([instead])

    async def _hold(self, last_sequence: int) -> Never:
        message = (
            f"the log lost its tail: incarnation {self._incarnation.number} wrote up to"
            f" {self._sequence}, and the log knows {last_sequence}"
        )
        try:
            await self._log.hold(message)
        except (LogUnavailableError, LogUncertainError) as error:
            raise LogTailLostError(f"{message}; and it could not be put in HOLD") from error
        raise LogTailLostError(f"{message}; it is in HOLD now")
