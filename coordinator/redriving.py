"""Driving one transaction now: what an operator asks of a transaction that does not come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from coordinator.engine import Engine
from coordinator.errors import UnavailableError, UnknownTransactionError
from coordinator.log.decision_log import LogUnavailableError
from coordinator.log.group_commit import GroupCommit
from coordinator.log.inquiry import Answer
from coordinator.protocol.phases import FINISHED
from coordinator.running import Running
from coordinator.visits import Visit, Visits
from participant_sdk.batching import QueueFullError
from participant_sdk.ids import Xid
from participant_sdk.resource_calls import CallFailedError, ResourceCalls
from participant_sdk.xa import Decision, DecisionState


class Redriving:
    """Tells one transaction's outcome to whoever has not acknowledged it. Nothing is decided by it."""

    def __init__(self, engine: Engine, commit: GroupCommit, visits: Visits, calls: Mapping[str, ResourceCalls]) -> None:
        self._engine = engine
        self._commit = commit
        self._visits = visits
        self._calls = calls

    async def one(self, xid: Xid) -> list[Visit]:
        """Visit those whom the transaction concerns: none where it is not decided, or where all have acknowledged.

        UnknownTransactionError; UnavailableError when the log cannot be read, or another coordinator that
        lives owns it: it is named.
        """
        running = self._engine.find(xid)
        if running is None:
            return await self._look(xid, await self.answer(xid))
        if running.transaction.decision is None or running.transaction.phase in FINISHED:
            return []
        return await self._settle(running)

    async def answer(self, xid: Xid) -> Answer:
        """What the log says of a transaction that is not held here. Errors as for ``one``."""
        answer = await self.read(xid)
        own, owner = self._engine.incarnation, answer.owner
        if owner is not None and not owner.fenced and owner.number != own.number:
            raise UnavailableError(
                f"transaction {xid} is held by incarnation {owner.number} at {owner.address}: ask there", xid=xid
            )
        is_unknown = owner is None or (owner.number == own.number and not self._engine.gave(xid))
        if answer.stored is None and is_unknown:
            raise UnknownTransactionError(
                f"no transaction {xid} is known: no coordinator of this log began it", xid=xid
            )
        if answer.state is DecisionState.FORGOTTEN:
            raise UnknownTransactionError(
                f"transaction {xid} is older than the log remembers: only its participants may know its end", xid=xid
            )
        return answer

    async def read(self, xid: Xid) -> Answer:
        """What the log says of an xid. UnavailableError when it cannot be read."""
        try:
            return await self._commit.read(xid)
        except (LogUnavailableError, QueueFullError) as error:
            raise UnavailableError(f"transaction {xid}: the decision log cannot be read; ask again", xid=xid) from error

    async def _settle(self, running: Running) -> list[Visit]:
        visits = [Visit(name) for name in running.transaction.branches.owed]
        async with asyncio.TaskGroup() as tasks:
            for visit in visits:
                tasks.create_task(self._visits.settle(visit, running))
        return visits

    async def _look(self, xid: Xid, answer: Answer) -> list[Visit]:
        """Of a transaction that nobody drives: tell COMMIT to all, and ROLLBACK to who is in doubt all the same."""
        stored = answer.stored
        names: Sequence[str] = stored.record.prepared if stored is not None else tuple(self._calls)
        visits = [Visit(name) for name in names]
        async with asyncio.TaskGroup() as tasks:
            for visit in visits:
                if visit.participant not in self._calls:
                    visit.why_not = "no such participant is configured"
                elif stored is not None and stored.record.decision is Decision.COMMIT:
                    tasks.create_task(self._visits.tell(visit, stored))
                else:
                    tasks.create_task(self._look_at(xid, visit))
        return visits

    async def _look_at(self, xid: Xid, visit: Visit) -> None:
        try:
            branch = await self._calls[visit.participant].branch(self._engine.incarnation.log_id, xid)
        except CallFailedError as error:
            visit.why_not = str(error)
        else:
            await self._visits.look(visit, [] if branch is None else [branch])
