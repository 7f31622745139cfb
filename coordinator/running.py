"""A transaction that this coordinator holds: the protocol's object with its payload, waiters and story."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from coordinator.errors import TransactionError
from coordinator.protocol.effects import Verb
from coordinator.protocol.outcome import Outcome
from coordinator.protocol.phases import ACTIVE, DECIDING, FINISHED, PREPARING
from coordinator.protocol.transaction import Transaction
from coordinator.requests import Ended, StoryEvent, TransactionView
from participant_sdk.ids import Xid
from participant_sdk.participant import FencingToken, Operation, Prepare
from participant_sdk.xa import AckKind, Decision, Vote

HISTORY_MAX: Final = 10_000
STORY_MAX: Final = 200

Detail = str | Vote | AckKind | Decision
Told = Callable[[Ended | TransactionError], None]
# A time in Unix milliseconds, a constant name, a participant or nothing, and a detail.
StoryLine = tuple[int, str, str, Detail]
_NO_OPERATIONS: Final[Mapping[str, tuple[Operation, ...]]] = {}


class Finished(NamedTuple):
    """What telemetry is told of each transaction, once, when nothing is owed any more. Times in seconds."""

    outcome: Outcome
    request_id: str
    operation_count: int
    duration_s: float
    prepare_s: float
    decide_s: float
    apply_s: float
    resend_attempts: int


class Running:
    """One transaction in the engine's hands. Mutable with slots: one is made for every transaction.

    ``call_id`` is the random name of the Begin that made it. ``operations`` is each participant's share of
    the work, let go as it is handed over: Prepare leaves once. ``waiters`` are called with the outcome; each stands
    for one caller, so that one that gives up takes nothing from the others. ``stored_unix_ms`` is when
    the log says that it was decided, for one that was taken over; 0 for others. ``locks`` is set once it has asked
    for locks, ``locking`` names those that it waits for, ``fencing_tokens`` shows those that it holds to participants.
    """

    __slots__ = (
        "began_s",
        "began_unix_ms",
        "call_id",
        "decided_s",
        "ended",
        "fencing_tokens",
        "locking",
        "locks",
        "operation_count",
        "operations",
        "prepared_s",
        "stored_unix_ms",
        "story",
        "transaction",
        "waiters",
    )

    def __init__(
        self, transaction: Transaction, began_s: float, began_unix_ms: int, *, stored_unix_ms: int = 0
    ) -> None:
        self.transaction = transaction
        self.began_s = began_s
        self.began_unix_ms = began_unix_ms
        self.stored_unix_ms = stored_unix_ms
        self.call_id = ""
        self.locks = False
        self.locking = ""
        self.fencing_tokens: tuple[FencingToken, ...] = ()
        self.prepared_s = 0.0
        self.decided_s = 0.0
        self.operations = _NO_OPERATIONS
        self.operation_count = 0
        self.waiters: tuple[Told, ...] = ()
        self.ended: Ended | TransactionError | None = None
        self.story: list[StoryLine] = []

    def tell(self, unix_ms: int, event: str, participant: str = "", detail: Detail = "") -> None:
        """Add to the story, up to STORY_MAX. What is told is put into words when somebody reads it."""
        if len(self.story) < STORY_MAX:
            self.story.append((unix_ms, event, participant, detail))

    def carry(self, operations: Mapping[str, tuple[Operation, ...]], count: int) -> None:
        """Take the whole work, each participant's share of it."""
        self.operations = operations
        self.operation_count = count

    def add_operations(self, participant: str, operations: tuple[Operation, ...]) -> None:
        """Append to a participant's share of the work."""
        share = self.operations.get(participant, ()) + operations
        self.carry({**self.operations, participant: share}, self.operation_count + len(operations))

    def drop_operations(self) -> None:
        """Let go of the work: it has been handed over, or never will be."""
        self.operations = _NO_OPERATIONS

    def share_of(self, participant: str, participants: tuple[str, ...], log_id: str) -> Prepare:
        """What Prepare carries to one of the transaction's participants."""
        tx = self.transaction
        branch = tx.branches[participant]
        tenant, request_id = tx.request or ("", "")
        return Prepare(
            log_id,
            tx.xid,
            self.operations.get(participant, ()),
            tx.prepare_by_s,
            participants,
            tenant,
            request_id,
            tx.digest,
            branch.embedded > 0,
            branch.number,
            branch.embedded,
            self.fencing_tokens,
        )

    @property
    def has_bound(self) -> bool:
        """The request_id is bound by this transaction: its decision is in the log, and is told for good."""
        tx = self.transaction
        outcome = tx.outcome()
        is_final = outcome is not None and not outcome.retry and not self.is_bound_elsewhere
        return is_final and tx.sequence > 0 and tx.request is not None

    @property
    def is_bound_elsewhere(self) -> bool:
        """The request_id is bound by another transaction, whose row is the answer."""
        return self.transaction.answer.stored is not None

    @property
    def said_retry(self) -> bool:
        """Its client was told to send the same request again, though branches may still be owed."""
        return isinstance(self.ended, Ended) and self.ended.outcome.retry

    @property
    def decided_unix_ms(self) -> int:
        """When it was decided; 0 while it is not."""
        if self.stored_unix_ms:
            return self.stored_unix_ms
        return self.began_unix_ms + round((self.decided_s - self.began_s) * 1000) if self.decided_s else 0

    def await_end(self, told: Told) -> None:
        """Have ``told`` called with the outcome or the error: at once if it has been told before."""
        if self.ended is None:
            self.waiters += (told,)
        else:
            told(self._ended_by_now(self.ended))

    def waiter(self) -> asyncio.Future[Ended]:
        """A new future of the outcome; done at once if the outcome has been told before."""
        future, told = resolving()
        self.await_end(told)
        return future

    def _ended_by_now(self, ended: Ended | TransactionError) -> Ended | TransactionError:
        """The answer, with what the branches have acknowledged since it was given."""
        if isinstance(ended, TransactionError) or ended.outcome.replayed:
            return ended
        now = self.transaction.outcome()
        return ended if now is None else ended._replace(outcome=now)

    def end(self, ended: Ended | TransactionError) -> None:
        """Tell everybody who waits, and everybody who comes later, how it ended."""
        self.ended = ended
        waiters, self.waiters = self.waiters, ()
        for told in waiters:
            told(ended)

    def finished(self, now_s: float) -> Finished:
        """The account for telemetry. The transaction must have an outcome."""
        outcome = self._last_outcome()
        if outcome is None:
            raise AssertionError("a transaction finishes with an outcome")
        prepared_s = self.prepared_s or self.decided_s or self.began_s
        decided_s = self.decided_s or prepared_s
        return Finished(
            outcome,
            self.transaction.request.name if self.transaction.request else "",
            self.operation_count,
            now_s - self.began_s,
            prepared_s - self.began_s,
            decided_s - prepared_s,
            now_s - decided_s,
            self.transaction.resends.attempts,
        )

    def _last_outcome(self) -> Outcome | None:
        """The outcome, which need not be drawn up again where its client was told of the very end."""
        told = self.ended.outcome if isinstance(self.ended, Ended) else None
        if told is not None and told.xid == self.transaction.xid and told.phase in FINISHED and not told.replayed:
            return told
        return self.transaction.outcome()

    def view(self) -> TransactionView:
        """Everything known of it, for people."""
        tx = self.transaction
        undecided = tx.phase in (ACTIVE, PREPARING)
        return TransactionView(
            tx.xid,
            tx.phase,
            tx.outcome(),
            tx.branches.outcomes(),
            self.began_unix_ms,
            self.began_unix_ms + round((tx.deadline_s - self.began_s) * 1000) if undecided else None,
            tx.request.name if tx.request else "",
            tx.incarnation,
            tx.sequence,
            f"the lock on {self.locking}" if self.locking and tx.phase is ACTIVE else _waiting_for(tx),
            (StoryEvent(self.began_unix_ms, "began"), *[_written(event) for event in self.story]),
        )


class History:
    """The transactions that finished last, at most HISTORY_MAX, so that status calls need not ask the log."""

    __slots__ = ("_finished",)

    def __init__(self) -> None:
        self._finished: OrderedDict[Xid, Running] = OrderedDict()

    def add(self, running: Running) -> None:
        """Keep one more, and let the oldest go at the bound."""
        self._finished[running.transaction.xid] = running
        if len(self._finished) > HISTORY_MAX:
            self._finished.popitem(last=False)

    def get(self, xid: Xid) -> Running | None:
        """The finished transaction, if it is still kept."""
        return self._finished.get(xid)

    def newest_first(self) -> list[Running]:
        """All that are kept."""
        return list(reversed(self._finished.values()))


def _written(event: StoryLine) -> StoryEvent:
    unix_ms, what, participant, detail = event
    return StoryEvent(unix_ms, what, participant, _words(detail))


def _words(detail: Detail) -> str:
    match detail:
        case str():
            return detail
        case Vote():
            return f"{detail.kind.name} {detail.reason}".rstrip()
        case _:
            return detail.name


def resolving() -> tuple[asyncio.Future[Ended], Told]:
    """A future, and what gives it its result or its error."""
    future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    return future, partial(_resolve, future)


def _resolve(future: asyncio.Future[Ended], ended: Ended | TransactionError) -> None:
    if future.done():
        return
    if isinstance(ended, TransactionError):
        future.set_exception(ended)
        # A caller that has gone away leaves nobody to retrieve it, and that is no fault.
        future.exception()
    else:
        future.set_result(ended)


def _waiting_for(tx: Transaction) -> str:
    if tx.phase in FINISHED:
        return ""
    if tx.phase is ACTIVE:
        return "the client: commit or rollback"
    if tx.phase is DECIDING:
        return "the decision log"
    owed = tx.branches.silent if tx.decision is None else tx.branches.owed
    what = "the votes of" if tx.decision is None else f"the {_NOUN[tx.decision]} acknowledgement of"
    return f"{what} {', '.join(owed)}" if owed else "the decision log"


_NOUN: Final = {Decision.COMMIT: Verb.COMMIT.name.lower(), Decision.ROLLBACK: Verb.ROLLBACK.name.lower()}
