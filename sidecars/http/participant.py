"""A service in another language as a participant: its votes by try, its ends by confirm and cancel.

The branches are the SDK's, in PostgreSQL. A branch is journalled before the service is asked to try
it, as one that votes a transient "no" and may owe a cancel: whoever dies in between has said so
durably. Its yes is stored before it leaves (R8). A decision is stored before the service hears of it,
and acknowledged only once the service has done it, and that is stored too (R9).

    TRYING ──200──▶ HELD ──Commit──▶ CONFIRMING ──2xx──▶ COMMITTED
      │ │            └───Rollback──▶ CANCELLING ──2xx──▶ ROLLED_BACK
      │ └─ nobody knows ────────────────▲
      └─ 400, 409, 422 ────────────────────────────────▶ ROLLED_BACK
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import chain
from typing import Final

import psycopg
import structlog

from participant_sdk.branch import BranchPhase
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.participant import Answers, Branch, Commit, Participant, Prepare, RecoverQuery, Rollback, Work
from participant_sdk.resources.postgres_lane import Lane
from participant_sdk.resources.reservation import ReservationResource
from participant_sdk.settled import settled
from participant_sdk.xa import RETRY, Ack, AckKind, Decision, Vote, XaCode, transient_no
from sidecars.http.answers import Tried
from sidecars.http.courier import Courier
from sidecars.http.journal import Held, HeldState, Journal, Owed
from sidecars.http.planning import Admitted, service_of
from sidecars.http.service import Service
from sidecars.http.target import Target
from sidecars.sidecar import Surroundings

# Of the journal, beside the resource's own: the courier's, and the workers' statements in turn.
CONNECTIONS: Final = 3

_SETTINGS: Final = {
    "lock_timeout": "2s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
    "default_transaction_isolation": "read committed",
    "jit": "off",
}
# An answer that ends nothing at the service, or says that there is nothing to end.
_OPEN: Final = (AckKind.RETRY, AckKind.UNKNOWN_XID, AckKind.HEURISTIC_HAZARD)

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class HttpParticipant(Participant):
    """One service behind three URLs, with its branches in one database."""

    def __init__(self, branches: ReservationResource, journal: Journal, service: Service, courier: Courier) -> None:
        self.name = branches.name
        self._branches = branches
        self._journal = journal
        self._service = service
        self._courier = courier

    @classmethod
    @asynccontextmanager
    async def open(
        cls, name: str, target: Target, dsn: str, clock: Clock, *, connections: int
    ) -> AsyncGenerator[HttpParticipant]:
        """Bring the database up to date, and serve it until the block ends; ``attend`` is to run meanwhile.

        MigrationError, or psycopg.OperationalError when the database cannot be reached.
        """
        opened = ReservationResource.open(name, service_of(target), dsn, clock, connections=connections)
        lane = Lane(dsn, CONNECTIONS, _SETTINGS, cursor_factory=psycopg.AsyncCursor)
        async with opened as branches, Service.open(name, target, clock) as service:
            journal = Journal(lane)
            try:
                yield cls(branches, journal, service, Courier(name, journal, service))
            finally:
                await lane.close()

    async def attend(self, _: Surroundings) -> None:
        """Bring the service what it is owed, whether or not anybody asks, until cancelled."""
        await self._courier.run()

    async def apply(self, work: Work) -> Answers:
        """Do a whole batch: journal it with one flush, call the service, record what it answered."""
        answers = await self._branches.apply(work)
        endings: list[tuple[Commit | Rollback, Ack]] = [
            *zip(work.commits, answers.commits, strict=True),
            *zip(work.rollbacks, answers.rollbacks, strict=True),
        ]
        async with asyncio.TaskGroup() as group:
            voting = group.create_task(settled(self._votes(work.prepares, answers.prepares)))
            ending = group.create_task(settled(self._acknowledgements(endings)))
        acks = ending.result().get()
        return Answers(acks[: len(work.commits)], acks[len(work.commits) :], voting.result().get())

    async def prepare(self, branches: Sequence[Prepare]) -> Sequence[Vote]:
        """Have the service try, and vote."""
        return (await self.apply(Work(prepares=branches))).prepares

    async def commit(self, branches: Sequence[Commit]) -> Sequence[Ack]:
        """Have the service confirm."""
        return (await self.apply(Work(commits=branches))).commits

    async def rollback(self, branches: Sequence[Rollback]) -> Sequence[Ack]:
        """Have the service cancel, or leave a tombstone where it was never asked."""
        return (await self.apply(Work(rollbacks=branches))).rollbacks

    async def recover(self, query: RecoverQuery) -> Sequence[Branch]:
        """List branches in doubt and ended by hand, those whose end the service owes, and on request committed ones."""
        unfinished = [_shown(branch, _END_OWED) for branch in await self._journal.unfinished(query)]
        listed = {branch.xid: branch for branch in chain(await self._branches.recover(query), unfinished)}
        return [listed[xid] for xid in sorted(listed)][: query.limit]

    async def branch(self, log_id: str, xid: Xid) -> Branch | None:
        """Show one branch, and why the service has not ended it yet; None where it is not known."""
        # In this order: an end in between is shown as one, and no call that was just made is shown as owed.
        held = await self._journal.held(log_id, xid)
        branch = await self._branches.branch(log_id, xid)
        return branch if branch is None or held is None else _shown(branch, held)

    async def resolve(self, log_id: str, xid: Xid, outcome: Decision, reason: str) -> Ack:
        """Force a branch in doubt, keep the reason, and have the service do it: RETRY until it has."""
        hindrance = await self._hindrance(log_id, xid)
        if hindrance is not None:
            return hindrance
        ack = await self._branches.resolve(log_id, xid, outcome, reason)
        return ack if ack.kind in _OPEN else await self._hindrance(log_id, xid) or ack

    async def forget(self, log_id: str, xid: Xid) -> Ack:
        """End a heuristic branch as what it was forced to, once the service has done that."""
        return await self._hindrance(log_id, xid) or await self._branches.forget(log_id, xid)

    async def _hindrance(self, log_id: str, xid: Xid) -> Ack | None:
        """RETRY while the service is being asked, or does not do what it is owed; None where nothing is left to do."""
        held = await self._journal.held(log_id, xid)
        if held is not None and held.state is HeldState.TRYING:
            return RETRY
        owed = await self._journal.owed(log_id, [xid], giving_up=False)
        faults = await self._courier.bring(owed)
        return _still_owed(self.name, faults[owed[0]]) if faults else None

    async def log_ids(self) -> Sequence[str]:
        """Every log that has introduced itself, or whose branches came."""
        return await self._branches.log_ids()

    async def watermarks(self, log_id: str) -> Mapping[int, int]:
        """The highest sequence heard, per incarnation."""
        return await self._branches.watermarks(log_id)

    async def adopt_epoch(self, log_id: str, epoch: int) -> int:
        """Adopt a higher epoch, durably."""
        return await self._branches.adopt_epoch(log_id, epoch)

    async def prune(self, log_id: str, below_unix_ms: int, limit: int) -> int:
        """Drop finished branches; what the service is owed is brought all the same."""
        return await self._branches.prune(log_id, below_unix_ms, limit)

    async def _votes(self, prepares: Sequence[Prepare], votes: Sequence[Vote]) -> list[Vote]:
        """Have the service try what was admitted; the others have their votes."""
        admitted = [prepare for prepare, vote in zip(prepares, votes, strict=True) if isinstance(vote, Admitted)]
        if not admitted:
            return list(votes)
        tried = await asyncio.gather(*[self._service.attempt(prepare) for prepare in admitted])
        by_log: dict[str, dict[Xid, Tried]] = {}
        for prepare, answer in zip(admitted, tried, strict=True):
            by_log.setdefault(prepare.log_id, {})[prepare.xid] = answer
        recorded = {log_id: await self._record(log_id, answers) for log_id, answers in by_log.items()}
        if any(answer.owes_cancel for answer in tried):
            self._courier.wake()
        return [
            recorded[prepare.log_id][prepare.xid] if isinstance(vote, Admitted) else vote
            for prepare, vote in zip(prepares, votes, strict=True)
        ]

    async def _record(self, log_id: str, tried: Mapping[Xid, Tried]) -> Mapping[Xid, Vote]:
        """Store the votes, and return what may be told (R8)."""
        try:
            return await self._journal.record(log_id, tried)
        except psycopg.Error as error:
            # They may be stored or not. Nothing is promised: a try that stays open is cancelled once its time has
            # passed, and a yes that was stored is rolled back, or asks.
            _log.error("votes_not_stored", participant=self.name, branches=len(tried), error=str(error))
            no = transient_no("DATABASE_UNAVAILABLE", f"{self.name} cannot store its vote", xa_code=XaCode.XAER_RMFAIL)
            return dict.fromkeys(tried, no)

    async def _acknowledgements(self, endings: Sequence[tuple[Commit | Rollback, Ack]]) -> list[Ack]:
        """Have the service do what was decided; an acknowledgement waits for that, or is RETRY (R9)."""
        asked: dict[str, list[Xid]] = {}
        for branch, ack in endings:
            if ack.kind not in _OPEN:
                asked.setdefault(branch.log_id, []).append(branch.xid)
        try:
            faults = await self._bring(asked)
        except psycopg.Error as error:
            _log.warning("ends_not_stored", participant=self.name, branches=len(endings), error=str(error))
            faults = {
                (branch.log_id, branch.xid): "its journal is away" for branch, ack in endings if ack.kind not in _OPEN
            }
        return [
            _still_owed(self.name, faults[branch.log_id, branch.xid]) if (branch.log_id, branch.xid) in faults else ack
            for branch, ack in endings
        ]

    async def _bring(self, asked: Mapping[str, Sequence[Xid]]) -> dict[tuple[str, Xid], str]:
        """Have the service do what these branches owe it; return those that it has not done, with why."""
        owed: list[Owed] = []
        for log_id, xids in asked.items():
            owed += await self._journal.owed(log_id, xids, giving_up=True)
        return {(each.log_id, each.xid): why for each, why in (await self._courier.bring(owed)).items()}


_END_OWED: Final = Held(HeldState.CONFIRMING, 0, "")


def _shown(branch: Branch, held: Held) -> Branch:
    """The branch as the protocol sees it: what the service has not done is not ended.

    PREPARED with a sequence has heard COMMIT. ACTIVE is one that votes no, or has no vote yet.
    """
    if held.state is HeldState.HELD:
        return branch
    why = f"{held.state.name.lower()}, attempt {held.attempts}: {held.fault}" if held.fault else ""
    if branch.phase not in (BranchPhase.COMMITTED, BranchPhase.ROLLED_BACK):
        return branch
    said_yes = branch.vote is not None and branch.vote.is_yes
    return replace(branch, phase=BranchPhase.PREPARED if said_yes else BranchPhase.ACTIVE, reason=why)


def _still_owed(name: str, why: str) -> Ack:
    return Ack(AckKind.RETRY, XaCode.RETRY, f"{name}: {why}; it is called again")
