"""WorkflowService over workflows: requests to calls, answers to messages, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import grpc
from pincex.tx.v1 import workflow_pb2
from pincex.tx.v1.workflow_pb2_grpc import WorkflowServiceServicer

from coordinator.api import checks, workflow_checks
from coordinator.api import grpc_workflow_wire as wire
from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import AnyContext, Refusals
from coordinator.api.grpc_forwarding import is_forwarded_here, pass_back
from coordinator.peer_answers import PeerRefusedError
from coordinator.peers import Stubs
from coordinator.telemetry import Telemetry
from participant_sdk.ids import Xid

SERVICE: Final = workflow_pb2.DESCRIPTOR.services_by_name["WorkflowService"]

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class WorkflowService(WorkflowServiceServicer):
    """Every RPC of the service. Whoever goes away before the answer stops nothing."""

    def __init__(self, gate: Gate, telemetry: Telemetry) -> None:
        self._gate = gate
        self._telemetry = telemetry

    async def RunWorkflow(  # noqa: N802 - the contract's name, here and below
        self,
        request: workflow_pb2.RunWorkflowRequest,
        context: grpc.aio.ServicerContext[workflow_pb2.RunWorkflowRequest, workflow_pb2.RunWorkflowResponse],
    ) -> workflow_pb2.RunWorkflowResponse:
        """Begin a workflow, and tell how it ended, unless nobody waits for that."""
        response = workflow_pb2.RunWorkflowResponse()
        async with Refusals(context, self._telemetry):
            assembly = self._gate.assembly_for_new_work()
            call = workflow_checks.workflow_call(
                request.workflow_type,
                request.parameters,
                wire.read_timeout(request.timeout) if request.HasField("timeout") else None,
                request.request_id,
                default_s=assembly.workflows.settings.timeout_s,
                lock_keys=request.lock_keys,
            )
            stored = await assembly.workflows.begin(call)
            if not request.no_wait:
                stored = await assembly.workflow_peers.ended(stored.record.workflow_id)
            wire.write_workflow(stored, response.workflow)
        return response

    async def GetWorkflow(  # noqa: N802
        self,
        request: workflow_pb2.GetWorkflowRequest,
        context: grpc.aio.ServicerContext[workflow_pb2.GetWorkflowRequest, workflow_pb2.GetWorkflowResponse],
    ) -> workflow_pb2.GetWorkflowResponse:
        """Show a workflow, now or when it has ended."""
        response = workflow_pb2.GetWorkflowResponse()
        async with Refusals(context, self._telemetry):
            workflow_id = workflow_checks.check_workflow_id(request.workflow_id)
            workflows = self._gate.assembly.workflows
            if not request.wait:
                stored = await workflows.find(workflow_id)
            elif is_forwarded_here(self._gate, context):
                stored = await workflows.wait(workflow_id)
            else:
                stored = await self._gate.assembly.workflow_peers.ended(workflow_id)
            wire.write_workflow(stored, response.workflow)
        return response

    async def ListWorkflows(  # noqa: N802
        self,
        request: workflow_pb2.ListWorkflowsRequest,
        context: grpc.aio.ServicerContext[workflow_pb2.ListWorkflowsRequest, workflow_pb2.ListWorkflowsResponse],
    ) -> workflow_pb2.ListWorkflowsResponse:
        """List workflows."""
        response = workflow_pb2.ListWorkflowsResponse()
        async with Refusals(context, self._telemetry):
            page = await workflow_checks.read_page(
                self._gate.assembly.workflows, wire.read_filter(request), request.page_size, request.page_token
            )
            for stored in page.workflows:
                wire.write_workflow(stored, response.workflows.add())
            response.next_page_token = page.next_token
        return response

    async def CancelWorkflow(  # noqa: N802
        self,
        request: workflow_pb2.CancelWorkflowRequest,
        context: grpc.aio.ServicerContext[workflow_pb2.CancelWorkflowRequest, workflow_pb2.CancelWorkflowResponse],
    ) -> workflow_pb2.CancelWorkflowResponse:
        """Have a workflow undone."""
        response = workflow_pb2.CancelWorkflowResponse()
        async with Refusals(context, self._telemetry):
            workflow_id = workflow_checks.check_workflow_id(request.workflow_id)
            reason = checks.check_given_reason(request.reason)
            told = await self._at_owner(workflow_id, context, lambda stubs: stubs.workflows.CancelWorkflow, request)
            if told is not None:
                return told
            wire.write_workflow(await self._gate.assembly.workflows.cancel(workflow_id, reason), response.workflow)
        return response

    async def RetryWorkflow(  # noqa: N802
        self,
        request: workflow_pb2.RetryWorkflowRequest,
        context: grpc.aio.ServicerContext[workflow_pb2.RetryWorkflowRequest, workflow_pb2.RetryWorkflowResponse],
    ) -> workflow_pb2.RetryWorkflowResponse:
        """Try again what a workflow waits for."""
        response = workflow_pb2.RetryWorkflowResponse()
        async with Refusals(context, self._telemetry):
            workflow_id = workflow_checks.check_workflow_id(request.workflow_id)
            reason = checks.check_given_reason(request.reason)
            told = await self._at_owner(workflow_id, context, lambda stubs: stubs.workflows.RetryWorkflow, request)
            if told is not None:
                return told
            wire.write_workflow(await self._gate.assembly.workflows.retry(workflow_id, reason), response.workflow)
        return response

    async def SkipWorkflowStep(  # noqa: N802
        self,
        request: workflow_pb2.SkipWorkflowStepRequest,
        context: grpc.aio.ServicerContext[workflow_pb2.SkipWorkflowStepRequest, workflow_pb2.SkipWorkflowStepResponse],
    ) -> workflow_pb2.SkipWorkflowStepResponse:
        """Let the step that a workflow waits for count as done, or as undone."""
        response = workflow_pb2.SkipWorkflowStepResponse()
        async with Refusals(context, self._telemetry):
            workflow_id = workflow_checks.check_workflow_id(request.workflow_id)
            step = workflow_checks.check_step(request.step)
            reason = checks.check_given_reason(request.reason)
            told = await self._at_owner(workflow_id, context, lambda stubs: stubs.workflows.SkipWorkflowStep, request)
            if told is not None:
                return told
            wire.write_workflow(await self._gate.assembly.workflows.skip(workflow_id, step, reason), response.workflow)
        return response

    async def _at_owner(
        self,
        workflow_id: Xid,
        context: AnyContext,
        call_of: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
        request: Request,
    ) -> Answer | None:
        """The owner's answer, passed back unchanged; None where this coordinator is to answer itself."""
        if is_forwarded_here(self._gate, context):
            return None
        try:
            return await self._gate.assembly.workflow_peers.ask(workflow_id, call_of, request, context.time_remaining())
        except PeerRefusedError as refused:
            return await pass_back(refused, context)
