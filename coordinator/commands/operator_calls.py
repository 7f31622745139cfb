"""An operator's calls to a coordinator: RecoveryService, LockService, and the rollback of a transaction by its id.

Each is made once at each coordinator in turn, until one answers. All of them can be made again: what
is forced stays forced, and what is forgotten, held or released already is told so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from pincex.tx.v1 import common_pb2, lock_pb2, recovery_pb2, transaction_pb2
from pincex.tx.v1.lock_pb2_grpc import LockServiceStub
from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceStub
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceStub

from coordinator.commands.asking import REACH_WITHIN_S, addresses_of, answered
from participant_sdk.client_errors import OUTCOME_UNKNOWN, OutcomeUnknown, UnavailableError, error_of
from participant_sdk.client_results import Ending
from participant_sdk.client_wire import read_ending, read_status
from participant_sdk.grpc_options import CHANNEL_OPTIONS
from participant_sdk.xa import Decision

if TYPE_CHECKING:
    # The stubs know them; at run time there is one class for both kinds of channel.
    from pincex.tx.v1.lock_pb2_grpc import LockServiceAsyncStub
    from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceAsyncStub
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

LOOK_WITHIN_S: Final = 30.0
# A pass, or a release, asks every participant for all that it holds.
CHANGE_WITHIN_S: Final = 300.0
PAGE_MAX: Final = 1000
LOOK_AT_MAX: Final = 10_000

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Calls = TypeVar("Calls")


class OperatorCalls:
    """The calls to one coordinator. All raise ClientError; UnavailableError where another one may do it."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self._address = address
        self._recovery: RecoveryServiceAsyncStub = RecoveryServiceStub(channel)
        self._locks: LockServiceAsyncStub = LockServiceStub(channel)
        self._transactions: TransactionServiceAsyncStub = TransactionServiceStub(channel)

    async def status(self) -> recovery_pb2.GetRecoveryStatusResponse:
        """Tell the state of recovery."""
        return await self._look(self._recovery.GetRecoveryStatus, recovery_pb2.GetRecoveryStatusRequest())

    async def trigger(self, request: recovery_pb2.TriggerRecoveryRequest) -> recovery_pb2.RecoveryPass:
        """Run a pass, and tell what it did."""
        response = await self._change(self._recovery.TriggerRecovery, request)
        # The field's name is one of Python's keywords.
        ran: recovery_pb2.RecoveryPass = getattr(response, "pass")
        return ran

    async def in_doubt(self, participant: str, limit: int) -> recovery_pb2.ListInDoubtResponse:
        """List branches in doubt, at most ``limit``, from as many pages as it takes."""
        found = recovery_pb2.ListInDoubtResponse()
        while True:
            request = recovery_pb2.ListInDoubtRequest(
                participant=participant,
                page_size=min(PAGE_MAX, limit - len(found.branches)),
                page_token=found.next_page_token,
            )
            page = await self._look(self._recovery.ListInDoubt, request)
            found.branches.extend(page.branches)
            found.next_page_token = page.next_page_token
            unreachable = {*found.unreachable_participants, *page.unreachable_participants}
            found.unreachable_participants[:] = sorted(unreachable)
            if not page.next_page_token or len(found.branches) >= limit:
                return found

    async def in_doubt_of(self, xid: str) -> recovery_pb2.ListInDoubtResponse:
        """List one transaction's branches among the oldest 10,000 that are in doubt or ended by hand."""
        found = await self.in_doubt("", LOOK_AT_MAX)
        kept = [each for each in found.branches if each.branch.xid == xid]
        return recovery_pb2.ListInDoubtResponse(branches=kept, unreachable_participants=found.unreachable_participants)

    async def retry(self, xid: str) -> str:
        """Drive a decided transaction again; its phase afterwards."""
        request = recovery_pb2.RetryTransactionRequest(xid=xid)
        response = await self._change(self._recovery.RetryTransaction, request)
        return common_pb2.Phase.Name(response.phase).removeprefix("PHASE_")

    async def resolve(
        self, xid: str, participant: str, outcome: Decision, reason: str, *, preview: bool
    ) -> recovery_pb2.RecoveryServiceResolveBranchResponse:
        """Force one branch in doubt, or show it."""
        request = recovery_pb2.RecoveryServiceResolveBranchRequest(
            xid=xid,
            participant=participant,
            outcome=common_pb2.Decision.ValueType(outcome),
            reason=reason,
            preview=preview,
        )
        return await (self._look if preview else self._change)(self._recovery.ResolveBranch, request)

    async def forget(self, xid: str, reason: str) -> Sequence[str]:
        """Drop a heuristic outcome; the participants concerned."""
        request = recovery_pb2.ForgetHeuristicRequest(xid=xid, reason=reason)
        return (await self._change(self._recovery.ForgetHeuristic, request)).participants

    async def hold(self, reason: str) -> recovery_pb2.HoldResponse:
        """Put the log in HOLD."""
        return await self._change(self._recovery.Hold, recovery_pb2.HoldRequest(reason=reason))

    async def release(self, reason: str, *, preview: bool) -> recovery_pb2.ReleaseHoldResponse:
        """End HOLD, or show what that would restore."""
        request = recovery_pb2.ReleaseHoldRequest(reason=reason, preview=preview)
        return await self._change(self._recovery.ReleaseHold, request)

    async def locks(self, prefix: str, limit: int) -> Sequence[lock_pb2.Lock]:
        """List locked keys, at most ``limit``, from as many pages as it takes."""
        found: list[lock_pb2.Lock] = []
        token = ""
        while True:
            size = min(PAGE_MAX, limit - len(found))
            request = lock_pb2.ListLocksRequest(key_prefix=prefix, page_size=size, page_token=token)
            page = await self._look(self._locks.ListLocks, request)
            found += page.locks
            token = page.next_page_token
            if not token or len(found) >= limit:
                return found

    async def break_lock(self, key: str, reason: str) -> lock_pb2.BreakLockResponse:
        """Take a key from its holders."""
        return await self._change(self._locks.BreakLock, lock_pb2.BreakLockRequest(key=key, reason=reason))

    async def rollback(self, xid: str, reason: str) -> Ending:
        """Undo a transaction that is not being decided yet; later, it tells how it ended."""
        request = transaction_pb2.TransactionServiceRollbackRequest(xid=xid, reason=reason)
        return read_ending((await self._change(self._transactions.Rollback, request)).result)

    async def decision(self, xid: str) -> Decision | None:
        """What was decided; None for anything that does not end a doubt."""
        request = transaction_pb2.GetDecisionRequest(xid=xid)
        state = (await self._look(self._transactions.GetDecision, request)).decision
        return {
            transaction_pb2.DECISION_STATE_COMMIT: Decision.COMMIT,
            transaction_pb2.DECISION_STATE_ROLLBACK: Decision.ROLLBACK,
        }.get(state)

    async def _look(self, call: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        try:
            return await call(request, timeout=LOOK_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            failed = read_status(error)
            raise error_of(failed) or UnavailableError(f"{self._address}: {failed}", reason=failed.reason) from error

    async def _change(self, call: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        try:
            return await call(request, timeout=CHANGE_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            failed = read_status(error)
            if (told := error_of(failed)) is not None:
                raise told from error
            if failed.reason not in {"", OUTCOME_UNKNOWN}:
                # The coordinator itself says that it did nothing.
                raise UnavailableError(f"{self._address}: {failed}", reason=failed.reason) from error
            raise OutcomeUnknown(
                f"{self._address} did not answer ({failed}), and it may have been done: look at "
                "`pincex recovery status`, and ask again; asking twice changes nothing"
            ) from error


def ask_operator(address: str, question: Callable[[OperatorCalls], Awaitable[Answer]], *, as_json: bool) -> Answer:
    """Ask the coordinators in turn, until one answers; end the command where none does."""
    return answered(lambda: asked_in_turn(addresses_of(address), question), address, as_json=as_json)


async def asked_in_turn(addresses: Sequence[str], question: Callable[[OperatorCalls], Awaitable[Answer]]) -> Answer:
    """Ask each until one answers. Errors as for ``each_in_turn``."""
    return await each_in_turn(addresses, OperatorCalls, question)


async def each_in_turn(
    addresses: Sequence[str],
    calls_of: Callable[[grpc.aio.Channel, str], Calls],
    question: Callable[[Calls], Awaitable[Answer]],
) -> Answer:
    """Ask each until one answers. TimeoutError where none can be connected to; ClientError as the last one says.

    ``calls_of`` makes the calls to one, from a channel and its address.
    """
    last: UnavailableError | TimeoutError = TimeoutError()
    for address in addresses:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            try:
                async with asyncio.timeout(REACH_WITHIN_S):
                    await channel.channel_ready()
                return await question(calls_of(channel, address))
            except UnavailableError as error:
                last = error
            except TimeoutError as error:
                last = last if isinstance(last, UnavailableError) else error
    raise last
