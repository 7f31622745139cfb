"""The journal of what the service is asked and owed: ``http.held``, beside the SDK's table of branches.

Each method is one statement for a whole batch, and what it wrote is durable when it returns.
psycopg.Error of every method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from importlib.resources import files
from typing import Final, NamedTuple
from uuid import UUID

from psycopg.rows import args_row

from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.resources.postgres_lane import Lane
from participant_sdk.resources.reservation_rows import StoredRow
from participant_sdk.resources.stored_votes import answer_of, vote_of
from participant_sdk.xa import Vote
from sidecars.http.answers import Tried

_FOLDER: Final = files("sidecars.http") / "sql"
_RECLAIM: Final = (_FOLDER / "reclaim.sql").read_bytes()
_SETTLE: Final = (_FOLDER / "settle.sql").read_bytes()
_POSTPONE: Final = (_FOLDER / "postpone.sql").read_bytes()
_UNFINISHED: Final = (_FOLDER / "unfinished.sql").read_bytes()
_RECORD: Final = (
    b"select at, vote, answer from http.record_tries(%s, %s::uuid[], %s::smallint[], %s::text[], %s::bool[])"
)
_HELD: Final = b"select h.state, h.attempts, h.fault from http.held as h join pincex.logs as l using (log)"


class HeldState(IntEnum):
    """What the service may be holding for a branch. The numbers are the table's."""

    TRYING = 1
    HELD = 2
    CONFIRMING = 3
    CANCELLING = 4


class Owed(NamedTuple):
    """A call that is owed to the service: CONFIRMING or CANCELLING."""

    log_id: str
    xid: Xid
    state: HeldState


class Held(NamedTuple):
    """What is held for one branch, how often in vain it was called, and what came of it last."""

    state: HeldState
    attempts: int
    fault: str


class _OwedRow(NamedTuple):
    log_id: str
    xid: UUID
    state: int


class Journal:
    """The journal in one database, over connections of its own."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def record(self, log_id: str, tried: Mapping[Xid, Tried]) -> dict[Xid, Vote]:
        """Store what came of these tries; return the votes as they are stored, and so may be told.

        One that was given up meanwhile has another vote than its try had: whatever that left is being cancelled.
        """
        xids = list(tried)
        columns = (
            [str(xid) for xid in xids],
            [int(tried[xid].vote.kind) for xid in xids],
            [answer_of(tried[xid].vote) for xid in xids],
            [tried[xid].owes_cancel for xid in xids],
        )
        votes = {xid: tried[xid].vote for xid in xids}
        async with self._lane.session() as session:
            with session.confirmed():
                cursor = await session.connection.execute(_RECORD, (log_id, *columns))
            for at, kind, answer in await cursor.fetchall():
                votes[xids[at - 1]] = vote_of(kind, answer)
        return votes

    async def owed(self, log_id: str, xids: Sequence[Xid], *, giving_up: bool) -> list[Owed]:
        """What is owed for these branches. With ``giving_up``, a try of theirs that is open owes its cancel."""
        statement = b"select log_id, xid, state from http.owed(%s, %s::uuid[], %s)"
        return await self._owed(statement, (log_id, [str(xid) for xid in xids], giving_up))

    async def take(self, most: int) -> list[Owed]:
        """Take calls that are due, at most so many; nobody else does for half a minute."""
        return await self._owed(b"select log_id, xid, state from http.take(%s)", (most,))

    async def reclaim(self) -> None:
        """Make all that is owed due now: whoever had taken it is not there any more."""
        async with self._lane.session() as session:
            await session.connection.execute(_RECLAIM)

    async def settle(self, done: Sequence[Owed]) -> None:
        """The service has done these. Only after this may anybody be told."""
        parameters = {
            "log_ids": [owed.log_id for owed in done],
            "xids": [str(owed.xid) for owed in done],
            "states": [int(owed.state) for owed in done],
        }
        async with self._lane.session() as session:
            with session.confirmed():
                await session.connection.execute(_SETTLE, parameters)

    async def postpone(self, faults: Mapping[Owed, str]) -> None:
        """The service has not done these: they are due again later, each after a longer pause."""
        parameters = {
            "log_ids": [owed.log_id for owed in faults],
            "xids": [str(owed.xid) for owed in faults],
            "faults": list(faults.values()),
        }
        async with self._lane.session() as session:
            await session.connection.execute(_POSTPONE, parameters)

    async def held(self, log_id: str, xid: Xid) -> Held | None:
        """What is held for one branch; None where the service has nothing of it."""
        statement = _HELD + b" where l.log_id = %s and h.xid = %s::uuid"
        async with self._lane.session() as session:
            row = await (await session.connection.execute(statement, (log_id, str(xid)))).fetchone()
        return None if row is None else Held(HeldState(row[0]), row[1], row[2])

    async def unfinished(self, query: RecoverQuery) -> list[Branch]:
        """A page of branches that are decided, and not yet done at the service; as stored."""
        parameters = {
            "log_id": query.log_id,
            "after": None if query.after is None else str(query.after),
            "limit": query.limit,
        }
        async with (
            self._lane.session() as session,
            session.connection.cursor(row_factory=args_row(StoredRow)) as cursor,
        ):
            await cursor.execute(_UNFINISHED, parameters)
            return [row.branch(query.log_id) for row in await cursor.fetchall()]

    async def _owed(self, statement: bytes, parameters: Sequence[object]) -> list[Owed]:
        async with (
            self._lane.session() as session,
            session.connection.cursor(row_factory=args_row(_OwedRow)) as cursor,
        ):
            with session.confirmed():
                await cursor.execute(statement, parameters)
            return [Owed(row.log_id, Xid(row.xid.bytes), HeldState(row.state)) for row in await cursor.fetchall()]
