"""Calls of workflows to a coordinator, each made at the coordinators in turn until one answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from pincex.tx.v1 import workflow_pb2
from pincex.tx.v1.workflow_pb2_grpc import WorkflowServiceStub

from coordinator.commands.asking import addresses_of, answered
from coordinator.commands.operator_calls import CHANGE_WITHIN_S, LOOK_WITHIN_S, PAGE_MAX, each_in_turn
from participant_sdk.client_errors import OutcomeUnknown, UnavailableError, error_of
from participant_sdk.client_wire import read_status

if TYPE_CHECKING:
    # The stubs know it; at run time there is one class for both kinds of channel.
    from pincex.tx.v1.workflow_pb2_grpc import WorkflowServiceAsyncStub

Request = TypeVar("Request")
Answer = TypeVar("Answer")
# Beyond the workflow's own time: it may be undone for a while.
WAIT_MORE_S: Final = 60.0


class WorkflowCalls:
    """The calls to one coordinator. All raise ClientError; UnavailableError where another one may do it."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self._address = address
        self._stub: WorkflowServiceAsyncStub = WorkflowServiceStub(channel)

    async def run(self, request: workflow_pb2.RunWorkflowRequest) -> workflow_pb2.Workflow:
        """Begin a workflow, durably. Sent again with the same request_id, it is the same one."""
        return (await self._change(self._stub.RunWorkflow, request, request.request_id)).workflow

    async def ended(self, workflow_id: str, timeout_s: float) -> workflow_pb2.Workflow:
        """The workflow, once it has ended or waits for an operator; OutcomeUnknown where it did not in time."""
        request = workflow_pb2.GetWorkflowRequest(workflow_id=workflow_id, wait=True)
        try:
            return (await self._stub.GetWorkflow(request, timeout=timeout_s + WAIT_MORE_S)).workflow
        except grpc.aio.AioRpcError as error:
            if (told := error_of(read_status(error))) is not None:
                raise told from error
            raise OutcomeUnknown(
                f"workflow {workflow_id} goes on; look with `pincex workflow show {workflow_id}`"
            ) from error

    async def show(self, workflow_id: str) -> workflow_pb2.Workflow:
        """One workflow as it stands."""
        request = workflow_pb2.GetWorkflowRequest(workflow_id=workflow_id)
        return (await self._look(self._stub.GetWorkflow, request)).workflow

    async def list(self, request: workflow_pb2.ListWorkflowsRequest, limit: int) -> list[workflow_pb2.Workflow]:
        """Workflows, newest first, at most ``limit``, from as many pages as it takes."""
        found: list[workflow_pb2.Workflow] = []
        while len(found) < limit:
            request.page_size = min(PAGE_MAX, limit - len(found))
            page = await self._look(self._stub.ListWorkflows, request)
            found += page.workflows
            request.page_token = page.next_page_token
            if not page.next_page_token:
                break
        return found

    async def cancel(self, workflow_id: str, reason: str) -> workflow_pb2.Workflow:
        """Have it undone."""
        request = workflow_pb2.CancelWorkflowRequest(workflow_id=workflow_id, reason=reason)
        return (await self._change(self._stub.CancelWorkflow, request)).workflow

    async def retry(self, workflow_id: str, reason: str) -> workflow_pb2.Workflow:
        """Try again what it waits for."""
        request = workflow_pb2.RetryWorkflowRequest(workflow_id=workflow_id, reason=reason)
        return (await self._change(self._stub.RetryWorkflow, request)).workflow

    async def skip(self, workflow_id: str, step: str, reason: str) -> workflow_pb2.Workflow:
        """Let a step count as done, or as undone."""
        request = workflow_pb2.SkipWorkflowStepRequest(workflow_id=workflow_id, step=step, reason=reason)
        return (await self._change(self._stub.SkipWorkflowStep, request)).workflow

    async def _look(self, call: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request) -> Answer:
        try:
            return await call(request, timeout=LOOK_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            failed = read_status(error)
            raise error_of(failed) or UnavailableError(f"{self._address}: {failed}", reason=failed.reason) from error

    async def _change(
        self, call: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request, request_id: str = ""
    ) -> Answer:
        try:
            return await call(request, timeout=CHANGE_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            failed = read_status(error)
            if (told := error_of(failed)) is not None:
                raise told from error
            if failed.reason:
                raise UnavailableError(f"{self._address}: {failed}", reason=failed.reason) from error
            raise OutcomeUnknown(
                f"{self._address} did not answer ({failed}), and it may have been done: look at `pincex workflow list`",
                request_id=request_id,
            ) from error


Question = Callable[[WorkflowCalls], Awaitable[Answer]]


def ask_workflows(address: str, question: Question[Answer], *, as_json: bool) -> Answer:
    """Ask the coordinators in turn, until one answers; end the command where none does."""
    return answered(lambda: each_in_turn(addresses_of(address), WorkflowCalls, question), address, as_json=as_json)
