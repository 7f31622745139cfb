"""What a pass does at one participant: tell again what it is owed, and sweep its branches in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from coordinator.awaited import Awaited, Round
from coordinator.engine import Engine
from coordinator.heuristic_keeper import HeuristicKeeper
from coordinator.protocol.effects import StoredDecision
from coordinator.protocol.phases import FINISHED
from coordinator.running import Running
from coordinator.sweep import Sweep, Swept
from participant_sdk.breaker import BreakerState
from participant_sdk.ids import Xid
from participant_sdk.link import Link
from participant_sdk.participant import Branch
from participant_sdk.resource_calls import CallFailedError, ResourceCalls
from participant_sdk.xa import Decision

_LOG: Final = structlog.get_logger(__name__)


@dataclass(slots=True)
class Visit:
    """What was found and done at one participant. It grows while the visit goes on.

    ``why_not`` says why it could not be asked, empty where it could.
    """

    participant: str
    owed: int = 0
    ended: int = 0
    failed: int = 0
    why_not: str = ""
    swept: Swept = field(default_factory=Swept)

    @property
    def in_doubt(self) -> int:
        """Branches still in doubt afterwards."""
        return self.swept.in_doubt + self.failed

    @property
    def scanned(self) -> int:
        """Transactions and branches looked at."""
        return self.owed + self.swept.scanned


class Visits:
    """The ways to the participants, for recovery. One that is cut off is not waited for."""

    def __init__(
        self,
        engine: Engine,
        links: Mapping[str, Link],
        calls: Mapping[str, ResourceCalls],
        sweep: Sweep,
        heuristics: HeuristicKeeper,
        awaited: Awaited,
        acknowledged_within_s: float,
    ) -> None:
        self._acknowledged_within_s = acknowledged_within_s
        self._awaited = awaited
        self._engine = engine
        self._links = links
        self._calls = calls
        self._sweep = sweep
        self._heuristics = heuristics

    async def pay(self, visit: Visit, *, orphans_only: bool = False) -> None:
        """Tell one participant all that it is owed, and sweep it. What is not done by a time-out counts as failed."""
        link = self._links[visit.participant]
        if self._is_cut_off(visit, link):
            visit.owed = visit.failed = 0 if orphans_only else self._engine.resending.owed()[visit.participant]
            return
        with self._awaited.round(visit.participant) as round_:
            try:
                if not orphans_only:
                    await self._engine.resending.to(visit.participant, lambda running: _told(running, visit, round_))
                await self._sweep.walk(link, self._calls[visit.participant], visit.swept, round_)
                await round_.settled(self._acknowledged_within_s)
            except CallFailedError as error:
                self._fail(visit, str(error))
            finally:
                self._account(visit, round_)

    async def settle(self, visit: Visit, running: Running) -> None:
        """Tell one participant the outcome of one transaction that the engine drives."""
        with self._awaited.round(visit.participant) as round_:
            try:
                _told(running, visit, round_)
                self._engine.resending.one(running, visit.participant)
                await round_.settled(self._acknowledged_within_s)
            finally:
                self._account(visit, round_)

    async def tell(self, visit: Visit, stored: StoredDecision) -> None:
        """Tell one participant a COMMIT of the log's, whatever its branch shows: if it lost it, that is found (R11)."""
        link = self._links[visit.participant]
        if self._is_cut_off(visit, link):
            return
        with self._awaited.round(visit.participant) as round_:
            try:
                visit.owed += 1
                round_.told(stored.record.xid, Decision.COMMIT)
                link.commit(stored.record.xid, stored.incarnation, stored.sequence)
                await round_.settled(self._acknowledged_within_s)
            finally:
                self._account(visit, round_)

    async def look(self, visit: Visit, branches: Sequence[Branch]) -> None:
        """Tell one participant what was decided of these branches of its, where they are in doubt."""
        with self._awaited.round(visit.participant) as round_:
            try:
                await self._sweep.settle(self._links[visit.participant], branches, visit.swept, round_)
                await round_.settled(self._acknowledged_within_s)
            finally:
                self._account(visit, round_)

    async def each(self, visits: Iterable[Visit], deadline_s: float, *, parallel: bool, orphans_only: bool) -> None:
        """Pay every visit, together or one after the other, until this time of the loop's."""
        if not parallel:
            for visit in visits:
                await self._pay_until(visit, deadline_s, orphans_only=orphans_only)
            return
        async with asyncio.TaskGroup() as tasks:
            for visit in visits:
                tasks.create_task(self._pay_until(visit, deadline_s, orphans_only=orphans_only))

    async def _pay_until(self, visit: Visit, deadline_s: float, *, orphans_only: bool) -> None:
        try:
            async with asyncio.timeout_at(deadline_s):
                await self.pay(visit, orphans_only=orphans_only)
        except TimeoutError:
            self._fail(visit, "the pass ran out of time (recovery.recovery_timeout)")

    def _is_cut_off(self, visit: Visit, link: Link) -> bool:
        if link.is_up and link.breaker_state is not BreakerState.OPEN:
            return False
        self._fail(visit, link.down_reason)
        return True

    def _fail(self, visit: Visit, why: str) -> None:
        visit.why_not = why or "it does not answer"
        _LOG.warning("participant_not_recovered", participant=visit.participant, reason=visit.why_not)

    def _account(self, visit: Visit, round_: Round) -> None:
        visit.ended += round_.ended
        visit.failed += round_.refused + len(round_)
        # The engine keeps the ends of what it drives; of the rest nobody else would know.
        self._heuristics.put([end for end in round_.heuristics(visit.participant) if not self._is_driven(end.xid)])

    def _is_driven(self, xid: Xid) -> bool:
        running = self._engine.find(xid)
        return running is not None and running.transaction.phase not in FINISHED


def _told(running: Running, visit: Visit, round_: Round) -> None:
    decision = running.transaction.decision
    if decision is not None:
        visit.owed += 1
        round_.told(running.transaction.xid, decision)
