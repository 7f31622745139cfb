"""TransactionService over the engine: requests to calls, answers to messages, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, transaction_pb2
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceServicer

from coordinator.api import checks, grpc_wire
from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import Refusals
from coordinator.api.grpc_forwarding import at_owner, watched_at_owner
from coordinator.api.grpc_stream import ClientStream
from coordinator.api.rejection import rejection
from coordinator.engine import Engine
from coordinator.errors import InvalidRequestError, WrongPhaseError
from coordinator.protocol.phases import FINISHED
from coordinator.requests import TENANT_DEFAULT, Ended, TransactionView
from coordinator.telemetry import Telemetry
from participant_sdk.ids import Xid

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1000
EMBEDDED_OPERATIONS_MAX: Final = 10_000
_DEFAULT_REASON: Final = "the client asked for rollback"


class TransactionService(TransactionServiceServicer):
    """Every RPC of the service. ``timeout_default`` is for requests that bring none."""

    def __init__(self, gate: Gate, telemetry: Telemetry, timeout_default: timedelta) -> None:
        self._gate = gate
        self._telemetry = telemetry
        self._timeout_default_s = timeout_default.total_seconds()

    async def Execute(  # noqa: N802 - the contract's name, here and below
        self,
        request: transaction_pb2.ExecuteRequest,
        context: grpc.aio.ServicerContext[transaction_pb2.ExecuteRequest, transaction_pb2.ExecuteResponse],
    ) -> transaction_pb2.ExecuteResponse:
        """Run one transaction from begin to outcome."""
        response = transaction_pb2.ExecuteResponse()
        async with Refusals(context, self._telemetry):
            call = grpc_wire.read_execute(request, self._timeout_default_s)
            ended = await self._gate.execute(call)
            rejected = rejection(ended.outcome, call.services, call.request_id)
            if rejected is not None:
                raise rejected
            grpc_wire.write_ended(ended, response.result)
        return response

    async def ExecuteStream(  # noqa: N802  # pyright: ignore[reportIncompatibleMethodOverride]  grpc.aio takes a coroutine that writes to its context
        self,
        request_iterator: AsyncIterator[transaction_pb2.ExecuteStreamRequest],
        context: grpc.aio.ServicerContext[transaction_pb2.ExecuteStreamRequest, transaction_pb2.ExecuteStreamResponse],
    ) -> None:
        """Run many transactions on one stream."""
        async with Refusals(context, self._telemetry):
            await ClientStream(self._gate, self._telemetry, context, self._timeout_default_s).serve(request_iterator)

    async def Begin(  # noqa: N802
        self,
        request: transaction_pb2.BeginRequest,
        context: grpc.aio.ServicerContext[transaction_pb2.BeginRequest, transaction_pb2.BeginResponse],
    ) -> transaction_pb2.BeginResponse:
        """Begin an interactive transaction."""
        response = transaction_pb2.BeginResponse()
        async with Refusals(context, self._telemetry):
            timeout_s = grpc_wire.read_timeout(request, self._timeout_default_s)
            request_id = checks.check_request_id(request.request_id)
            call_id = checks.check_request_id(request.call_id, "call_id")
            keys = checks.check_lock_keys(request.lock_keys, "lock_keys", least=0)
            xid = self._gate.for_new_work().begin(timeout_s, TENANT_DEFAULT, request_id, call_id)
            if keys:
                await self._gate.assembly.locks.transactions.begin(xid, keys)
            response.xid = str(xid)
        return response

    async def Enlist(  # noqa: N802
        self,
        request: transaction_pb2.EnlistRequest,
        context: grpc.aio.ServicerContext[transaction_pb2.EnlistRequest, transaction_pb2.EnlistResponse],
    ) -> transaction_pb2.EnlistResponse:
        """Add a branch, or more work to one."""
        response = transaction_pb2.EnlistResponse()
        async with Refusals(context, self._telemetry):
            xid = checks.check_xid(request.xid)
            participant = checks.check_participant(request.participant)
            operations = grpc_wire.read_operations(request.operations, least=0)
            _check_work(request, participant)
            checks.check_operations(operations, least=0)
            told = await at_owner(self._gate, xid, context, lambda stubs: stubs.transactions.Enlist, request)
            if told is not None:
                return told
            engine = await self._engine_of_active(xid)
            enlisted = engine.enlist(xid, participant, operations, request.embedded_operations)
            response.log_id = engine.incarnation.log_id
            response.branch_number = enlisted.branch_number
            grpc_wire.write_seconds(enlisted.remaining_s, response.remaining)
        return response

    async def SetRollbackOnly(  # noqa: N802
        self,
        request: transaction_pb2.SetRollbackOnlyRequest,
        context: grpc.aio.ServicerContext[
            transaction_pb2.SetRollbackOnlyRequest, transaction_pb2.SetRollbackOnlyResponse
        ],
    ) -> transaction_pb2.SetRollbackOnlyResponse:
        """Leave the transaction no end but rollback."""
        async with Refusals(context, self._telemetry):
            reason = checks.check_reason(request.reason) or "marked rollback-only by the client"
            xid = checks.check_xid(request.xid)
            told = await at_owner(self._gate, xid, context, lambda stubs: stubs.transactions.SetRollbackOnly, request)
            if told is not None:
                return told
            (await self._engine_of_active(xid)).set_rollback_only(xid, reason)
        return transaction_pb2.SetRollbackOnlyResponse()

    async def Commit(  # noqa: N802
        self,
        request: transaction_pb2.TransactionServiceCommitRequest,
        context: grpc.aio.ServicerContext[
            transaction_pb2.TransactionServiceCommitRequest, transaction_pb2.TransactionServiceCommitResponse
        ],
    ) -> transaction_pb2.TransactionServiceCommitResponse:
        """End an interactive transaction; a "no" of any kind is a result."""
        response = transaction_pb2.TransactionServiceCommitResponse()
        async with Refusals(context, self._telemetry):
            wait_applied = grpc_wire.read_wait(request.wait)
            xid = checks.check_xid(request.xid)
            told = await at_owner(self._gate, xid, context, lambda stubs: stubs.transactions.Commit, request)
            if told is not None:
                return told
            engine = self._gate.engine
            if engine.find(xid) is None:
                ended = await self._gate.assembly.aftermath.ended(xid)
            else:
                ended = await engine.commit(xid, wait_applied=wait_applied)
            grpc_wire.write_ended(ended, response.result)
        return response

    async def Rollback(  # noqa: N802
        self,
        request: transaction_pb2.TransactionServiceRollbackRequest,
        context: grpc.aio.ServicerContext[
            transaction_pb2.TransactionServiceRollbackRequest, transaction_pb2.TransactionServiceRollbackResponse
        ],
    ) -> transaction_pb2.TransactionServiceRollbackResponse:
        """Undo a transaction, or close an intent."""
        response = transaction_pb2.TransactionServiceRollbackResponse()
        async with Refusals(context, self._telemetry):
            reason = checks.check_reason(request.reason) or _DEFAULT_REASON
            if request.WhichOneof("which") == "xid":
                xid = checks.check_xid(request.xid)
                told = await at_owner(self._gate, xid, context, lambda stubs: stubs.transactions.Rollback, request)
                if told is not None:
                    return told
                ended = await self._roll_back(xid, reason)
            else:
                ended = await self._close_intent(request, reason)
            grpc_wire.write_ended(ended, response.result)
        return response

    async def GetTransaction(  # noqa: N802
        self,
        request: transaction_pb2.GetTransactionRequest,
        context: grpc.aio.ServicerContext[
            transaction_pb2.GetTransactionRequest, transaction_pb2.GetTransactionResponse
        ],
    ) -> transaction_pb2.GetTransactionResponse:
        """Show one transaction with its story."""
        response = transaction_pb2.GetTransactionResponse()
        async with Refusals(context, self._telemetry):
            xid = checks.check_xid(request.xid)
            told = await at_owner(self._gate, xid, context, lambda stubs: stubs.transactions.GetTransaction, request)
            if told is not None:
                return told
            view = await self._gate.inquiries.transaction(xid)
            grpc_wire.write_view(view, response.transaction)
        return response

    async def ListTransactions(  # noqa: N802
        self,
        request: transaction_pb2.ListTransactionsRequest,
        context: grpc.aio.ServicerContext[
            transaction_pb2.ListTransactionsRequest, transaction_pb2.ListTransactionsResponse
        ],
    ) -> transaction_pb2.ListTransactionsResponse:
        """List transactions, newest first."""
        response = transaction_pb2.ListTransactionsResponse()
        async with Refusals(context, self._telemetry):
            limit = _read_page_size(request.page_size)
            phase = grpc_wire.read_phase(request.phase)
            before = checks.check_xid(request.page_token, "page_token") if request.page_token else None
            views = await self._gate.inquiries.transactions(phase, before, limit)
            for view in views:
                grpc_wire.write_view(view.without_events(), response.transactions.add())
            if len(views) == limit:
                response.next_page_token = str(views[-1].xid)
        return response

    async def WatchTransactions(  # noqa: N802
        self,
        request: transaction_pb2.WatchTransactionsRequest,
        context: grpc.aio.ServicerContext[
            transaction_pb2.WatchTransactionsRequest, transaction_pb2.WatchTransactionsResponse
        ],
    ) -> AsyncIterator[transaction_pb2.WatchTransactionsResponse]:
        """Stream changes of phase, of one transaction until it finishes, or of all."""
        async with Refusals(context, self._telemetry):
            xid = checks.check_xid(request.xid) if request.xid else None
            told = None if xid is None else await watched_at_owner(self._gate, xid, context)
            if told is not None:
                phase = common_pb2.PHASE_UNSPECIFIED
                async for change in told:
                    yield change
                    phase = change.transaction.result.phase
                if phase in FINISHED:
                    return
            async for view in self._views(xid):
                response = transaction_pb2.WatchTransactionsResponse()
                grpc_wire.write_view(view, response.transaction)
                yield response

    async def GetDecision(  # noqa: N802
        self,
        request: transaction_pb2.GetDecisionRequest,
        context: grpc.aio.ServicerContext[transaction_pb2.GetDecisionRequest, transaction_pb2.GetDecisionResponse],
    ) -> transaction_pb2.GetDecisionResponse:
        """Answer a participant in doubt."""
        response = transaction_pb2.GetDecisionResponse()
        async with Refusals(context, self._telemetry):
            xid = checks.check_xid(request.xid)
            log_id = self._gate.engine.incarnation.log_id
            if request.log_id not in {"", log_id}:
                raise WrongPhaseError(
                    f"transaction {xid} belongs to log {request.log_id[:64]!r}, and this coordinator to log {log_id}; "
                    "ask one of its own",
                    code="LOG_MISMATCH",
                    xid=xid,
                )
            answer = await self._gate.inquiries.decision(xid, tuple(request.participants))
            grpc_wire.write_decision(answer, response)
        return response

    async def _views(self, xid: Xid | None) -> AsyncIterator[TransactionView]:
        """Each change; of a transaction that is over, the one view that there is."""
        if xid is not None and self._gate.engine.find(xid) is None:
            yield await self._gate.inquiries.transaction(xid)
            return
        async for view in self._gate.inquiries.watch(xid):
            yield view

    async def _roll_back(self, xid: Xid, reason: str) -> Ended:
        engine = self._gate.engine
        if engine.find(xid) is None:
            return await self._gate.assembly.aftermath.ended(xid)
        return await engine.rollback(xid, reason)

    async def _close_intent(self, request: transaction_pb2.TransactionServiceRollbackRequest, reason: str) -> Ended:
        request_id = checks.check_request_id(request.request_id)
        if not request_id:
            raise InvalidRequestError("either xid or request_id is required", field="which", code="REQUIRED")
        return await self._gate.engine.close_intent(TENANT_DEFAULT, request_id, reason)

    async def _engine_of_active(self, xid: Xid) -> Engine:
        """The engine, which holds the transaction; the error of one that nobody holds."""
        engine = self._gate.engine
        if engine.find(xid) is None:
            raise await self._gate.assembly.aftermath.too_late(xid)
        return engine


def _check_work(request: transaction_pb2.EnlistRequest, participant: str) -> None:
    if request.embedded_operations > EMBEDDED_OPERATIONS_MAX:
        raise InvalidRequestError(
            f"at most {EMBEDDED_OPERATIONS_MAX}", field="embedded_operations", code="OPERATION_COUNT"
        )
    if request.operations and request.embedded_operations:
        raise InvalidRequestError(
            "either operations that travel in Prepare, or a count of embedded ones",
            field="embedded_operations",
            code="MIXED_WORK",
        )
    for index, operation in enumerate(request.operations):
        if operation.service != participant:
            raise InvalidRequestError(
                f"must be {participant!r}, the participant enlisted here; it is {operation.service[:64]!r}",
                field=f"operations[{index}].service",
                code="SERVICE_MISMATCH",
            )


def _read_page_size(size: int) -> int:
    if size > PAGE_SIZE_MAX:
        raise InvalidRequestError(f"0 to {PAGE_SIZE_MAX}, not {size}", field="page_size", code="PAGE_SIZE_OUT_OF_RANGE")
    return size or PAGE_SIZE_DEFAULT
