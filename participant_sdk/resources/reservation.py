"""Participation by reservation: a whole batch is one call of one SQL function, and so one flush.

Prepare checks and reserves, Commit posts, Rollback voids; a reserved row blocks nobody. The
branch's row in ``pincex.branches`` is written in the same local transaction as its effect: it
is vote, marker, duplicate guard and tombstone at once (R8 to R11). The SDK owns that schema
and the function's order of work; a service supplies the planning of its operations, and one
SQL function in its own schema (see ``reservation_migrations/0002_apply_batch.sql``).

One database holds one participant, and may be served by several processes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, TypeVar

import psycopg
from psycopg import sql

from participant_sdk.branch import BranchCall, call_of
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.migrations import migrate
from participant_sdk.participant import (
    Answers,
    Branch,
    Commit,
    Operation,
    Participant,
    Prepare,
    RecoverQuery,
    Rollback,
    Work,
)
from participant_sdk.resources import packed_arrays
from participant_sdk.resources.admission import no_such_work, request_busy
from participant_sdk.resources.fencing import fence, shows_tokens
from participant_sdk.resources.postgres_errors import is_unreachable, is_worth_repeating, no_of
from participant_sdk.resources.postgres_lane import Connection, Lane
from participant_sdk.resources.reservation_batch import Batch, Found, Planned, StaleError, ack_of, by_log
from participant_sdk.resources.reservation_reading import BranchReading
from participant_sdk.xa import RETRY, STALE, Ack, Decision, Vote, XaCode, invalid, transient_no

ATTEMPTS_MAX: Final = 3
CONNECTIONS_DEFAULT: Final = 4

# Batches are looked up by index, row by row, in pages that are in memory. The planner takes an array for ten
# elements and prefers reading a small table whole; with these it does so only up to a few dozen rows. A table that
# was analyzed when it was nearly empty would even be read whole and kept aside, to be compared with each element.
_SETTINGS: Final = {
    "lock_timeout": "2s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    # Functions that look twice must see twice.
    "default_transaction_isolation": "read committed",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "random_page_cost": "0.1",
    "seq_page_cost": "0.1",
}

_FOLDER: Final = files("participant_sdk.resources")
_MIGRATIONS: Final = _FOLDER / "reservation_migrations"

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def _statement(name: str) -> bytes:
    return (_FOLDER / "reservation_sql" / f"{name}.sql").read_bytes()


_APPLY_BATCH: Final = _statement("apply_batch")
_ADOPT_EPOCH: Final = _statement("adopt_epoch")


@dataclass(frozen=True, slots=True)
class ReservationService:
    """What a service supplies.

    ``schema`` is where its tables and its SQL function are, made by ``migrations``. ``invariants`` is a
    statement that tells what is broken; see ``invariants.py``. ``plan`` turns a
    branch's operations into rows for it, or a "no"; log id and xid name the branch. It is pure, and is called for
    every branch.
    """

    schema: str
    migrations: Traversable
    invariants: Traversable
    operations: tuple[str, ...]
    plan: Callable[[str, Xid, Sequence[Operation]], Planned]


class ReservationResource(Participant):
    """A service's branches in its PostgreSQL database. ``apply`` may run as often at once as there are connections."""

    def __init__(self, name: str, service: ReservationService, lane: Lane, clock: Clock) -> None:
        self.name = name
        self.operations = service.operations
        self._plan = service.plan
        self._lane = lane
        self._reading = BranchReading(lane)
        self._clock = clock
        self._log_numbers: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        name: str,
        service: ReservationService,
        dsn: str,
        clock: Clock,
        *,
        connections: int = CONNECTIONS_DEFAULT,
    ) -> AsyncGenerator[ReservationResource]:
        """Bring the database up to date and serve it, over this many connections, until the block ends.

        MigrationError, or psycopg.OperationalError when the database cannot be reached.
        """
        await migrate(dsn, _MIGRATIONS, "pincex")
        await migrate(dsn, service.migrations, service.schema)
        path = f"{sql.Identifier(service.schema).as_string()}, pincex"
        # One lane for everything, as nothing waits in it for long: a reserved row blocks nobody.
        lane = Lane(
            dsn,
            connections,
            {**_SETTINGS, "search_path": path},
            opening=_open_session,
            cursor_factory=psycopg.AsyncCursor,
        )
        try:
            yield cls(name, service, lane, clock)
        finally:
            await lane.close()

    async def apply(self, work: Work) -> Answers:
        """Do a whole batch with one flush. What the database refuses is its own branch's "no" (R17)."""
        shares = by_log(work)
        if len(shares) == 1:
            return await self._apply_share(*shares.popitem())
        done = {log_id: await self._apply_share(log_id, share) for log_id, share in shares.items()}
        commits = {log_id: iter(answers.commits) for log_id, answers in done.items()}
        rollbacks = {log_id: iter(answers.rollbacks) for log_id, answers in done.items()}
        prepares = {log_id: iter(answers.prepares) for log_id, answers in done.items()}
        return Answers(
            [next(commits[commit.log_id]) for commit in work.commits],
            [next(rollbacks[rollback.log_id]) for rollback in work.rollbacks],
            [next(prepares[prepare.log_id]) for prepare in work.prepares],
        )

    async def prepare(self, branches: Sequence[Prepare]) -> Sequence[Vote]:
        """Check, reserve and vote."""
        return (await self.apply(Work(prepares=branches))).prepares

    async def commit(self, branches: Sequence[Commit]) -> Sequence[Ack]:
        """Post what was reserved."""
        return (await self.apply(Work(commits=branches))).commits

    async def rollback(self, branches: Sequence[Rollback]) -> Sequence[Ack]:
        """Void what was reserved, or leave a tombstone."""
        return (await self.apply(Work(rollbacks=branches))).rollbacks

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        """List branches in doubt and ended by hand and, where asked, committed ones, by xid."""
        return await self._reading.recover(await self._log_number(query.log_id), query)

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        """Show one branch; None where it is not known."""
        return await self._reading.branch(await self._log_number(log_id), log_id, xid)

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        """Force a branch in doubt, and keep the reason."""
        found = await self._ask(
            b"select was, how from pincex.resolve_branch(%s::smallint, %s::uuid, %s::smallint, %s)",
            (await self._log_number(log_id), str(xid), int(outcome), reason),
        )
        return ack_of(*found, call_of(outcome))

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        """End a heuristic branch as what it was forced to."""
        found = await self._ask(
            b"select was, how from pincex.forget_branch(%s::smallint, %s::uuid)",
            (await self._log_number(log_id), str(xid)),
        )
        return ack_of(*found, BranchCall.FORGET)

    async def log_ids(self) -> Sequence[str]:
        """Every log that has introduced itself, or whose branches came."""
        return await self._reading.log_ids()

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        """The highest sequence applied, per incarnation, over all workers."""
        return await self._reading.watermarks(await self._log_number(log_id))

    async def prune(self, log_id: str, below_unix_ms: int, limit: int) -> int:
        """Drop finished branches, by the primary key; the service's own rows stay."""
        parameters = (await self._log_number(log_id), str(Xid.floor(below_unix_ms)), limit)
        async with self._lane.session() as session:
            statement = "select pincex.prune(%s::smallint, %s::uuid, %s)"
            row = await (await session.connection.execute(statement, parameters)).fetchone()
            outdated = (parameters[0], below_unix_ms, limit)
            await session.connection.execute("select pincex.prune_fencing(%s::smallint, %s, %s)", outdated)
            return 0 if row is None else int(row[0])

    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        """Adopt a higher epoch, durably, once the batches with Commits that have begun are over."""
        number, held = await self._ask(_ADOPT_EPOCH, {"log_id": log_id, "epoch": epoch})
        self._log_numbers[log_id] = number
        return held

    async def _log_number(self, log_id: str) -> int:
        if log_id not in self._log_numbers:
            await self.adopt_epoch(log_id, 0)
        return self._log_numbers[log_id]

    async def _apply_share(self, log_id: str, work: Work) -> Answers:
        planned = [self._planned(prepare) for prepare in work.prepares]
        batch = Batch(work.commits, work.rollbacks, work.prepares, planned)
        try:
            log = await self._log_number(log_id)
            try:
                return await self._run(log, batch)
            except psycopg.Error as error:
                if is_unreachable(error):
                    raise
                return await self._run_apart(log, batch)
        except psycopg.Error as error:
            if not is_unreachable(error):
                raise
            # What was asked may have happened. Nothing is promised: commits and rollbacks come again, and a
            # branch that was prepared after all is rolled back, or asks.
            no = transient_no(
                "DATABASE_UNAVAILABLE", f"{self.name} cannot reach its database", xa_code=XaCode.XAER_RMFAIL
            )
            return Answers([RETRY] * len(work.commits), [RETRY] * len(work.rollbacks), [no] * len(work.prepares))

    def _planned(self, prepare: Prepare) -> Planned:
        if prepare.ends_work:
            # There is no work before Prepare here, so none can match (R13).
            refused = no_such_work(prepare, found_number=0, found_count=0)
            return Planned(()) if refused is None else Planned((), refused)
        if not prepare.operations:
            return Planned((), invalid("NO_OPERATIONS", "the branch has no operations", "operations"))
        return self._plan(prepare.log_id, prepare.xid, prepare.operations)

    async def _run(self, log: int, batch: Batch) -> Answers:
        """Run a batch in one call, and again where that may help. psycopg.Error when it does not."""
        try:
            answers, busy = await self._repeat(log, batch)
        except StaleError as stale:
            return await self._run_current(log, batch, stale.epoch)
        if busy:
            held = [batch.prepares[at] for at in busy]
            votes = await self._refuse(log, [(prepare, request_busy(prepare)) for prepare in held])
            prepares = list(answers.prepares)
            for at, vote in zip(busy, votes, strict=True):
                prepares[at] = vote
            answers = Answers(answers.commits, answers.rollbacks, prepares)
        return answers

    async def _run_current(self, log: int, batch: Batch, epoch: int) -> Answers:
        """Run a batch again without what is stale; it comes to an end, because epochs only rise (R15)."""
        answers = await self._run(log, batch.without_stale(epoch))
        acks = iter(answers.commits)
        commits = [next(acks) if commit.epoch >= epoch else STALE for commit in batch.commits]
        return Answers(commits, answers.rollbacks, answers.prepares)

    async def _repeat(self, log: int, batch: Batch) -> tuple[Answers, list[int]]:
        for left in reversed(range(ATTEMPTS_MAX)):
            try:
                return await self._call(log, batch)
            except psycopg.Error as error:
                if left == 0 or not is_worth_repeating(error):
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _call(self, log: int, batch: Batch) -> tuple[Answers, list[int]]:
        if shows_tokens(batch.prepares):
            return await self._call_fenced(log, batch)
        parameters = batch.parameters(log, self._clock.unix_ms())
        async with self._lane.session() as session:
            with session.confirmed():
                found = await session.call(_APPLY_BATCH, parameters, Found._make)
            return batch.answers(found)

    async def _call_fenced(self, log: int, batch: Batch) -> tuple[Answers, list[int]]:
        """Check the tokens of locks, and run what is left, in one transaction."""
        now_unix_ms = self._clock.unix_ms()
        async with self._lane.session() as session:
            with session.confirmed():
                async with session.connection.transaction():
                    async with session.connection.cursor(binary=True) as cursor:
                        batch = await fence(cursor, log, batch, now_unix_ms)
                    found = await session.call(_APPLY_BATCH, batch.parameters(log, now_unix_ms), Found._make)
                    # Raised within the transaction, a stale epoch undoes the tokens too.
                    answers = batch.answers(found)
            return answers

    async def _refuse(self, log: int, refused: Sequence[tuple[Prepare, Vote]]) -> Sequence[Vote]:
        """Store a "no" for each of these, so that its duplicate gets the same (R8); an earlier vote stands."""
        prepares = [prepare for prepare, _ in refused]
        answers, _ = await self._repeat(
            log, Batch(prepares=prepares, planned=[Planned((), vote) for _, vote in refused])
        )
        return answers.prepares

    async def _run_apart(self, log: int, batch: Batch) -> Answers:
        """Run what failed together in parts, so that only what is bad in itself fails (R17)."""

        async def commit(part: Sequence[Commit]) -> Sequence[Ack]:
            return (await self._run(log, Batch(commits=part))).commits

        async def rollback(part: Sequence[Rollback]) -> Sequence[Ack]:
            return (await self._run(log, Batch(rollbacks=part))).rollbacks

        async def prepare(part: Sequence[tuple[Prepare, Planned]]) -> Sequence[Vote]:
            prepares, planned = zip(*part, strict=True)
            return (await self._run(log, Batch(prepares=prepares, planned=planned))).prepares

        async def refuse(item: tuple[Prepare, Planned], error: psycopg.Error) -> Vote:
            return (await self._refuse(log, [(item[0], no_of(error, "operations"))]))[0]

        async def later(_: Commit | Rollback, error: psycopg.Error) -> Ack:
            return RETRY._replace(message=str(error))

        return Answers(
            await _by_halves(batch.commits, commit, later),
            await _by_halves(batch.rollbacks, rollback, later),
            await _by_halves(list(zip(batch.prepares, batch.planned, strict=True)), prepare, refuse),
        )

    async def _ask(self, statement: bytes, parameters: Mapping[str, object] | Sequence[object]) -> tuple[int, int]:
        """Run a statement that returns one row of two numbers, which are durable then."""
        async with self._lane.session() as session:
            with session.confirmed():
                row = await (await session.connection.execute(statement, parameters)).fetchone()
            if row is None:
                raise AssertionError("the statement returns a row")
            return row[0], row[1]


async def _open_session(connection: Connection) -> None:
    """Make a session of a worker: it sends packed columns, and its watermarks have rows of their own."""
    packed_arrays.register(connection)
    await connection.execute("select pincex.claim_worker()")


async def _by_halves(
    items: Sequence[Item],
    run: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
    refuse: Callable[[Item, psycopg.Error], Awaitable[Answer]],
) -> Sequence[Answer]:
    """Run the items together, or by ever smaller halves; answer for one that fails alone with ``refuse``."""
    if not items:
        return ()
    try:
        return await run(items)
    except psycopg.Error as error:
        if is_unreachable(error):
            raise
        if len(items) == 1:
            return [await refuse(items[0], error)]
    middle = len(items) // 2
    return [*await _by_halves(items[:middle], run, refuse), *await _by_halves(items[middle:], run, refuse)]
