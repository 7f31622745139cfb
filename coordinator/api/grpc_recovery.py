"""RecoveryService over recovery: requests to calls, answers to messages, nothing else."""

from __future__ import annotations

from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, recovery_pb2
from pincex.tx.v1.recovery_pb2_grpc import RecoveryServiceServicer

from coordinator.api import checks
from coordinator.api import grpc_recovery_wire as wire
from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import Refusals
from coordinator.api.grpc_forwarding import at_owner
from coordinator.telemetry import Telemetry

SERVICE: Final = recovery_pb2.DESCRIPTOR.services_by_name["RecoveryService"]
PAGE_SIZE_DEFAULT: Final = 100


class RecoveryService(RecoveryServiceServicer):
    """Every RPC of the service. Whoever goes away before the answer stops nothing."""

    def __init__(self, gate: Gate, telemetry: Telemetry) -> None:
        self._gate = gate
        self._telemetry = telemetry

    async def TriggerRecovery(  # noqa: N802 - the contract's name, here and below
        self,
        request: recovery_pb2.TriggerRecoveryRequest,
        context: grpc.aio.ServicerContext[recovery_pb2.TriggerRecoveryRequest, recovery_pb2.TriggerRecoveryResponse],
    ) -> recovery_pb2.TriggerRecoveryResponse:
        """Run a pass now."""
        response = recovery_pb2.TriggerRecoveryResponse()
        async with Refusals(context, self._telemetry):
            scope = wire.read_scope(request.scope)
            xid, participant = checks.check_pass(scope, request.xid, request.participant)
            if xid is not None:
                told = await at_owner(self._gate, xid, context, lambda stubs: stubs.recovery.TriggerRecovery, request)
                if told is not None:
                    return told
            ran = await self._gate.assembly.passes.trigger(scope, xid=xid, participant=participant)
            wire.write_pass(ran, wire.pass_of(response))
        return response

    async def GetRecoveryStatus(  # noqa: N802
        self,
        request: recovery_pb2.GetRecoveryStatusRequest,  # noqa: ARG002 - it has no fields
        context: grpc.aio.ServicerContext[
            recovery_pb2.GetRecoveryStatusRequest, recovery_pb2.GetRecoveryStatusResponse
        ],
    ) -> recovery_pb2.GetRecoveryStatusResponse:
        """Tell of passes, participants, coordinators, HOLD."""
        response = recovery_pb2.GetRecoveryStatusResponse()
        async with Refusals(context, self._telemetry):
            assembly = self._gate.assembly
            wire.write_status(assembly.passes.status(), assembly.engine.incarnation.number, response)
            response.open_heuristics = assembly.open_heuristics.count
        return response

    async def ListInDoubt(  # noqa: N802
        self,
        request: recovery_pb2.ListInDoubtRequest,
        context: grpc.aio.ServicerContext[recovery_pb2.ListInDoubtRequest, recovery_pb2.ListInDoubtResponse],
    ) -> recovery_pb2.ListInDoubtResponse:
        """List branches in doubt."""
        response = recovery_pb2.ListInDoubtResponse()
        async with Refusals(context, self._telemetry):
            participant = checks.check_participant(request.participant) if request.participant else ""
            size = request.page_size or PAGE_SIZE_DEFAULT
            page = await self._gate.assembly.resolution.list_in_doubt(participant, request.page_token, size)
            for found in page.branches:
                wire.write_in_doubt(found, response.branches.add())
            response.next_page_token = page.next_token
            response.unreachable_participants.extend(page.unreachable)
        return response

    async def RetryTransaction(  # noqa: N802
        self,
        request: recovery_pb2.RetryTransactionRequest,
        context: grpc.aio.ServicerContext[recovery_pb2.RetryTransactionRequest, recovery_pb2.RetryTransactionResponse],
    ) -> recovery_pb2.RetryTransactionResponse:
        """Send a decided transaction's messages again."""
        response = recovery_pb2.RetryTransactionResponse()
        async with Refusals(context, self._telemetry):
            xid = checks.check_xid(request.xid)
            told = await at_owner(self._gate, xid, context, lambda stubs: stubs.recovery.RetryTransaction, request)
            if told is not None:
                return told
            phase = await self._gate.assembly.resolution.retry(xid)
            response.phase = common_pb2.Phase.ValueType(phase)
        return response

    async def ResolveBranch(  # noqa: N802
        self,
        request: recovery_pb2.RecoveryServiceResolveBranchRequest,
        context: grpc.aio.ServicerContext[
            recovery_pb2.RecoveryServiceResolveBranchRequest, recovery_pb2.RecoveryServiceResolveBranchResponse
        ],
    ) -> recovery_pb2.RecoveryServiceResolveBranchResponse:
        """Force one branch in doubt, or show what would be."""
        response = recovery_pb2.RecoveryServiceResolveBranchResponse()
        async with Refusals(context, self._telemetry):
            xid = checks.check_xid(request.xid)
            participant = checks.check_participant(request.participant)
            outcome = wire.read_outcome(request.outcome)
            reason = checks.check_given_reason(request.reason)
            told = await at_owner(self._gate, xid, context, lambda stubs: stubs.recovery.ResolveBranch, request)
            if told is not None:
                return told
            forced = await self._gate.assembly.resolution.resolve(
                xid, participant, outcome, reason, preview=request.preview
            )
            wire.write_forced(forced, xid, response)
        return response

    async def ForgetHeuristic(  # noqa: N802
        self,
        request: recovery_pb2.ForgetHeuristicRequest,
        context: grpc.aio.ServicerContext[recovery_pb2.ForgetHeuristicRequest, recovery_pb2.ForgetHeuristicResponse],
    ) -> recovery_pb2.ForgetHeuristicResponse:
        """Drop a heuristic outcome that was dealt with."""
        response = recovery_pb2.ForgetHeuristicResponse()
        async with Refusals(context, self._telemetry):
            xid, reason = checks.check_xid(request.xid), checks.check_given_reason(request.reason)
            response.participants.extend(await self._gate.assembly.resolution.forget(xid, reason))
        return response

    async def Hold(  # noqa: N802
        self,
        request: recovery_pb2.HoldRequest,
        context: grpc.aio.ServicerContext[recovery_pb2.HoldRequest, recovery_pb2.HoldResponse],
    ) -> recovery_pb2.HoldResponse:
        """Begin HOLD."""
        response = recovery_pb2.HoldResponse()
        async with Refusals(context, self._telemetry):
            standing = await self._gate.assembly.holding.hold(checks.check_given_reason(request.reason))
            response.held_since.FromMilliseconds(standing.held_since_unix_ms)
        return response

    async def ReleaseHold(  # noqa: N802
        self,
        request: recovery_pb2.ReleaseHoldRequest,
        context: grpc.aio.ServicerContext[recovery_pb2.ReleaseHoldRequest, recovery_pb2.ReleaseHoldResponse],
    ) -> recovery_pb2.ReleaseHoldResponse:
        """End HOLD, or show what its end would restore."""
        response = recovery_pb2.ReleaseHoldResponse()
        async with Refusals(context, self._telemetry):
            reason = checks.check_given_reason(request.reason)
            plan = await self._gate.assembly.holding.release(reason, preview=request.preview)
            wire.write_plan(plan, response)
        return response
