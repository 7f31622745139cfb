"""A participant over any SQL in one PostgreSQL database, by prepared transactions.

    async with PostgresXaResource.open("billing", dsn, {"pay": Statement("update …")}) as resource:
        ...

Each branch is a prepared transaction; what is kept of it stands in ``postgres_xa_migrations``,
how it is prepared in ``postgres_prepare`` and ``postgres_branch``, and how it ends in
``postgres_ending``. There are three sets of connections, because what waits for a lock must
never hold the connection that would release it: for work, for finishing (COMMIT PREPARED,
ROLLBACK PREPARED and the rows), and for work that a service does itself (``enlist``).

Other logs' branches, other participants' and foreign prepared transactions are left alone (R18).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Final, TypeVar

import psycopg
import structlog

from participant_sdk.branch import BranchCall, BranchPhase, call_of, step
from participant_sdk.clock import Clock, SystemClock
from participant_sdk.ids import BranchId, Xid, check_participant
from participant_sdk.migrations import migrate
from participant_sdk.participant import (
    Answers,
    Branch,
    Commit,
    Participant,
    Prepare,
    RecoverQuery,
    Rollback,
    Work,
)
from participant_sdk.resources import packed_arrays
from participant_sdk.resources.postgres_branch import BranchTransaction
from participant_sdk.resources.postgres_branches import BranchRows
from participant_sdk.resources.postgres_embedded import BranchEndedError, EmbeddedWork
from participant_sdk.resources.postgres_ending import Ending
from participant_sdk.resources.postgres_errors import EXPIRED_VOTE
from participant_sdk.resources.postgres_finish import Gone, finish
from participant_sdk.resources.postgres_lane import Connection, Lane
from participant_sdk.resources.postgres_operations import XaOperation
from participant_sdk.resources.postgres_prepare import EmbeddedKey, Preparing
from participant_sdk.settled import settled
from participant_sdk.xa import RETRY, STALE, UNKNOWN_XID, Ack, AckKind, Decision, Heuristic, Vote, XaCode

SWEEP_EVERY_S: Final = 10.0
SWEEP_GRACE_S: Final = 60.0

# These connections run our own SQL alone, which finds rows by index. A plan that was made for a table that was nearly
# empty would read it whole.
_FINISHING: Final = {
    # Functions that look twice must see twice.
    "default_transaction_isolation": "read committed",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

_Call = TypeVar("_Call", Prepare, Commit, Rollback)


class PreparedTransactionsDisabledError(Exception):
    """The server keeps no prepared transactions: max_prepared_transactions is 0, or it is a standby."""


@dataclass(frozen=True, slots=True)
class XaConnections:
    """How many connections each purpose may use, and how long a branch's statement waits for a lock."""

    work: int = 16
    finishing: int = 8
    embedded: int = 16
    lock_timeout_ms: int = 1000


class PostgresXaResource(Participant):
    """One participant on one database. Use ``open``."""

    def __init__(
        self,
        name: str,
        dsn: str,
        operations: Mapping[str, XaOperation],
        connections: XaConnections,
        clock: Clock,
    ) -> None:
        self.name = check_participant(name)
        self.operations = tuple(operations)
        # They wait for row locks, which a prepared branch holds to its end. While one has a connection, others' rows
        # are opened, or their noes are stored; and votes that leave together cost everybody less.
        self.prepares_at_once = 8 * connections.work
        self._clock = clock
        settings = {"lock_timeout": f"{connections.lock_timeout_ms}ms"}
        self._work = Lane(dsn, connections.work, settings)
        self._finishing = Lane(
            dsn,
            connections.finishing,
            {**settings, **_FINISHING},
            opening=_open_session,
            cursor_factory=psycopg.AsyncCursor,
        )
        self._embedding = Lane(dsn, connections.embedded, settings)
        self._embedded: dict[EmbeddedKey, EmbeddedWork] = {}
        self._enlisted = asyncio.Event()
        self._rows = BranchRows(name, self._finishing)
        self._ending = Ending(name, rows=self._rows, finishing=self._finishing)
        self._preparing = Preparing(
            name,
            operations,
            rows=self._rows,
            work=self._work,
            embedded=self._embedded,
            clock=clock,
        )

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        name: str,
        dsn: str,
        operations: Mapping[str, XaOperation],
        *,
        connections: XaConnections | None = None,
        clock: Clock | None = None,
    ) -> AsyncGenerator[PostgresXaResource]:
        """Bring the schema up to date, and serve until the context ends.

        PreparedTransactionsDisabledError where the server cannot; MigrationError, psycopg.OperationalError.
        """
        await _check_server(dsn)
        await migrate(dsn, files("participant_sdk.resources") / "postgres_xa_migrations", "pincex_xa")
        resource = cls(name, dsn, operations, connections or XaConnections(), clock or SystemClock())
        failure: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(part) for part in (resource._expire_for_ever(), resource._preparing.run())]
                try:
                    yield resource
                except Exception as error:  # noqa: BLE001 - raised again
                    # The user's own: raised below, where the group does not wrap it.
                    failure = error
                finally:
                    for task in tasks:
                        task.cancel()
        finally:
            await resource._close()
        if failure is not None:
            raise failure

    async def apply(self, work: Work) -> Answers:
        """Do the three parts at once: what prepares may wait for rows that the commits release."""
        if not (work.commits or work.rollbacks):
            return Answers(prepares=await self.prepare(work.prepares))
        async with asyncio.TaskGroup() as group:
            commits = group.create_task(settled(self.commit(work.commits)))
            rollbacks = group.create_task(settled(self.rollback(work.rollbacks)))
            prepares = group.create_task(settled(self.prepare(work.prepares)))
        return Answers(commits.result().get(), rollbacks.result().get(), prepares.result().get())

    async def prepare(self, branches: Sequence[Prepare]) -> Sequence[Vote]:
        """Run each branch's operations in a transaction, prepare it, and vote."""
        if len(branches) == 1:
            return [await self._preparing.prepare(branches[0])]
        async with asyncio.TaskGroup() as group:
            preparing = [group.create_task(settled(self._preparing.prepare(prepare))) for prepare in branches]
        return [task.result().get() for task in preparing]

    async def commit(self, branches: Sequence[Commit]) -> Sequence[Ack]:
        """Store the decisions, then commit what is prepared."""
        acks: dict[Xid, Ack] = {}
        for commits in _by_log(branches):
            acks.update(await self._commit(commits))
        return [acks.get(commit.xid, STALE) for commit in branches]

    async def rollback(self, branches: Sequence[Rollback]) -> Sequence[Ack]:
        """Roll back what is prepared or under way, and leave tombstones."""
        acks: dict[Xid, Ack] = {}
        for rollbacks in _by_log(branches):
            log_id = rollbacks[0].log_id
            for rollback in rollbacks:
                await self._drop_embedded((log_id, rollback.xid))
            found = await self._rows.look(log_id, [rollback.xid for rollback in rollbacks])
            acks.update(await self._ending.end(found, Decision.ROLLBACK))
        return [acks[rollback.xid] for rollback in branches]

    @asynccontextmanager
    async def enlisted(
        self, log_id: str, xid: Xid, branch_number: int, remaining_s: float
    ) -> AsyncGenerator[EmbeddedWork]:
        """Work under an xid after Enlist, until Prepare: ``enlist``, which an error or cancellation undoes."""
        work = await self.enlist(log_id, xid, branch_number, remaining_s)
        done = False
        try:
            yield work
            done = True
        finally:
            if not done:
                await self._drop_embedded((log_id, xid))

    async def enlist(self, log_id: str, xid: Xid, branch_number: int, remaining_s: float) -> EmbeddedWork:
        """Begin work under an xid that Enlist gave a number; the same again is the same work.

        It ends with Prepare, Rollback or its deadline. BranchEndedError where it has ended already.
        """
        key = (log_id, xid)
        held = self._embedded.get(key)
        if held is not None:
            if held.branch_number != branch_number:
                raise BranchEndedError(f"transaction {xid}: its branch is number {held.branch_number}")
            return held
        deadline_s = self._clock.monotonic_s() + remaining_s
        opening = Prepare(log_id, xid, (), deadline_s)
        (is_open,) = await self._rows.open([opening], now_s=self._clock.monotonic_s(), unix_ms=self._clock.unix_ms())
        if not is_open:
            raise BranchEndedError(f"transaction {xid}: its branch has ended, or another session is at work on it")
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(self._embedding.session())
            branch = BranchId(log_id, xid, self.name)
            transaction = BranchTransaction(branch, session, partial(self._rows.keep_results, log_id, xid))
            await transaction.begin_embedded(max(1, int(remaining_s * 1000)))
            work = EmbeddedWork(branch, branch_number, deadline_s, transaction, stack.pop_all())
        self._embedded[key] = work
        self._enlisted.set()
        return work

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        """List prepared and forced branches, and with ``finished`` those committed above the sequences."""
        xids = await self._rows.page(query)
        # One that has ended since is shown as it is now: a page must not shrink, or it would seem the last.
        return await self._rows.look(query.log_id, xids) if xids else []

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        """Show one branch."""
        (branch,) = await self._rows.look(log_id, [xid])
        return None if branch.phase is BranchPhase.NONE else branch

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        """Force a prepared branch. RETRY where a decision is known, for that one is to be carried out."""
        (branch,) = await self._rows.look(log_id, [xid])
        transition = step(branch.phase, call_of(outcome), branch.heuristic)
        if branch.phase is not BranchPhase.PREPARED or transition.phase is not BranchPhase.HEURISTIC:
            return transition.ack or UNKNOWN_XID
        if branch.sequence:
            return Ack(AckKind.RETRY, XaCode.RETRY, "COMMIT was decided, and is being carried out")
        heuristic = Heuristic.COMMIT if outcome is Decision.COMMIT else Heuristic.ROLLBACK
        # Its row cannot be written while it is prepared; should we be lost once it has ended, this tells how.
        await self._rows.intend(log_id, xid, heuristic, reason)
        (ended,) = await finish(self._finishing, [BranchId(log_id, xid, self.name).gid], outcome)
        if ended is Gone.GONE:
            return RETRY
        if ended is not None:
            return ended
        await self._rows.force(log_id, xid, heuristic, reason)
        _log.warning("branch_forced", transaction_id=str(xid), outcome=outcome.name, reason=reason)
        return transition.ack or UNKNOWN_XID

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        """End a heuristic branch as what it was forced to."""
        (branch,) = await self._rows.look(log_id, [xid])
        if branch.phase is BranchPhase.HEURISTIC:
            await self._rows.forget(log_id, xid)
        return step(branch.phase, BranchCall.FORGET, branch.heuristic).ack or UNKNOWN_XID

    async def prune(self, log_id: str, below_unix_ms: int, limit: int) -> int:
        """Drop finished branches, their decisions and results; watermarks stay."""
        return await self._rows.prune(log_id, Xid.floor(below_unix_ms), limit)

    async def log_ids(self) -> Sequence[str]:
        """Every log with branches that are not finished."""
        return await self._rows.log_ids()

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        """The highest sequence stored, per incarnation."""
        return await self._rows.watermarks(log_id)

    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        """Adopt a higher epoch, durably, once no decision of a lower one can be stored any more."""
        return await self._rows.adopt_epoch(log_id, epoch)

    async def expire(self) -> int:
        """Roll back embedded work past its deadline, and rows that a crash left begun; return how many (R13)."""
        now_s = self._clock.monotonic_s()
        late = [key for key, work in self._embedded.items() if now_s >= work.deadline_s]
        for key in late:
            await self._drop_embedded(key)
            await self._rows.undo(key[0], [(key[1], EXPIRED_VOTE)])
        return len(late) + len(await self._rows.expire(EXPIRED_VOTE, SWEEP_GRACE_S))

    async def _commit(self, commits: Sequence[Commit]) -> dict[Xid, Ack]:
        """Commit branches of one log; those of an epoch below the one adopted are left out (R15)."""
        log_id, epoch = commits[0].log_id, 0
        while current := [commit for commit in commits if commit.epoch >= epoch]:
            found = await self._rows.decide(log_id, current)
            if found:
                return await self._ending.end(found, Decision.COMMIT)
            # It only rises, so each time there are fewer.
            epoch = await self._rows.adopt_epoch(log_id, 0)
        return {}

    async def _drop_embedded(self, key: EmbeddedKey) -> None:
        work = self._embedded.pop(key, None)
        if work is not None:
            await work.end()

    async def _expire_for_ever(self) -> None:
        while True:
            try:
                await self.expire()
            except psycopg.Error as error:
                # The database is out of reach; the next round tries again.
                _log.warning("expiry_failed", participant=self.name, error=str(error))
            now_s = self._clock.monotonic_s()
            nearest_s = min((work.deadline_s - now_s for work in self._embedded.values()), default=SWEEP_EVERY_S)
            self._enlisted.clear()
            try:
                async with asyncio.timeout(max(0.0, min(nearest_s, SWEEP_EVERY_S))):
                    await self._enlisted.wait()
            except TimeoutError:
                continue

    async def _close(self) -> None:
        for key in list(self._embedded):
            await self._drop_embedded(key)
        for lane in (self._work, self._finishing, self._embedding):
            await lane.close()


def _by_log(calls: Sequence[_Call]) -> list[list[_Call]]:
    """Group calls by their log, for names are looked up within one."""
    groups: dict[str, list[_Call]] = {}
    for call in calls:
        groups.setdefault(call.log_id, []).append(call)
    return list(groups.values())


async def _open_session(connection: Connection) -> None:
    packed_arrays.register(connection)


async def _check_server(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=5) as connection:
        cursor = await connection.execute(
            "select current_setting('max_prepared_transactions')::integer, pg_is_in_recovery()"
        )
        row = await cursor.fetchone()
    if row is None or row[1]:
        raise PreparedTransactionsDisabledError("the server is a standby; name the primary in the DSN")
    if row[0] < 1:
        raise PreparedTransactionsDisabledError(
            "max_prepared_transactions is 0; set it to at least max_connections, and restart the server"
        )
