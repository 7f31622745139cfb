"""Answers about outcomes: to participants in doubt, and to people.

What the engine holds is answered from memory; the rest is asked of the log, in batches, and
judged by R7.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from coordinator.engine import PRESUMED, Engine
from coordinator.errors import BusyError, UnavailableError, UnknownTransactionError
from coordinator.finishes import Finishes
from coordinator.log.decision_log import DecisionLog, LogUnavailableError
from coordinator.log.group_commit import GroupCommit
from coordinator.log.inquiry import Answer
from coordinator.protocol import heuristics
from coordinator.protocol.effects import HeuristicRecord, StoredDecision, replayed
from coordinator.protocol.outcome import BranchOutcome, Outcome
from coordinator.protocol.phases import FINISHED, Phase
from coordinator.protocol.transaction import Transaction
from coordinator.requests import TransactionView
from participant_sdk.batching import QueueFullError
from participant_sdk.decisions import DecisionAnswer
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, DecisionState

# How many rows more than a page are read, for those that are held here in another phase.
HELD_APART_MAX: Final = 1_000
_DECISION_OF: Final = {Phase.COMMITTED: Decision.COMMIT, Phase.ROLLED_BACK: Decision.ROLLBACK}


class Inquiries:
    """Looks outcomes up, in the engine first, then in the log. All calls may raise UnavailableError."""

    def __init__(self, engine: Engine, log: DecisionLog, commit: GroupCommit, finishes: Finishes) -> None:
        self._engine = engine
        self._log = log
        self._commit = commit
        self._finishes = finishes

    async def decision(self, xid: Xid, participants: Sequence[str] = ()) -> DecisionAnswer:
        """What became of this transaction (R7). Only COMMIT and ROLLBACK end a doubt.

        ``participants`` are the transaction's as the asker names them, itself among them: ROLLBACK of an
        earlier incarnation's is presumed once they all have reported; without names, once everybody has (R15).
        """
        running = self._engine.find(xid)
        if running is not None:
            return self._of_transaction(running.transaction)
        answer = await self._read(xid, participants)
        own = self._engine.incarnation
        if answer.state is not DecisionState.PENDING or answer.held or xid.incarnation != own.number:
            return self._of_log(answer)
        if not self._engine.gave(xid):
            return DecisionAnswer(DecisionState.FORGOTTEN, epoch=own.epoch)
        try:
            await self._engine.presume(xid)
        except (BusyError, UnavailableError) as error:
            raise UnavailableError(f"transaction {xid}: {error.message}", xid=xid) from error
        found = self._engine.find(xid)
        return self._of_transaction(found.transaction) if found else self._of_log(await self._read(xid))

    async def transaction(self, xid: Xid) -> TransactionView:
        """Everything known of one transaction. UnknownTransactionError names its owner, if that lives.

        UnavailableError while nothing may be presumed of it (R15).
        """
        running = self._engine.find(xid)
        if running is not None:
            return running.view()
        answer = await self._read(xid)
        if answer.stored is not None:
            return await self._of_row(answer.stored)
        if answer.state is DecisionState.FORGOTTEN:
            raise UnknownTransactionError(
                f"transaction {xid} is older than the log remembers: only its participants may know its end", xid=xid
            )
        _check_presumable(xid, answer)
        if answer.state is DecisionState.ROLLBACK and answer.owner is not None:
            return _presumed(xid)
        if self._engine.gave(xid):
            return await self._settled(xid)
        owner = answer.owner
        is_elsewhere = owner and not owner.fenced and owner.address != self._engine.incarnation.address
        where = f"; ask its owner at {owner.address}" if owner and is_elsewhere else ""
        raise UnknownTransactionError(f"no transaction {xid} is known{where}", xid=xid)

    async def _settled(self, xid: Xid) -> TransactionView:
        """A transaction of this incarnation's own that left no trace, once its ROLLBACK is on record (R7)."""
        answer = await self.decision(xid)
        running = self._engine.find(xid)
        if answer.state is DecisionState.PENDING or running is None:
            raise UnavailableError(f"transaction {xid}: how it ended cannot be said yet; ask again", xid=xid)
        return running.view()

    async def _of_row(self, stored: StoredDecision) -> TransactionView:
        xid = stored.record.xid
        try:
            # What this incarnation wrote itself, it held until it was finished.
            is_own = stored.incarnation == self._engine.incarnation.number
            is_finished = is_own or await self._finishes.is_finished(stored)
            kept = await self._log.read_heuristics(xid)
        except LogUnavailableError as error:
            raise _unreadable(xid) from error
        running = self._engine.find(xid)
        # It may have been taken over meanwhile.
        return _view_of(stored, kept, is_finished=is_finished) if running is None else running.view()

    async def transactions(self, phase: Phase | None, before: Xid | None, limit: int) -> Sequence[TransactionView]:
        """Transactions below ``before``, newest first, at most ``limit``: held ones and the log's."""
        held = {view.xid: view for view in self._engine.views() if before is None or view.xid < before}
        stored = await self._list(phase, before, limit + min(self._engine.unfinished, HELD_APART_MAX))
        views = {row.record.xid: _view_of(row) for row in stored} | held
        chosen = [view for view in views.values() if phase is None or view.phase is phase]
        return sorted(chosen, key=lambda view: view.xid, reverse=True)[:limit]

    async def _list(self, phase: Phase | None, before: Xid | None, limit: int) -> Sequence[StoredDecision]:
        """The log's rows that may be in this phase; what is held may be in another one than its row says."""
        if phase not in (None, *FINISHED):
            return ()
        decision = None if phase is None else _DECISION_OF[phase]
        try:
            return await self._log.list_decisions(before, limit, decision)
        except LogUnavailableError as error:
            raise UnavailableError(f"the decision log cannot be read: {error}") from error

    def watch(self, xid: Xid | None) -> AsyncIterator[TransactionView]:
        """Each change of phase as it happens: of one transaction until it ends, or of all. UnknownTransactionError."""
        if xid is None:
            return self._engine.watchers.follow(None)
        found = self._engine.find(xid)
        if found is None:
            raise UnknownTransactionError(f"transaction {xid} is not held by this coordinator", xid=xid)
        return self._engine.watchers.follow(found.view())

    async def _read(self, xid: Xid, participants: Sequence[str] = ()) -> Answer:
        try:
            return await self._commit.read(xid, participants)
        except (LogUnavailableError, QueueFullError) as error:
            raise _unreadable(xid) from error

    def _of_transaction(self, tx: Transaction) -> DecisionAnswer:
        own = self._engine.incarnation
        if tx.reason == PRESUMED and not tx.sequence:
            # The log may hold a row that it did not show: the answer is the row that stands there afterwards.
            return DecisionAnswer(DecisionState.PENDING, epoch=own.epoch)
        match tx.decision:
            case Decision.COMMIT:
                return DecisionAnswer(DecisionState.COMMIT, tx.incarnation, tx.sequence, epoch=own.epoch)
            case Decision.ROLLBACK:
                return DecisionAnswer(DecisionState.ROLLBACK, epoch=own.epoch)
            case None:
                return DecisionAnswer(DecisionState.PENDING, owner_address=own.address, epoch=own.epoch)

    def _of_log(self, answer: Answer) -> DecisionAnswer:
        epoch = self._engine.incarnation.epoch
        if answer.state is DecisionState.COMMIT and answer.stored is not None:
            return DecisionAnswer(answer.state, answer.stored.incarnation, answer.stored.sequence, epoch=epoch)
        owner = answer.owner
        address = owner.address if owner and not owner.fenced and answer.state is DecisionState.PENDING else ""
        return DecisionAnswer(answer.state, owner_address=address, epoch=epoch)


def _check_presumable(xid: Xid, answer: Answer) -> None:
    """UnavailableError where only a presumption would tell the outcome, and the log may have lost it."""
    if answer.unreported and answer.owner is not None:
        raise UnavailableError(
            f"transaction {xid} is not in the log, and what it was cannot be told before every participant has"
            f" reported: {', '.join(answer.unreported)} has not; ask again",
            xid=xid,
        )
    if answer.held and answer.owner is not None and answer.owner.fenced:
        raise UnavailableError(
            f"transaction {xid} is not in the log, which is in HOLD because it may have lost its tail;"
            " ask again after the release",
            xid=xid,
        )


def _unreadable(xid: Xid) -> UnavailableError:
    return UnavailableError(f"transaction {xid}: the decision log cannot be read; ask again", xid=xid)


def _view_of(
    stored: StoredDecision, kept: Sequence[HeuristicRecord] = (), *, is_finished: bool = False
) -> TransactionView:
    """What the log alone tells of a transaction: its row, its heuristic ends, and whether it is finished."""
    told = replayed(stored)
    ends = {each.participant: each.heuristic for each in kept}
    voters = [branch.participant for branch in told.branches]
    # A row of ROLLBACK names nobody.
    others = [BranchOutcome(name, None, done=True) for name in ends if name not in voters]
    branches = tuple(
        branch._replace(
            done=branch.done or is_finished or branch.participant in ends,
            heuristic=ends.get(branch.participant),
        )
        for branch in (*told.branches, *others)
    )
    heuristic = heuristics.merge(told.decision, [branch.heuristic for branch in branches])
    outcome = told._replace(branches=branches, heuristic=heuristic)
    record = stored.record
    return TransactionView(
        record.xid,
        outcome.phase,
        outcome,
        branches,
        record.xid.unix_ms,
        request_id=record.request.name if record.request else "",
        incarnation=stored.incarnation,
        sequence=stored.sequence,
    )


def _presumed(xid: Xid) -> TransactionView:
    """A transaction without a row whose incarnation cannot write one any more: rolled back."""
    outcome = Outcome(
        xid, Decision.ROLLBACK, Phase.ROLLED_BACK, PRESUMED, "no commit was recorded, so it is rolled back"
    )
    return TransactionView(xid, Phase.ROLLED_BACK, outcome, (), xid.unix_ms)
