"""Calls about workflows that another coordinator runs: they travel once, to its incarnation (R19).

Whose a workflow is, the log says. While that one lives the call is its own to answer. Once it is fenced, whoever is
asked takes the workflow over, and answers itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import grpc
from pincex.tx.v1 import workflow_pb2

from coordinator.errors import RefusedError, TransactionError, UnavailableError, UnknownWorkflowError
from coordinator.log.decision_log import LogUnavailableError, LogUncertainError
from coordinator.log.workflow_log import StoredWorkflow
from coordinator.peer_answers import PeerRefusedError
from coordinator.peers import Peers, Stubs
from coordinator.workflows.workflows import Workflows
from participant_sdk.ids import Xid

LOOK_AGAIN_S: Final = 0.5
OPERATOR_WITHIN_S: Final = 60.0
_UNKNOWN: Final = "WORKFLOW_UNKNOWN"

Request = TypeVar("Request")
Answer = TypeVar("Answer")


class WorkflowPeers:
    """The way to the owners of workflows."""

    def __init__(self, peers: Peers, workflows: Workflows) -> None:
        self._peers = peers
        self._workflows = workflows

    async def ask(
        self,
        workflow_id: Xid,
        call_of: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
        request: Request,
        timeout_s: float | None = None,
    ) -> Answer | None:
        """The owner's answer; None where this coordinator is to answer: it is held here by now, or finished.

        UnknownWorkflowError, UnavailableError; PeerRefusedError is the owner's own error.
        """
        if self._workflows.is_held(workflow_id):
            return None
        stored = await self._workflows.find(workflow_id)
        if stored.record.is_finished or self._workflows.is_held(workflow_id):
            return None
        # What names an incarnation, among peers, is an xid that it gave out.
        owner = Xid.make(workflow_id.unix_ms, stored.record.incarnation, 0)
        try:
            answer = await self._peers.ask(owner, call_of, request, timeout_s)
        except UnavailableError as error:
            raise UnavailableError(
                f"workflow {workflow_id}: its coordinator, incarnation {stored.record.incarnation}, does not answer and"
                " is not fenced yet; ask again"
            ) from error
        if answer is None:
            await self._take_over(workflow_id)
        return answer

    async def ended(self, workflow_id: Xid) -> StoredWorkflow:
        """A workflow, wherever it runs, once it is finished or waits for an operator. UnknownWorkflowError."""
        request = workflow_pb2.GetWorkflowRequest(workflow_id=str(workflow_id), wait=True)
        while True:
            try:
                # Its owner says when; how it ended, the log.
                await self.ask(workflow_id, lambda stubs: stubs.workflows.GetWorkflow, request)
            except (UnavailableError, PeerRefusedError):
                await asyncio.sleep(LOOK_AGAIN_S)
            stored = await self._workflows.wait(workflow_id)
            if stored.record.is_finished or stored.record.stuck is not None:
                return stored
            await asyncio.sleep(LOOK_AGAIN_S)

    async def cancel(self, workflow_id: Xid, reason: str) -> StoredWorkflow:
        """Have a workflow undone, wherever it runs. The errors of ``Workflows.cancel``, and of ``ask``."""
        request = workflow_pb2.CancelWorkflowRequest(workflow_id=str(workflow_id), reason=reason)
        if await self._told(workflow_id, lambda stubs: stubs.workflows.CancelWorkflow, request):
            return await self._workflows.find(workflow_id)
        return await self._workflows.cancel(workflow_id, reason)

    async def retry(self, workflow_id: Xid, reason: str) -> StoredWorkflow:
        """Have a workflow try again, wherever it runs. Errors as for ``cancel``."""
        request = workflow_pb2.RetryWorkflowRequest(workflow_id=str(workflow_id), reason=reason)
        if await self._told(workflow_id, lambda stubs: stubs.workflows.RetryWorkflow, request):
            return await self._workflows.find(workflow_id)
        return await self._workflows.retry(workflow_id, reason)

    async def skip(self, workflow_id: Xid, step: str, reason: str) -> StoredWorkflow:
        """Skip a workflow's step, wherever it runs. Errors as for ``cancel``."""
        request = workflow_pb2.SkipWorkflowStepRequest(workflow_id=str(workflow_id), step=step, reason=reason)
        if await self._told(workflow_id, lambda stubs: stubs.workflows.SkipWorkflowStep, request):
            return await self._workflows.find(workflow_id)
        return await self._workflows.skip(workflow_id, step, reason)

    async def _told(
        self,
        workflow_id: Xid,
        call_of: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
        request: Request,
    ) -> bool:
        """Whether the owner did it."""
        try:
            return await self.ask(workflow_id, call_of, request, OPERATOR_WITHIN_S) is not None
        except PeerRefusedError as refused:
            raise _as_told_here(refused) from refused

    async def _take_over(self, workflow_id: Xid) -> None:
        try:
            await self._workflows.resume()
        except (LogUnavailableError, LogUncertainError) as error:
            raise UnavailableError(f"workflow {workflow_id}: the log cannot be reached; ask again") from error


def _as_told_here(refused: PeerRefusedError) -> TransactionError:
    failed = refused.failed
    if failed.reason == _UNKNOWN:
        return UnknownWorkflowError(failed.message)
    if failed.code is grpc.StatusCode.FAILED_PRECONDITION:
        return RefusedError(failed.message, code=failed.reason)
    return refused.as_told_here()
