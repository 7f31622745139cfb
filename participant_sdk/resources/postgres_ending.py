"""Commit and Rollback in a PostgreSQL XA resource, for branches as they were found.

What is prepared is ended by the server, several at once; everything else is answered by the
branch table. What turns out to be gone is read again, for somebody else has ended it.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from participant_sdk.branch import BranchCall, BranchPhase, step
from participant_sdk.ids import BranchId, Xid
from participant_sdk.participant import Branch
from participant_sdk.resources.postgres_branches import BranchRows
from participant_sdk.resources.postgres_finish import Gone, finish
from participant_sdk.resources.postgres_lane import Lane
from participant_sdk.xa import PREPARED, RETRY, UNKNOWN_XID, Ack, AckKind, Decision

_UNENDED = (BranchPhase.NONE, BranchPhase.ACTIVE, BranchPhase.PREPARED)

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Ending:
    """Ends batches for one participant."""

    def __init__(self, participant: str, *, rows: BranchRows, finishing: Lane) -> None:
        self._participant = participant
        self._rows = rows
        self._finishing = finishing

    async def end(self, found: Sequence[Branch], outcome: Decision) -> dict[Xid, Ack]:
        """End branches of one log as decided; the decisions are stored already. psycopg.Error."""
        prepared = [branch for branch in found if branch.phase is BranchPhase.PREPARED]
        gids = [BranchId(branch.log_id, branch.xid, self._participant).gid for branch in prepared]
        ends = await finish(self._finishing, gids, outcome)
        ended = {branch.xid: end for branch, end in zip(prepared, ends, strict=True)}
        gone = [branch.xid for branch in prepared if ended[branch.xid] is Gone.GONE]
        if gone:
            again = {branch.xid: branch for branch in await self._rows.look(found[0].log_id, gone)}
            found = [again.get(branch.xid, branch) for branch in found]
        call = BranchCall.COMMIT if outcome is Decision.COMMIT else BranchCall.ROLLBACK
        acks = {branch.xid: _answer(branch, call, ended.get(branch.xid, Gone.GONE)) for branch in found}
        if outcome is Decision.ROLLBACK:
            await self._bury(found, acks)
        for branch in prepared:
            if outcome is Decision.COMMIT and ended[branch.xid] is None and not branch.prepared_unix_ms:
                # Its row was lost, for every row has its time. Without a marker, a second Commit would be a hazard.
                await self._rows.restore(branch.log_id, branch.xid)
        return acks

    async def _bury(self, found: Sequence[Branch], acks: dict[Xid, Ack]) -> None:
        """Make rows of what was rolled back ROLLED_BACK, and tombstones of what was not known."""
        to_bury = [
            branch for branch in found if branch.phase in _UNENDED and acks[branch.xid].kind is not AckKind.RETRY
        ]
        if not to_bury:
            return
        # A branch that had voted keeps its vote; the others get a tombstone's.
        votes = [(branch.xid, PREPARED if branch.phase is BranchPhase.PREPARED else None) for branch in to_bury]
        buried = await self._rows.undo(found[0].log_id, votes)
        for branch, is_buried in zip(to_bury, buried, strict=True):
            if not is_buried:
                # Another session is about to prepare it; the next Rollback finds it prepared.
                acks[branch.xid] = RETRY


def _answer(branch: Branch, call: BranchCall, ended: Ack | Gone | None) -> Ack:
    """The table's answer, or the server's reason for none. ``ended`` is GONE for what was not prepared."""
    if isinstance(ended, Ack):
        return ended
    if ended is Gone.GONE and branch.phase is BranchPhase.PREPARED:
        # Gone, and there again: another session is at work on it.
        return RETRY
    ack = step(branch.phase, call, branch.heuristic).ack or UNKNOWN_XID
    if ack.kind is AckKind.HEURISTIC_HAZARD:
        _log.error("commit_without_marker", transaction_id=str(branch.xid), log_id=branch.log_id)
    return ack
