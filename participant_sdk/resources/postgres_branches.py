"""The rows of a PostgreSQL XA resource: one call of one SQL function each, for any number of branches.

See ``postgres_xa_migrations`` for what the rows mean, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar

import psycopg

from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, Commit, Prepare, RecoverQuery
from participant_sdk.resources.packed_arrays import bigint, bigints, byteas, smallints, texts, uuids
from participant_sdk.resources.postgres_errors import EPOCH_IS_HIGHER
from participant_sdk.resources.postgres_lane import Lane
from participant_sdk.resources.stored_votes import answer_of, vote_of
from participant_sdk.xa import PREPARED, Heuristic, Vote, VoteKind

_LOOK: Final = b"select * from pincex_xa.look($1, $2, $3)"
_DECIDE: Final = b"select * from pincex_xa.decide_expected($1, $2, $3, $4, $5, $6)"
_OPEN: Final = b"select pincex_xa.open($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_UNDO: Final = b"select pincex_xa.undo($1, $2, $3, $4, $5)"
_LOG_IDS: Final = (
    "select distinct log_id from pincex_xa.branches where participant = %s and phase in (1, 5) order by log_id"
)
_PAGE: Final = "select pincex_xa.page(%s, %s, %s, %s::bigint[], %s::bigint[], %s::uuid, %s)::text"

Row = TypeVar("Row")


class BranchRows:
    """One participant's rows, over a lane whose sessions send packed columns.

    What a method wrote, and what a branch is answered by, is durable when it returns. But for what ``open`` and
    ``decide`` wrote: that is durable with the branch's PREPARE, or its end.

    psycopg.Error of every method.
    """

    __slots__ = ("_lane", "_participant")

    def __init__(self, participant: str, lane: Lane) -> None:
        self._participant = participant
        self._lane = lane

    async def open(self, prepares: Sequence[Prepare], *, now_s: float, unix_ms: int) -> list[bool]:
        """Write the ACTIVE rows, visibly, before any work; tell which branches may run. Durable by their PREPARE.

        An error where one of several cannot be opened because of what another session, or another of them, opens now:
        open each by itself.
        """
        try:
            opened = await self._places(
                _OPEN,
                prepares[0].log_id,
                uuids([prepare.xid for prepare in prepares]),
                bigints([max(0, int((prepare.deadline_s - now_s) * 1000)) for prepare in prepares]),
                texts([",".join(prepare.participants) for prepare in prepares]),
                texts([prepare.tenant for prepare in prepares]),
                texts([prepare.request_id for prepare in prepares]),
                byteas([prepare.request_digest for prepare in prepares]),
                bigint(unix_ms),
            )
        except (psycopg.errors.UniqueViolation, psycopg.errors.LockNotAvailable):
            # Two raced for one request, or for one branch.
            if len(prepares) > 1:
                raise
            return [False]
        return [at in opened for at in range(1, len(prepares) + 1)]

    async def look(self, log_id: str, xids: Sequence[Xid]) -> list[Branch]:
        """Read branches, one for each xid; phase NONE where there is none."""
        rows = await self._rows(_LOOK, log_id, uuids(xids))
        return [row.branch(log_id, xid) for row, xid in zip(rows, xids, strict=True)]

    async def decide(self, log_id: str, commits: Sequence[Commit]) -> list[Branch]:
        """Store the decisions of branches that are prepared, and tell of the branches.

        Nothing is stored and told where one is of an epoch below the one adopted (R15). Of a branch that is
        prepared and has its row, as almost all are, no more is told than its end needs; its decision is durable
        with that end, by COMMIT PREPARED, or with the next look.
        """
        try:
            rows = await self._rows(
                _DECIDE,
                log_id,
                bigint(min(commit.epoch for commit in commits)),
                uuids([commit.xid for commit in commits]),
                bigints([commit.incarnation for commit in commits]),
                bigints([commit.sequence for commit in commits]),
            )
        except psycopg.DatabaseError as error:
            if error.sqlstate == EPOCH_IS_HIGHER:
                return []
            raise
        others = {row.at: row.branch(log_id, commits[row.at - 1].xid) for row in rows}
        return [others.get(at) or _expected(log_id, commit) for at, commit in enumerate(commits, 1)]

    async def undo(self, log_id: str, votes: Sequence[tuple[Xid, Vote | None]]) -> list[bool]:
        """End branches that are not prepared as ROLLED_BACK, with their votes, None for a tombstone.

        Tell which have ended now; the others had ended before, or are just about to be prepared.
        """
        undone = await self._places(
            _UNDO,
            log_id,
            uuids([xid for xid, _ in votes]),
            smallints([None if vote is None else int(vote.kind) for _, vote in votes]),
            texts([None if vote is None else answer_of(vote) for _, vote in votes]),
        )
        return [at in undone for at in range(1, len(votes) + 1)]

    async def expire(self, vote: Vote, grace_s: float) -> list[str]:
        """End branches whose time ran out ``grace_s`` ago and that were never prepared; return their xids' texts."""
        query = "select pincex_xa.expire(%s, %s, %s * interval '1 second')::text"
        async with self._lane.session() as session:
            with session.confirmed():
                cursor = await session.connection.execute(query, (self._participant, answer_of(vote), grace_s))
            return [row[0] for row in await cursor.fetchall()]

    async def keep_results(self, log_id: str, xid: Xid, results: Sequence[str]) -> None:
        """Store what a branch's operations returned, before it is prepared; a later try replaces an earlier one's."""
        await self._do(
            "insert into pincex_xa.returned values (%s, %s, %s, %s)"
            " on conflict (participant, log_id, xid) do update set results = excluded.results",
            log_id,
            str(xid),
            list(results),
        )

    async def intend(self, log_id: str, xid: Xid, heuristic: Heuristic, reason: str) -> None:
        """Keep what an operator is about to force: once the branch has ended so, it is shown as a heuristic."""
        await self._do(
            "select pincex_xa.intend(%s, %s, %s::uuid, %s::smallint, %s)", log_id, str(xid), int(heuristic), reason
        )

    async def force(self, log_id: str, xid: Xid, heuristic: Heuristic, reason: str) -> None:
        """Keep what an operator forced, after it was done."""
        await self._do(
            "select pincex_xa.force(%s, %s, %s::uuid, %s::smallint, %s)", log_id, str(xid), int(heuristic), reason
        )

    async def forget(self, log_id: str, xid: Xid) -> None:
        """End a heuristic branch as what it was forced to."""
        await self._do("select pincex_xa.forget(%s, %s, %s::uuid)", log_id, str(xid))

    async def restore(self, log_id: str, xid: Xid) -> None:
        """Write the marker of a branch that was committed as decided and whose row was lost."""
        await self._do("select pincex_xa.restore(%s, %s, %s::uuid)", log_id, str(xid))

    async def prune(self, log_id: str, below: Xid, limit: int) -> int:
        """Drop finished branches below an xid, with decisions and results; return how many. Not forced to disk."""
        async with self._lane.session() as session:
            cursor = await session.connection.execute(
                "select pincex_xa.prune(%s, %s, %s::uuid, %s)", (self._participant, log_id, str(below), limit)
            )
            row = await cursor.fetchone()
        return 0 if row is None else int(row[0])

    async def page(self, query: RecoverQuery) -> list[Xid]:
        """List the xids of a page."""
        parameters = (
            self._participant,
            query.log_id,
            query.finished,
            list(query.above),
            list(query.above.values()),
            None if query.after is None else str(query.after),
            query.limit,
        )
        async with self._lane.session() as session:
            cursor = await session.connection.execute(_PAGE, parameters)
            return [Xid.parse(row[0]) for row in await cursor.fetchall()]

    async def log_ids(self) -> list[str]:
        """The logs of branches that are not finished."""
        async with self._lane.session() as session:
            cursor = await session.connection.execute(_LOG_IDS, [self._participant])
            return [log_id for (log_id,) in await cursor.fetchall()]

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        """The highest sequence stored, per incarnation."""
        async with self._lane.session() as session:
            with session.confirmed():
                cursor = await session.connection.execute(
                    "select * from pincex_xa.watermarks(%s, %s)", (self._participant, log_id)
                )
            return {row[0]: row[1] for row in await cursor.fetchall()}

    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        """Adopt a higher epoch; return the one held afterwards."""
        async with self._lane.session() as session:
            with session.confirmed():
                cursor = await session.connection.execute(
                    "select pincex_xa.adopt(%s, %s, %s)", (self._participant, log_id, epoch)
                )
            row = await cursor.fetchone()
        return epoch if row is None else int(row[0])

    async def _do(self, query: str, log_id: str, *parameters: object) -> None:
        async with self._lane.session() as session:
            with session.confirmed():
                await session.connection.execute(query.encode(), (self._participant, log_id, *parameters))

    async def _places(self, statement: bytes, log_id: str, *parameters: bytes) -> frozenset[int]:
        """Run a function that returns places. The set is only tested for membership."""
        return frozenset(await self._call(statement, log_id, parameters, itemgetter(0)))

    async def _rows(self, statement: bytes, log_id: str, *parameters: bytes) -> list[_Row]:
        return await self._call(statement, log_id, parameters, _Row._make)

    async def _call(
        self, statement: bytes, log_id: str, parameters: Sequence[bytes], row: Callable[[Sequence[Any]], Row]
    ) -> list[Row]:
        async with self._lane.session() as session:
            with session.confirmed():
                named = (self._participant.encode(), log_id.encode(), *parameters)
                return await session.call(statement, named, row)


def _expected(log_id: str, commit: Commit) -> Branch:
    """A branch that is prepared and has its row, which is not read: it has some time, and the decision just stored."""
    return Branch(
        log_id,
        commit.xid,
        BranchPhase.PREPARED,
        PREPARED,
        incarnation=commit.incarnation,
        sequence=commit.sequence,
        prepared_unix_ms=commit.xid.unix_ms,
    )


class _Row(NamedTuple):
    """A row of pincex_xa.found."""

    at: int
    phase: int
    is_prepared: bool
    vote: int | None
    answer: str | None
    heuristic: int | None
    reason: str | None
    participants: list[str] | None
    tenant: str | None
    request_id: str | None
    request_digest: bytes | None
    prepared_unix_ms: int | None
    results: list[str] | None
    incarnation: int | None
    sequence: int | None

    def branch(self, log_id: str, xid: Xid) -> Branch:
        phase = BranchPhase.PREPARED if self.is_prepared else BranchPhase(self.phase)
        return Branch(
            log_id,
            xid,
            phase,
            self._stored_vote(phase),
            None if self.heuristic is None else Heuristic(self.heuristic),
            self.reason or "",
            tuple(self.participants or ()),
            self.tenant or "",
            self.request_id or "",
            self.request_digest or b"",
            self.incarnation or 0,
            self.sequence or 0,
            self.prepared_unix_ms or 0,
        )

    def _stored_vote(self, phase: BranchPhase) -> Vote | None:
        if phase in (BranchPhase.NONE, BranchPhase.ACTIVE):
            return None
        kind = self.vote if phase is BranchPhase.ROLLED_BACK else VoteKind.PREPARED
        vote = vote_of(kind, self.answer)
        return vote._replace(results=tuple(self.results)) if vote.is_yes and self.results else vote
