"""What a participant by reservation tells of its branches: single ones, pages of them, watermarks.

Finished branches are not indexed by their decision's sequence, which every commit would pay
for. Who asks for those above the log's sequences (R15) has them read by xid, in windows, and
only if a watermark says that there are any: one pass over what is kept, however many pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Final
from uuid import UUID

from psycopg.rows import args_row

from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.resources import packed_arrays
from participant_sdk.resources.postgres_lane import Lane
from participant_sdk.resources.reservation_rows import StoredRow

# Rows that one statement reads at most: far less than its time-out allows.
WINDOW_ROWS: Final = 50_000

_FOLDER: Final = files("participant_sdk.resources") / "reservation_sql"
_BRANCH: Final = (_FOLDER / "branch.sql").read_bytes()
_RECOVER: Final = (_FOLDER / "recover.sql").read_bytes()
_RECOVER_FINISHED: Final = (_FOLDER / "recover_finished.sql").read_bytes()
_RECOVER_WINDOW: Final = (_FOLDER / "recover_window.sql").read_bytes()
_WATERMARKS: Final = (_FOLDER / "watermarks.sql").read_bytes()


class BranchReading:
    """Reads one database. ``log`` is the log's number there. psycopg.Error of every method."""

    __slots__ = ("_lane", "_window_rows")

    def __init__(self, lane: Lane, *, window_rows: int = WINDOW_ROWS) -> None:
        self._lane = lane
        self._window_rows = window_rows

    async def branch(self, log: int, log_id: str, xid: Xid) -> Branch | None:
        """Show one branch; None where it is not known."""
        rows = await self._rows(_BRANCH, {"log": log, "xid": str(xid)})
        return rows[0].branch(log_id) if rows else None

    async def recover(self, log: int, query: RecoverQuery) -> list[Branch]:
        """List branches in doubt and ended by hand and, where asked, committed ones, by xid."""
        ahead = await self._ahead(log, query) if query.finished else {}
        if not ahead:
            rows = await self._rows(_RECOVER, {"log": log, "after": _text(query.after), "limit": query.limit})
        else:
            rows = await self._finished(log, query, ahead)
        return [row.branch(query.log_id) for row in rows]

    async def log_ids(self) -> list[str]:
        """Every log that has introduced itself, or whose branches came."""
        async with self._lane.session() as session:
            cursor = await session.connection.execute("select log_id from pincex.logs order by log")
            return [log_id for (log_id,) in await cursor.fetchall()]

    async def watermarks(self, log: int) -> Mapping[int, int]:
        """The highest sequence applied, per incarnation, over all workers; durable when it is told."""
        async with self._lane.session() as session:
            with session.confirmed():
                cursor = await session.connection.execute(_WATERMARKS, {"log": log})
            return dict(await cursor.fetchall())

    async def _ahead(self, log: int, query: RecoverQuery) -> dict[int, int]:
        """The incarnations with more applied than the query's sequences, each with that sequence."""
        marks = await self.watermarks(log)
        return {
            incarnation: query.above.get(incarnation, 0)
            for incarnation, sequence in marks.items()
            if sequence > query.above.get(incarnation, 0)
        }

    async def _finished(self, log: int, query: RecoverQuery, ahead: Mapping[int, int]) -> list[StoredRow]:
        """Read windows until the page is full or nothing is left."""
        found: list[StoredRow] = []
        after, is_last = _text(query.after), False
        while len(found) < query.limit and not is_last:
            upto = await self._window_end(log, after)
            is_last = upto is None
            parameters = {
                "log": log,
                "after": after,
                "upto": upto,
                "limit": query.limit - len(found),
                "incarnations": packed_arrays.bigints(list(ahead)),
                "sequences": packed_arrays.bigints(list(ahead.values())),
            }
            found += await self._rows(_RECOVER_FINISHED, parameters)
            after = upto
        return found

    async def _window_end(self, log: int, after: str | None) -> str | None:
        async with self._lane.session() as session:
            parameters = {"log": log, "after": after, "size": self._window_rows}
            row: tuple[UUID] | None = await (await session.connection.execute(_RECOVER_WINDOW, parameters)).fetchone()
            return None if row is None else str(row[0])

    async def _rows(self, statement: bytes, parameters: Mapping[str, object]) -> list[StoredRow]:
        async with (
            self._lane.session() as session,
            session.connection.cursor(row_factory=args_row(StoredRow)) as cursor,
        ):
            with session.confirmed():
                await cursor.execute(statement, parameters)
            return await cursor.fetchall()


def _text(xid: Xid | None) -> str | None:
    return None if xid is None else str(xid)
