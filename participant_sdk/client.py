"""The client of transactions.

    async with TransactionClient("localhost:50051") as client:
        match await client.execute([("bookkeeper", "lock_funds", {"user_id": "7", "amount": Decimal("0.5")})]):
            case Committed(xid=xid):
                print("done", xid)
            case RolledBack(reason=reason, message=message):
                print("refused:", reason, message)

There are three endings: ``Committed``, ``RolledBack`` with why, and the exception
``OutcomeUnknown``, with the request_id to ask again.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Final, Self

import grpc
from pincex.tx.v1 import common_pb2, transaction_pb2

from participant_sdk.client_errors import (
    ClientError,
    InvalidRequestError,
    RolledBackError,
    UnavailableError,
    error_of,
)
from participant_sdk.client_results import (
    Ending,
    KnownDecision,
    RolledBack,
    TransactionPage,
    TransactionState,
    Wait,
)
from participant_sdk.client_wire import read_decision, read_state, read_status, read_xid, set_timeout, write_execute
from participant_sdk.context import trace_headers
from participant_sdk.coordinators import Coordinators
from participant_sdk.execute_stream import IN_FLIGHT_DEFAULT, ExecuteStream
from participant_sdk.ids import InvalidIdentifierError, Xid, check_request_id
from participant_sdk.intents import Intent, Settling
from participant_sdk.interactive import Transaction, within
from participant_sdk.operations import OperationLike, operations_of

TIMEOUT_DEFAULT_S: Final = 30.0
TIMEOUT_MAX_S: Final = 55 * 60.0
CALL_MAX_S: Final = 10.0


class TransactionClient:
    """A client of one system's coordinators; any of them takes any call.

    ``addresses``: host:port of one or more. ``timeout_s`` is for calls that name none; what decides
    nothing is given up after ten seconds. Made inside a
    running event loop; ``async with`` closes it. Safe for any number of tasks of that loop.
    """

    def __init__(self, addresses: Sequence[str] | str, *, timeout_s: float = TIMEOUT_DEFAULT_S) -> None:
        self._timeout_s = timeout_s
        self._call_s = min(timeout_s, CALL_MAX_S)
        self._coordinators = Coordinators(addresses)
        self._settling = Settling(self._coordinators)
        self._rollbacks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._rollbacks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Not told of an error, the group waits for the last rollbacks instead of cutting them short.
            await self._rollbacks.__aexit__(None, None, None)
        finally:
            await self._coordinators.close()

    async def execute(
        self,
        operations: Sequence[OperationLike],
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        wait: Wait = Wait.APPLIED,
        lock_keys: Sequence[str] = (),
    ) -> Ending:
        """Run one transaction to its ending: Committed or RolledBack.

        ``operations`` are (service, operation, parameters), 1 to 100, run in order at each service; parameters
        take 64 KiB at most, those of all operations 256 KiB.
        ``timeout_s``, up to 55 minutes, is for reaching an ending; closing an intent that did not may
        take 6 s more. ``request_id`` names the intent: sent again, by anyone, it has the same ending.
        Without one the client makes one, so that a lost reply can be settled. ``lock_keys`` are held alone
        until the transaction has finished; not granted in time, it is sent again like any *retry*.

        InvalidRequestError names what is wrong, and nothing was kept; OutcomeUnknown where nobody would
        say. A cancelled caller leaves the transaction to its coordinator: ask again by request_id.
        """
        intent = self._intent(operations, timeout_s, request_id, wait)
        intent.request.lock_keys.extend(lock_keys)
        return await self._settling.settle(intent, self._settling.attempt)

    def stream(self, *, in_flight: int = IN_FLIGHT_DEFAULT) -> ExecuteStream:
        """A stream for many transactions at once, ``in_flight`` at most: ``async with client.stream() as stream``."""
        return ExecuteStream(self._coordinators, self._settling, self._intent, in_flight)

    async def close_request(self, request_id: str, reason: str = "closed by the client") -> Ending:
        """Close an intent: bind ROLLBACK to it, unless it is bound already; tell what it is bound to.

        OutcomeUnknown where nobody would say.
        """
        return await self._settling.close(_checked(request_id), reason)

    async def begin(
        self, *, timeout_s: float | None = None, request_id: str = "", lock_keys: Sequence[str] = ()
    ) -> Transaction:
        """Begin an interactive transaction, which rolls back by itself after ``timeout_s``.

        With ``lock_keys`` it holds these alone, and ``Transaction.lock`` locks more.
        Without a ``request_id`` the client makes one, so that a lost reply can be asked for again.
        InvalidRequestError names what is wrong; UnavailableError where no coordinator answered;
        RequestInUseError where another transaction of the request_id did not end meanwhile. What a
        cancelled caller began rolls back by itself.
        """
        within_s = self._checked_timeout(timeout_s)
        name = _checked(request_id) if request_id else _new_request_id()
        request = transaction_pb2.BeginRequest(request_id=name, call_id=_new_request_id(), lock_keys=lock_keys)
        set_timeout(request.timeout, within_s)
        xid = await self._coordinators.insist(
            lambda stub: stub.Begin,
            request,
            min(within_s, CALL_MAX_S),
            lambda answer: read_xid(answer.xid),
            # The same one tells again what it began; at the next one it would be begun a second time.
            tries_each=2,
        )
        return Transaction(self._coordinators, xid, name, within_s)

    @asynccontextmanager
    async def transaction(
        self, *, timeout_s: float | None = None, request_id: str = "", wait: Wait = Wait.APPLIED
    ) -> AsyncGenerator[Transaction]:
        """Begin a transaction, commit it at the end of the block, roll it back if the block fails.

        Inside, ``current_transaction()`` is it, and calls through ``transaction_interceptors`` work under
        it. Once the block has ended it itself, by ``commit`` or ``rollback``, nothing more is done.
        RolledBackError where the commit ended in rollback; OutcomeUnknown where nobody would say. A
        cancelled block is rolled back even if it is cancelled again.
        """
        txn = await self.begin(timeout_s=timeout_s, request_id=request_id)
        try:
            with within(txn):
                yield txn
        except BaseException:
            # Cancelled, too: what the block began must not stay behind until its deadline.
            if txn.ending is None:
                await asyncio.shield(self._rollbacks.create_task(_roll_back(txn)))
            raise
        if txn.ending is not None:
            return
        ending = await txn.commit(wait)
        if isinstance(ending, RolledBack):
            raise RolledBackError(ending)

    async def get_transaction(self, xid: Xid | str) -> TransactionState:
        """Show one transaction. UnknownTransactionError, UnavailableError."""
        request = transaction_pb2.GetTransactionRequest(xid=str(xid))
        return await self._coordinators.insist(
            lambda stub: stub.GetTransaction, request, self._call_s, lambda answer: read_state(answer.transaction)
        )

    async def list_transactions(
        self, *, phase: str = "", page_size: int = 100, page_token: str = ""
    ) -> TransactionPage:
        """List transactions, newest first: all, or those in a phase such as "PREPARING". Pages of 1 to 1,000."""
        request = transaction_pb2.ListTransactionsRequest(
            phase=_phase(phase) if phase else common_pb2.PHASE_UNSPECIFIED, page_size=page_size, page_token=page_token
        )
        return await self._coordinators.insist(
            lambda stub: stub.ListTransactions,
            request,
            self._call_s,
            lambda answer: TransactionPage(
                tuple(read_state(transaction) for transaction in answer.transactions), answer.next_page_token
            ),
        )

    async def watch_transactions(self, xid: Xid | str = "") -> AsyncGenerator[TransactionState]:
        """Follow changes of phase as they happen: of one transaction, or of all of one coordinator's.

        Ends with UnavailableError when the coordinator does; what happened in between is not told again.
        """
        stub = self._coordinators.stub
        call = stub.WatchTransactions(transaction_pb2.WatchTransactionsRequest(xid=str(xid)), metadata=trace_headers())
        try:
            async for change in call:
                yield read_state(change.transaction)
        except grpc.aio.AioRpcError as error:
            failed = read_status(error)
            raise error_of(failed) or UnavailableError(str(failed), reason=failed.reason) from error
        finally:
            call.cancel()

    async def get_decision(self, xid: Xid | str, participants: Sequence[str] = ()) -> KnownDecision:
        """Ask what was decided of a transaction. Only COMMIT and ROLLBACK end a doubt."""
        request = transaction_pb2.GetDecisionRequest(xid=str(xid), participants=participants)
        return await self._coordinators.insist(lambda stub: stub.GetDecision, request, self._call_s, read_decision)

    def _intent(
        self, operations: Sequence[OperationLike], timeout_s: float | None, request_id: str | None, wait: Wait
    ) -> Intent:
        deadline_s = time.monotonic() + self._checked_timeout(timeout_s)
        name = _new_request_id() if request_id is None else _checked(request_id)
        request = write_execute(operations_of(operations), name, wait)
        return Intent(request, name, request_id is not None, deadline_s)

    def _checked_timeout(self, timeout_s: float | None) -> float:
        chosen_s = self._timeout_s if timeout_s is None else timeout_s
        if not 0 < chosen_s <= TIMEOUT_MAX_S:
            raise InvalidRequestError(f"above 0 and at most {TIMEOUT_MAX_S:g} seconds, not {chosen_s}", field="timeout")
        return chosen_s


async def _roll_back(txn: Transaction) -> None:
    """Roll back what a block left. Where nobody answers, the transaction's deadline does it."""
    with suppress(ClientError):
        await txn.rollback("the block that worked under it failed")


def _new_request_id() -> str:
    """A name that nobody else takes: the time first, so that indexes on it append, then 64 random bits."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def _checked(request_id: str) -> str:
    try:
        return check_request_id(request_id)
    except InvalidIdentifierError as error:
        raise InvalidRequestError(str(error), field="request_id") from error


def _phase(word: str) -> common_pb2.Phase.ValueType:
    try:
        return common_pb2.Phase.Value(f"PHASE_{word}")
    except ValueError as error:
        raise InvalidRequestError(f"not a phase: {word!r}", field="phase") from error
