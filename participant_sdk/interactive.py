"""Interactive transactions: begun, worked under, and ended by the client.

Enlist comes before the work (R13). A lost answer to Commit or Rollback is asked for again, by
xid, at the coordinators in turn, of which a silent one is left soon; both are idempotent. Where a
coordinator cannot tell the end, the decision is asked for. A lost answer to Enlist is not repaired,
because a second Enlist would add the work twice: the transaction has to be rolled back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from typing import TYPE_CHECKING, Final

import grpc
from pincex.tx.v1 import lock_pb2, transaction_pb2

from participant_sdk.client_errors import (
    LOCK_TIMEOUT,
    OUTCOME_UNKNOWN,
    Failed,
    LockTimeoutError,
    OutcomeUnknown,
    UnavailableError,
    error_of,
)
from participant_sdk.client_results import Committed, Ending, Enlisted, KnownDecision, RolledBack, Wait
from participant_sdk.client_wire import (
    read_decision,
    read_ending,
    read_enlisted,
    set_timeout,
    wire_wait,
    write_enlist,
)
from participant_sdk.coordinators import TRY_MAX_S, Answer, Coordinators, Read, Request, client_backoff
from participant_sdk.ids import Xid
from participant_sdk.operations import OperationLike, operations_of
from participant_sdk.xa import DecisionState

if TYPE_CHECKING:
    # The asynchronous stub is a name for type checkers; what makes one is the plain stub.
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

# How long the end of a transaction is asked for after its deadline.
ENDING_S: Final = 5.0


class Transaction:
    """One interactive transaction. ``ending`` is None until it has ended and its client was told."""

    __slots__ = ("_coordinators", "_deadline_s", "_log_id", "_participants", "ending", "request_id", "xid")

    def __init__(self, coordinators: Coordinators, xid: Xid, request_id: str, timeout_s: float) -> None:
        self._coordinators = coordinators
        self._deadline_s = time.monotonic() + timeout_s
        self._participants: list[str] = []
        self._log_id = ""
        self.xid = xid
        self.request_id = request_id
        self.ending: Ending | None = None

    async def enlist(self, operations: Sequence[OperationLike]) -> tuple[Enlisted, ...]:
        """Add operations, which run at Prepare; one branch for each service, order kept within it.

        What an error leaves added is not known where there are several services, or with UnavailableError: roll back.
        """
        ordered = sorted(operations_of(operations), key=lambda operation: operation.service)
        return tuple(
            [
                await self._enlist(write_enlist(self.xid, service, theirs))
                for service, theirs in groupby(ordered, key=lambda operation: operation.service)
            ]
        )

    async def enlist_embedded(self, participant: str, operations: int = 1) -> Enlisted:
        """Add a service that is about to do so many operations under the xid at once. Errors as for ``enlist``."""
        return await self._enlist(
            transaction_pb2.EnlistRequest(xid=str(self.xid), participant=participant, embedded_operations=operations)
        )

    async def lock(self, *keys: str, shared: bool = False, timeout_s: float | None = None) -> int:
        """Wait until the transaction holds all of these keys, alone or shared; return the fencing token.

        ``timeout_s`` is the coordinator's ``lock_timeout`` where it is left out. They are let go when the
        transaction has finished. LockTimeoutError leaves everything as it was; DeadlockError: the transaction waited
        in a circle, and was rolled back. UnavailableError may have locked them; other errors as for ``enlist``.
        """
        mode = lock_pb2.LOCK_MODE_SHARED if shared else lock_pb2.LOCK_MODE_EXCLUSIVE
        request = lock_pb2.AcquireRequest(xid=str(self.xid), keys=keys, mode=mode)
        if timeout_s is not None:
            set_timeout(request.timeout, timeout_s)
        coordinators = self._coordinators
        until_s = max(self._left_s, 0.001)
        answer = await coordinators.ask(lambda _: coordinators.locks.Acquire, request, until_s, lambda told: told.token)
        if isinstance(answer, Failed):
            if answer.reason == LOCK_TIMEOUT:
                raise LockTimeoutError(answer.message, reason=answer.reason, xid=str(self.xid))
            raise error_of(answer) or UnavailableError(str(answer), reason=answer.reason, xid=str(self.xid))
        return answer

    async def set_rollback_only(self, reason: str) -> None:
        """Leave the transaction no end but rollback; asked of the coordinators in turn. Errors as for ``enlist``."""
        request = transaction_pb2.SetRollbackOnlyRequest(xid=str(self.xid), reason=reason)
        await self._coordinators.insist(lambda stub: stub.SetRollbackOnly, request, self._left_s, lambda _: None)

    async def commit(self, wait: Wait = Wait.APPLIED) -> Ending:
        """Ask for commit; the votes may still say no. OutcomeUnknown where nobody would say."""
        request = transaction_pb2.TransactionServiceCommitRequest(xid=str(self.xid), wait=wire_wait(wait))
        return await self._end(lambda stub: stub.Commit, request, lambda answer: read_ending(answer.result))

    async def rollback(self, reason: str = "rolled back by the client") -> Ending:
        """Roll back. Committed, if that had been decided; OutcomeUnknown where nobody would say."""
        request = transaction_pb2.TransactionServiceRollbackRequest(xid=str(self.xid), reason=reason[:200])
        return await self._end(lambda stub: stub.Rollback, request, lambda answer: read_ending(answer.result))

    @property
    def _left_s(self) -> float:
        return max(self._deadline_s - time.monotonic(), 0.0)

    async def _enlist(self, request: transaction_pb2.EnlistRequest) -> Enlisted:
        enlisted = await self._call(
            lambda stub: stub.Enlist, request, lambda answer: read_enlisted(self.xid, request.participant, answer)
        )
        self._log_id = enlisted.log_id
        if request.participant not in self._participants:
            self._participants.append(request.participant)
        return enlisted

    async def _call(
        self,
        call_of: Callable[[TransactionServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
        request: Request,
        read: Callable[[Answer], Read],
    ) -> Read:
        """One try of a call that must not be repeated blindly."""
        answer = await self._coordinators.ask(call_of, request, min(max(self._left_s, 0.001), TRY_MAX_S), read)
        if isinstance(answer, Failed):
            raise error_of(answer) or UnavailableError(
                f"transaction {self.xid}: {answer}; roll it back", reason=answer.reason, xid=str(self.xid)
            )
        return answer

    async def _end(
        self,
        call_of: Callable[[TransactionServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
        request: Request,
        read: Callable[[Answer], Ending],
    ) -> Ending:
        """Ask for the end until somebody tells it."""
        backoff = client_backoff()
        uncertain = False
        until_s = time.monotonic() + self._left_s + ENDING_S
        while (left_s := until_s - time.monotonic()) > 0:
            try_s = min(left_s, TRY_MAX_S)
            answer = await self._coordinators.ask(call_of, request, try_s, read)
            if not isinstance(answer, Failed):
                self.ending = answer
                return answer
            error = error_of(answer)
            if error is not None and not uncertain:
                raise error
            untold = error is not None or answer.reason == OUTCOME_UNKNOWN
            if untold and (ending := await self._inquire(try_s)) is not None:
                self.ending = ending
                return ending
            uncertain = True
            await asyncio.sleep(max(backoff.next_s(), answer.retry_after_s))
        raise OutcomeUnknown(f"no coordinator told the end of transaction {self.xid}", xid=str(self.xid))

    async def _inquire(self, timeout_s: float) -> Ending | None:
        """What the log knows, for a transaction whose coordinator no longer holds it, or cannot tell its end."""
        request = transaction_pb2.GetDecisionRequest(
            xid=str(self.xid), participants=self._participants, log_id=self._log_id
        )
        answer: KnownDecision | Failed = await self._coordinators.ask(
            lambda stub: stub.GetDecision, request, timeout_s, read_decision
        )
        match answer:
            case KnownDecision(state=DecisionState.COMMIT):
                return Committed(self.xid, self.request_id, applied=False)
            case KnownDecision(state=DecisionState.ROLLBACK):
                message = "the transaction had ended in rollback"
                return RolledBack(self.xid, "ROLLED_BACK", message, self.request_id, retry=True)
            case _:
                return None


_current: ContextVar[Transaction | None] = ContextVar("pincex_transaction", default=None)


def current_transaction() -> Transaction | None:
    """The interactive transaction whose block this task is in; None outside of one."""
    return _current.get()


@contextmanager
def within(transaction: Transaction) -> Generator[Transaction]:
    """Make it the current transaction for the time of the block."""
    token = _current.set(transaction)
    try:
        yield transaction
    finally:
        _current.reset(token)
