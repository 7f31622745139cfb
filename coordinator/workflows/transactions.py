"""A step's transaction, sent again under its request_id until its outcome is bound, and waited for until applied."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from random import Random
from typing import Final, NamedTuple

from coordinator import canonical
from coordinator.engine import Engine
from coordinator.errors import (
    BusyError,
    InvalidRequestError,
    RequestInUseError,
    RequestReusedError,
    TransactionError,
    UnavailableError,
    UnknownTransactionError,
)
from coordinator.inquiries import Inquiries
from coordinator.log.decision_log import LogUnavailableError
from coordinator.log.group_commit import GroupCommit
from coordinator.protocol.effects import StoredDecision, replayed
from coordinator.protocol.outcome import BranchOutcome, Outcome
from coordinator.requests import TENANT_DEFAULT, Ended, ExecuteCall, TransactionView
from coordinator.returns import Returns
from coordinator.workflows.nudge import Nudge
from coordinator.workflows.results import texts_of
from participant_sdk.backoff import Backoff
from participant_sdk.batching import QueueFullError
from participant_sdk.ids import RequestId, Xid
from participant_sdk.participant import Operation
from participant_sdk.xa import Decision, Heuristic, VoteKind

# The first pause, unless somebody has another.
RETRY_FIRST_S: Final = 0.1
RETRY_CAP_S: Final = 30.0


class Settled(NamedTuple):
    """What a transaction came to, for good; where it committed, it is applied everywhere.

    ``results`` are the operations' own texts. ``heuristic`` says that a branch ended against the decision.
    """

    decision: Decision
    xid: Xid
    reason: str = ""
    message: str = ""
    results: tuple[str, ...] = ()
    heuristic: Heuristic | None = None

    @property
    def is_committed(self) -> bool:
        """It was decided to commit."""
        return self.decision is Decision.COMMIT


class Attempted(NamedTuple):
    """Why an attempt came to nothing that lasts."""

    reason: str
    message: str


Note = Callable[[Attempted], Awaitable[None]]


class StepTransactions:
    """Runs transactions as a client would, but that it also waits until they are applied."""

    def __init__(
        self,
        engine: Engine,
        commit: GroupCommit,
        inquiries: Inquiries,
        returns: Returns,
        random: Random,
        retry_first_s: float = RETRY_FIRST_S,
    ) -> None:
        self._engine = engine
        self._commit = commit
        self._inquiries = inquiries
        self._returns = returns
        self._retry_first_s = retry_first_s
        self._random = random

    async def run(
        self, name: str, operations: Sequence[Operation], timeout_s: float, nudge: Nudge, note: Note
    ) -> Settled:
        """Bring an intent to its outcome: what the log has bound to it, else what a transaction comes to (R3).

        A transient rollback is sent again for ever; once ``nudge`` is to end, the intent is closed instead.
        ``note`` is told of each attempt in vain. RequestReusedError where it is bound to other operations.
        """
        digest = canonical.digest(operations)
        stored = await self.bound(name)
        if stored is not None:
            return await self._stored(stored, operations, digest)
        call = ExecuteCall(tuple(operations), timeout_s, TENANT_DEFAULT, name, digest)
        backoff = self._backoff()
        with self.woken(operations, nudge):
            while not nudge.is_ending:
                tried = await self._attempt(call)
                if isinstance(tried, Outcome):
                    return await self._settled(tried, operations)
                await note(tried)
                await nudge.pause(backoff.next_s())
        return await self.close(name, operations, "the workflow gave the step up")

    async def close(self, name: str, operations: Sequence[Operation], reason: str) -> Settled:
        """Bind ROLLBACK to an intent, unless something is bound to it already; tell what is."""
        backoff = self._backoff()
        while True:
            try:
                outcome = (await self._engine.close_intent(TENANT_DEFAULT, name, reason)).outcome
                if not outcome.retry:
                    return await self._settled(outcome, operations)
            except (BusyError, UnavailableError):
                # Nothing was begun.
                pass
            await backoff.wait()

    async def read(self, operations: Sequence[Operation], timeout_s: float) -> Outcome | Attempted:
        """Run a transaction that binds nothing: for operations that change nothing."""
        return await self._attempt(ExecuteCall(tuple(operations), timeout_s))

    def woken(self, operations: Sequence[Operation], nudge: Nudge) -> AbstractContextManager[None]:
        """Have a participant of theirs that is back cut the pauses short, for the time of the block."""
        return self._returns.awaited((each.service for each in operations), nudge.poke)

    async def bound(self, name: str) -> StoredDecision | None:
        """What the log has bound to an intent; None for nothing."""
        backoff = self._backoff()
        while True:
            try:
                return await self._commit.bound(RequestId(TENANT_DEFAULT, name))
            except (LogUnavailableError, QueueFullError):
                await backoff.wait()

    async def _attempt(self, call: ExecuteCall) -> Outcome | Attempted:
        try:
            outcome = (await self._ended(call)).outcome
        except RequestReusedError:
            raise
        except (BusyError, UnavailableError, RequestInUseError, InvalidRequestError) as error:
            # Nothing was begun. A service that is not configured here may be so tomorrow.
            code = error.code if isinstance(error, InvalidRequestError) else error.reason
            return Attempted(code, error.message)
        return Attempted(outcome.reason, outcome.message) if outcome.retry else outcome

    async def _ended(self, call: ExecuteCall) -> Ended:
        future = self._engine.execute(call)
        try:
            return await future
        except TransactionError as error:
            if isinstance(error, RequestReusedError):
                raise
            # Its outcome is unknown, for this incarnation ends; whoever comes next asks the log.
            await asyncio.Event().wait()
            raise AssertionError from error

    async def _stored(self, stored: StoredDecision, operations: Sequence[Operation], digest: bytes) -> Settled:
        record = stored.record
        if record.digest and record.digest != digest:
            raise RequestReusedError("the request_id is bound to other operations", xid=record.xid)
        return await self._settled(replayed(stored), operations)

    async def _settled(self, outcome: Outcome, operations: Sequence[Operation]) -> Settled:
        if outcome.decision is Decision.ROLLBACK:
            return Settled(outcome.decision, outcome.xid, outcome.reason, outcome.message)
        applied = outcome if outcome.applied and not outcome.replayed else await self._applied(outcome.xid)
        # A transaction that was taken over knows its votes from the log alone, which the answer has.
        results = texts_of([each.service for each in operations], outcome.branches)
        return Settled(outcome.decision, outcome.xid, results=results, heuristic=_against(applied))

    async def _applied(self, xid: Xid) -> Outcome:
        """How a committed transaction stands, once every branch has acknowledged, or ended by hand."""
        backoff = self._backoff()
        while True:
            view = await self._look(xid)
            if view is not None and view.outcome is not None and view.outcome.applied:
                return view.outcome
            if self._engine.find(xid) is not None:
                async for _ in self._inquiries.watch(xid):
                    pass
            else:
                # Another coordinator finishes it, and tells the log lazily.
                await backoff.wait()

    async def _look(self, xid: Xid) -> TransactionView | None:
        try:
            return await self._inquiries.transaction(xid)
        except (UnavailableError, UnknownTransactionError):
            return None

    def _backoff(self) -> Backoff:
        return Backoff(self._random, first_s=self._retry_first_s, cap_s=max(self._retry_first_s, RETRY_CAP_S))


def changes_something(branches: Sequence[BranchOutcome]) -> bool:
    """Whether a transaction that was meant to read alone has done more."""
    return any(branch.vote is None or branch.vote.kind is not VoteKind.READ_ONLY for branch in branches)


def _against(outcome: Outcome) -> Heuristic | None:
    """How a commit ended, where that is not everywhere as decided."""
    return None if outcome.heuristic is Heuristic.COMMIT else outcome.heuristic
