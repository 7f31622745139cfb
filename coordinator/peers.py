"""The other coordinators of this log: a call that names an xid goes to the incarnation that owns it (R19).

Who owns an xid is in the xid: the incarnation that gave it out. Whether that one lives, and
where, the log says. While it lives the call is its own to answer, and travels to it once, naming
the incarnation: whoever is at the address takes it only if it is that one, and never passes it
on. What an owner says is passed back as it is. One that cannot be reached is not spoken for
until it is fenced: the call is UNAVAILABLE. From then on any coordinator answers from the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import grpc
from pincex.tx.v1 import common_pb2, recovery_pb2, transaction_pb2
from pincex.tx.v1.lock_pb2_grpc import LockServiceStub
from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceStub
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceStub
from pincex.tx.v1.workflow_pb2_grpc import WorkflowServiceStub

from coordinator.engine import Engine
from coordinator.errors import UnavailableError, UnknownTransactionError
from coordinator.incarnation import IncarnationLife
from coordinator.log.decision_log import LogUnavailableError
from coordinator.log.group_commit import GroupCommit
from coordinator.log.inquiry import Answer as LogAnswer
from coordinator.passes import Pass, Scope
from coordinator.peer_answers import PeerRefusedError, forced_of, pass_of, view_of
from coordinator.protocol.phases import Phase
from coordinator.requests import TransactionView
from coordinator.resolution import Forced
from participant_sdk.batching import QueueFullError
from participant_sdk.client_wire import AnswerError, read_state, read_status
from participant_sdk.context import LOG_ID_KEY
from participant_sdk.grpc_options import CHANNEL_OPTIONS
from participant_sdk.ids import Xid
from participant_sdk.wire import InvalidFieldError
from participant_sdk.xa import Decision

if TYPE_CHECKING:
    # The asynchronous stubs are names for type checkers; what makes one is the plain stub.
    from pincex.tx.v1.lock_pb2_grpc import LockServiceAsyncStub
    from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceAsyncStub
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub
    from pincex.tx.v1.workflow_pb2_grpc import WorkflowServiceAsyncStub

DETAILS_KEY: Final = "grpc-status-details-bin"
FORWARDED_KEY: Final = "pincex-forwarded-to"
CHANNELS_MAX: Final = 100
# A call whose own client set no bound. Commit has the transaction's deadline, and phase two's, to wait for.
ANSWER_WITHIN_S: Final = 10.0
# How often, while an owner is silent, the log is asked whether it is over.
LOOK_EVERY_S: Final = 1.0

_CHANNEL_OPTIONS: Final = {
    **dict(CHANNEL_OPTIONS),
    # Only calls are worth a ping; coordinators take one every ten seconds at most.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 0,
    # One that comes back is found within a second, not gRPC's two minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
}
# Of a live owner these say no more than silence: the connection's, or what it says while it ends.
_SAYS_NOTHING: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL}
)

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class Stubs(NamedTuple):
    """What can be called at a peer."""

    transactions: TransactionServiceAsyncStub
    recovery: RecoveryServiceAsyncStub
    workflows: WorkflowServiceAsyncStub
    locks: LockServiceAsyncStub


class _Owner(NamedTuple):
    """A live incarnation, and where it is."""

    number: int
    address: str


class Peers:
    """The way to the owners of xids. ``close`` comes at the end; nothing is connected before a call needs it."""

    def __init__(self, engine: Engine, commit: GroupCommit, life: IncarnationLife) -> None:
        self._engine = engine
        self._own = engine.incarnation
        self._commit = commit
        self._life = life
        self._channels: dict[str, tuple[grpc.aio.Channel, Stubs]] = {}
        self._closed = False
        # Seen fenced since the last look at who lives; numbers are never drawn again.
        self._over: set[int] = set()

    def check_taken(self, metadata: Mapping[str, str | bytes]) -> bool:
        """Whether a call was forwarded to this incarnation, so that it ends here whatever it names.

        False for a call that nobody forwarded. UnavailableError for one that was meant for another incarnation,
        such as the one that was at this address before: it must not be taken for that one's answer.
        """
        meant = metadata.get(FORWARDED_KEY)
        if meant is None:
            return False
        if (meant, metadata.get(LOG_ID_KEY)) != (str(self._own.number), self._own.log_id):
            raise UnavailableError(
                f"that incarnation is not here any more: here is {self._own.number} of log {self._own.log_id}"
            )
        return True

    async def ask(
        self,
        xid: Xid,
        call_of: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
        request: Request,
        timeout_s: float | None = None,
    ) -> Answer | None:
        """The owner's answer to a call; None where this coordinator is to answer itself.

        That is so where it holds the transaction or gave the xid out, and where the owner is over.
        PeerRefusedError is the owner's own error. UnavailableError: the owner did not answer and is not
        fenced, so what became of the call is not known; or the log cannot be read. Without ``timeout_s`` it
        waits for as long as the owner lives. A cancelled caller cancels the call at the owner too.
        """
        owner = await self._owner(xid)
        if owner is None:
            return None
        stubs = await self._stubs(owner.address)
        call = call_of(stubs)(request, timeout=timeout_s, metadata=self._metadata(owner))
        try:
            if await self._is_answered(call, xid):
                return await call
        except grpc.aio.AioRpcError as error:
            await self._meet(error, owner, xid)
        finally:
            call.cancel()
        return None

    async def watch(
        self, xid: Xid, timeout_s: float | None = None
    ) -> AsyncIterator[transaction_pb2.WatchTransactionsResponse] | None:
        """The owner's stream of a transaction's changes; None and errors as for ``ask``, errors at any time.

        It ends before the transaction does where the owner is over: what follows is told here.
        """
        owner = await self._owner(xid)
        return None if owner is None else self._stream(owner, xid, timeout_s)

    async def transaction(self, xid: Xid) -> TransactionView | None:
        """What the owner knows of a transaction; None as for ``ask``. The errors of ``Inquiries.transaction``."""
        request = transaction_pb2.GetTransactionRequest(xid=str(xid))
        try:
            answer = await self.ask(xid, lambda stubs: stubs.transactions.GetTransaction, request, ANSWER_WITHIN_S)
            return None if answer is None else view_of(read_state(answer.transaction))
        except PeerRefusedError as refused:
            raise refused.as_told_here() from refused
        except (AnswerError, KeyError, ValueError) as error:
            # No xid, no known phase.
            raise _nonsense(xid) from error

    async def retry(self, xid: Xid) -> Phase | None:
        """Have the owner send a decided transaction's messages again; None as for ``ask``."""
        request = recovery_pb2.RetryTransactionRequest(xid=str(xid))
        try:
            answer = await self.ask(xid, lambda stubs: stubs.recovery.RetryTransaction, request, ANSWER_WITHIN_S)
            return None if answer is None else Phase(answer.phase)
        except PeerRefusedError as refused:
            raise refused.as_told_here() from refused
        except ValueError as error:
            raise _nonsense(xid) from error

    async def rollback(self, xid: Xid, reason: str) -> TransactionView | None:
        """Have the owner undo a transaction that is not being decided yet, and tell of it; None as for ``ask``."""
        request = transaction_pb2.TransactionServiceRollbackRequest(xid=str(xid), reason=reason)
        try:
            answer = await self.ask(xid, lambda stubs: stubs.transactions.Rollback, request, ANSWER_WITHIN_S)
        except PeerRefusedError as refused:
            raise refused.as_told_here() from refused
        return None if answer is None else await self.transaction(xid)

    async def trigger(self, xid: Xid) -> Pass | None:
        """Have the owner run a pass over its transaction, however long that takes; None as for ``ask``."""
        request = recovery_pb2.TriggerRecoveryRequest(scope=recovery_pb2.RECOVERY_SCOPE_TRANSACTION, xid=str(xid))
        try:
            answer = await self.ask(xid, lambda stubs: stubs.recovery.TriggerRecovery, request)
        except PeerRefusedError as refused:
            raise refused.as_told_here() from refused
        return None if answer is None else pass_of(answer, Scope.TRANSACTION)

    async def resolve(
        self, xid: Xid, participant: str, outcome: Decision, reason: str, *, preview: bool
    ) -> Forced | None:
        """Have the owner force a branch in doubt, or refuse to; None as for ``ask``.

        UnavailableError leaves open whether it was forced: the same may be sent again.
        """
        request = recovery_pb2.RecoveryServiceResolveBranchRequest(
            xid=str(xid),
            participant=participant,
            outcome=common_pb2.Decision.ValueType(outcome),
            reason=reason,
            preview=preview,
        )
        try:
            answer = await self.ask(xid, lambda stubs: stubs.recovery.ResolveBranch, request)
            return None if answer is None else forced_of(answer, self._own.log_id)
        except PeerRefusedError as refused:
            raise refused.as_told_here() from refused
        except InvalidFieldError as error:
            raise _nonsense(xid) from error

    async def close(self) -> None:
        """End every connection at once, for good; calls in flight fail."""
        self._closed = True
        while self._channels:
            _, (channel, _) = self._channels.popitem()
            await channel.close()

    async def _owner(self, xid: Xid) -> _Owner | None:
        """The live incarnation elsewhere that owns an xid; None where there is none.

        One that lived at the last look is taken at its word; if it has ended since, its silence shows.
        """
        if xid.incarnation == self._own.number or self._engine.find(xid) is not None:
            return None
        for live in self._life.standing.live if self._life.standing else ():
            if live.number == xid.incarnation and live.number not in self._over:
                return _Owner(live.number, live.address)
        state = (await self._read(xid)).owner
        if state is None and xid.incarnation > self._own.number:
            raise UnknownTransactionError(
                f"no transaction {xid} is known: nor is incarnation {xid.incarnation}, which its xid names", xid=xid
            )
        if state is None or state.fenced:
            return None
        return _Owner(state.number, state.address)

    async def _read(self, xid: Xid) -> LogAnswer:
        try:
            return await self._commit.read(xid)
        except (LogUnavailableError, QueueFullError) as error:
            raise UnavailableError(
                f"transaction {xid}: the decision log cannot be read to find its owner; ask again", xid=xid
            ) from error

    async def _is_over(self, xid: Xid) -> bool:
        """Whether the xid's incarnation is certainly fenced by now."""
        try:
            state = (await self._read(xid)).owner
        except UnavailableError:
            return False
        is_over = state is None or state.fenced
        if is_over:
            self._over = {xid.incarnation, *self._over.intersection(self._live())}
        return is_over

    def _live(self) -> list[int]:
        standing = self._life.standing
        return [] if standing is None else [live.number for live in standing.live]

    async def _is_answered(self, call: grpc.aio.UnaryUnaryCall[Request, Answer], xid: Xid) -> bool:
        """Wait until the call has ended: True, or its owner is over: False."""
        ended = asyncio.Event()
        call.add_done_callback(lambda _: ended.set())
        while not ended.is_set():
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await ended.wait()
            except TimeoutError:
                if await self._is_over(xid):
                    return False
        return True

    async def _meet(self, error: grpc.aio.AioRpcError, owner: _Owner, xid: Xid) -> None:
        """Return where the owner turns out to be over; else raise what its error means here."""
        failed = read_status(error)
        if failed.code in _SAYS_NOTHING and await self._is_over(xid):
            return
        if failed.reason or failed.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            details = tuple(entry for entry in error.trailing_metadata() if entry[0] == DETAILS_KEY)
            raise PeerRefusedError(failed, details) from error
        raise _unreachable(xid, owner, f"{failed.code.name}: {failed.message}") from error

    async def _stream(
        self, owner: _Owner, xid: Xid, timeout_s: float | None
    ) -> AsyncIterator[transaction_pb2.WatchTransactionsResponse]:
        stubs = await self._stubs(owner.address)
        request = transaction_pb2.WatchTransactionsRequest(xid=str(xid))
        call = stubs.transactions.WatchTransactions(request, timeout=timeout_s, metadata=self._metadata(owner))
        try:
            async for change in call:
                yield change
        except grpc.aio.AioRpcError as error:
            await self._meet(error, owner, xid)
        finally:
            call.cancel()

    def _metadata(self, owner: _Owner) -> tuple[tuple[str, str], ...]:
        return ((FORWARDED_KEY, str(owner.number)), (LOG_ID_KEY, self._own.log_id))

    async def _stubs(self, address: str) -> Stubs:
        """The way to an address. At most CHANNELS_MAX are kept: the one not used for longest goes."""
        if self._closed:
            raise UnavailableError("this coordinator has stopped; ask another")
        entry = self._channels.pop(address, None)
        if entry is None:
            channel = grpc.aio.insecure_channel(address, options=tuple(_CHANNEL_OPTIONS.items()))
            services = (TransactionServiceStub(channel), RecoveryServiceStub(channel), WorkflowServiceStub(channel))
            entry = (channel, Stubs(*services, LockServiceStub(channel)))
        self._channels[address] = entry
        if len(self._channels) > CHANNELS_MAX:
            oldest, _ = self._channels.pop(next(iter(self._channels)))
            await oldest.close()
        return entry[1]


def _nonsense(xid: Xid) -> UnavailableError:
    return UnavailableError(f"transaction {xid}: its owner's answer says nothing; ask again", xid=xid)


def _unreachable(xid: Xid, owner: _Owner, why: str) -> UnavailableError:
    return UnavailableError(
        f"transaction {xid}: its owner, incarnation {owner.number} at {owner.address}, does not answer ({why}) and is "
        "not fenced yet; whether the call was taken is not known: ask again, here or there",
        xid=xid,
    )
