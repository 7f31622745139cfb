"""Prepare in a PostgreSQL XA resource: admit, run the branch on a connection of its own, store a no.

Three steps for a branch: its row, visibly; its transaction; its vote, where that is not PREPARED.
The rows of all branches that come meanwhile are one statement's. A no that could not be stored
becomes a transient one, for a later Prepare may get another answer.

A branch whose end is not known is left as it is: another session may have prepared it, and its
vote may have been sent (R12). The transient "no" is always followed by Rollback, or by our inquiry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

import psycopg
import structlog

from participant_sdk.branch import BranchPhase
from participant_sdk.clock import Clock
from participant_sdk.ids import BranchId, Xid
from participant_sdk.participant import Branch, Prepare
from participant_sdk.resources.admission import late, no_such_work, request_busy
from participant_sdk.resources.postgres_branch import BranchTransaction, UnknownError
from participant_sdk.resources.postgres_branches import BranchRows
from participant_sdk.resources.postgres_embedded import EmbeddedWork
from participant_sdk.resources.postgres_errors import IN_PROGRESS_VOTE
from participant_sdk.resources.postgres_gathering import Gathering
from participant_sdk.resources.postgres_lane import Lane
from participant_sdk.resources.postgres_operations import RefusedError, XaOperation, read_calls
from participant_sdk.resources.stored_votes import TOMBSTONE_VOTE
from participant_sdk.xa import Vote, VoteKind, XaCode, transient_no

_log: structlog.stdlib.BoundLogger = structlog.get_logger()

EmbeddedKey = tuple[str, Xid]


class Preparing:
    """Prepares branches of one participant; ``run`` must run.

    ``embedded`` is the work under way, taken from here as it is ended.
    """

    def __init__(
        self,
        participant: str,
        served: Mapping[str, XaOperation],
        *,
        rows: BranchRows,
        work: Lane,
        embedded: dict[EmbeddedKey, EmbeddedWork],
        clock: Clock,
    ) -> None:
        self._participant = participant
        self._served = served
        self._rows = rows
        self._work = work
        self._embedded = embedded
        self._clock = clock
        self._opening = Gathering[Prepare, bool](self._open)
        self._storing = Gathering[tuple[Xid, Vote | None], bool](rows.undo)

    async def run(self) -> None:
        """Gather what is asked of the rows, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._opening.run())
            group.create_task(self._storing.run())

    async def prepare(self, prepare: Prepare) -> Vote:
        """Vote on a branch. psycopg.Error when nothing could even begin."""
        found = None
        opened = await self._opening.ask(prepare.log_id, prepare)
        if opened:
            vote = await self._run(prepare)
        else:
            (found,) = await self._rows.look(prepare.log_id, [prepare.xid])
            vote = _stored(prepare, found)
        if vote.kind is VoteKind.PREPARED or not (found is None or found.phase is BranchPhase.NONE):
            return vote
        return await self._store(prepare, vote)

    async def _open(self, _log_id: str, prepares: Sequence[Prepare]) -> list[bool]:
        now_s, unix_ms = self._clock.monotonic_s(), self._clock.unix_ms()
        return await self._rows.open(prepares, now_s=now_s, unix_ms=unix_ms)

    async def _run(self, prepare: Prepare) -> Vote:
        embedded = self._embedded.pop((prepare.log_id, prepare.xid), None)
        if embedded is not None or prepare.ends_work:
            return await self._end_embedded(prepare, embedded)
        try:
            calls = read_calls(prepare.operations, self._served)
        except RefusedError as error:
            return error.vote
        branch = BranchId(prepare.log_id, prepare.xid, self._participant)
        try:
            async with asyncio.timeout(self._remaining_s(prepare)), self._work.session() as session:
                transaction = BranchTransaction(
                    branch, session, partial(self._rows.keep_results, prepare.log_id, prepare.xid)
                )
                return await transaction.run(calls, self._timeout_ms(prepare))
        except (UnknownError, TimeoutError, psycopg.Error) as error:
            return _in_doubt(prepare, error)

    async def _end_embedded(self, prepare: Prepare, embedded: EmbeddedWork | None) -> Vote:
        number, count = (embedded.branch_number, embedded.count) if embedded else (0, 0)
        refused = no_such_work(prepare, found_number=number, found_count=count)
        if embedded is None:
            return refused or IN_PROGRESS_VOTE
        try:
            async with AsyncExitStack() as stack, asyncio.timeout(self._remaining_s(prepare)):
                stack.push_async_callback(embedded.end)
                embedded.has_ended = True
                if refused is not None or embedded.is_busy:
                    return refused or IN_PROGRESS_VOTE
                return await embedded.transaction.vote()
        except (UnknownError, TimeoutError) as error:
            return _in_doubt(prepare, error)

    async def _store(self, prepare: Prepare, vote: Vote) -> Vote:
        """Store a fresh vote that is not PREPARED, so that a second Prepare gets it too (R8).

        A session left behind finds such a branch ended, and cannot prepare it any more; one that is
        prepared, or about to be, keeps its row as it is.
        """
        is_stored = await self._storing.ask(prepare.log_id, (prepare.xid, vote))
        return vote if is_stored or vote.transient else IN_PROGRESS_VOTE

    def _remaining_s(self, prepare: Prepare) -> float:
        return max(0.0, prepare.deadline_s - self._clock.monotonic_s())

    def _timeout_ms(self, prepare: Prepare) -> int:
        # Zero would mean none at all.
        return max(1, int(self._remaining_s(prepare) * 1000))


def _stored(prepare: Prepare, branch: Branch) -> Vote:
    """The vote on a branch that was not opened: its own, or why it may not begin."""
    match branch.phase:
        case BranchPhase.NONE:
            return request_busy(prepare)
        case BranchPhase.ACTIVE:
            return IN_PROGRESS_VOTE
        case _:
            return branch.vote or TOMBSTONE_VOTE


def _in_doubt(prepare: Prepare, error: Exception) -> Vote:
    """The "no" of a branch that may be prepared all the same, now or in a moment."""
    _log.warning("branch_in_doubt", transaction_id=str(prepare.xid), error=str(error))
    if isinstance(error, TimeoutError):
        return late(prepare)
    return transient_no(
        "CONNECTION_LOST",
        f"transaction {prepare.xid}: the participant lost its database: {error}",
        xa_code=XaCode.XAER_RMFAIL,
    )
