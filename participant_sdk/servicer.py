"""ResourceService over gRPC: the wire to the workers and to the participant, and nothing else.

Votes and acknowledgements travel in the reply. A status tells no outcome (R19): INVALID_ARGUMENT
names the field, UNAVAILABLE says that the participant cannot answer now. A call that is cancelled
leaves its branch's work to go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from pincex.tx.v1 import resource_pb2
from pincex.tx.v1.resource_pb2_grpc import ResourceServiceServicer

from participant_sdk.branch import BranchPhase
from participant_sdk.clock import Clock
from participant_sdk.grpc_transport import GrpcServerStream
from participant_sdk.ids import Xid
from participant_sdk.known_logs import KnownLogs, ParticipantFailedError
from participant_sdk.participant import Branch, Participant
from participant_sdk.rich_status import AnyContext, Refusals
from participant_sdk.session import SessionServer
from participant_sdk.wire import (
    InvalidFieldError,
    read_commit,
    read_introduction,
    read_log_id,
    read_prepare,
    read_rollback,
    read_xid,
    write_ack,
    write_vote,
    write_welcome,
)
from participant_sdk.wire_branches import read_decision, read_recover, write_branch, write_page
from participant_sdk.worker import Workers
from participant_sdk.xa import STALE

REASON_MAX_CHARS: Final = 1_000

Answer = TypeVar("Answer")


class ResourceServicer(ResourceServiceServicer):
    """One participant's ResourceService."""

    def __init__(self, participant: Participant, workers: Workers, logs: KnownLogs, *, clock: Clock) -> None:
        self._participant = participant
        self._workers = workers
        self._logs = logs
        self._clock = clock
        self._sessions = SessionServer(participant, workers, logs, clock=clock)

    async def Hello(  # noqa: N802 - the contract's name, here and below
        self, request: resource_pb2.HelloRequest, context: AnyContext
    ) -> resource_pb2.HelloResponse:
        """Welcome a coordinator, or refuse it with a reason."""
        async with Refusals(context):
            return write_welcome(await self._logs.greet(read_introduction(request), request.clock_unix_ms))

    async def Prepare(  # noqa: N802
        self, request: resource_pb2.PrepareRequest, context: AnyContext
    ) -> resource_pb2.PrepareResponse:
        """Run a branch and vote."""
        async with Refusals(context):
            now_s = self._clock.monotonic_s()
            xid, log_id = read_xid(request.xid), read_log_id(request.log_id)
            branch = read_prepare(request, xid, log_id, service=self._participant.name, now_s=now_s)
            vote = await _answer(partial(self._workers.prepare, branch))
            return resource_pb2.PrepareResponse(vote=write_vote(vote))

    async def Commit(  # noqa: N802
        self, request: resource_pb2.CommitRequest, context: AnyContext
    ) -> resource_pb2.CommitResponse:
        """Make a branch final; RETRY to a coordinator of an older epoch (R15)."""
        async with Refusals(context):
            commit = read_commit(request)
            if not self._logs.is_plausible(commit.incarnation):
                raise InvalidFieldError("incarnation", "no log can have drawn it by now")
            if request.epoch < await self._logs.admit(commit.log_id, request.epoch):
                return resource_pb2.CommitResponse(ack=write_ack(STALE))
            ack = await _answer(partial(self._workers.commit, commit))
            return resource_pb2.CommitResponse(ack=write_ack(ack))

    async def Rollback(  # noqa: N802
        self, request: resource_pb2.RollbackRequest, context: AnyContext
    ) -> resource_pb2.RollbackResponse:
        """Undo a branch; RETRY to a coordinator of an older epoch (R15)."""
        async with Refusals(context):
            rollback = read_rollback(request)
            if request.epoch < await self._logs.admit(rollback.log_id, request.epoch):
                return resource_pb2.RollbackResponse(ack=write_ack(STALE))
            ack = await _answer(partial(self._workers.rollback, rollback))
            return resource_pb2.RollbackResponse(ack=write_ack(ack))

    async def Recover(  # noqa: N802
        self, request: resource_pb2.RecoverRequest, context: AnyContext
    ) -> resource_pb2.RecoverResponse:
        """List a page of branches, short where they are large."""
        async with Refusals(context):
            query = read_recover(request)
            branches = await self._asked(self._participant.recover(query))
            return write_page(branches, query.limit)

    async def ResolveBranch(  # noqa: N802
        self, request: resource_pb2.ResolveBranchRequest, context: AnyContext
    ) -> resource_pb2.ResolveBranchResponse:
        """Force a branch in doubt by an operator's hand, or show what would be touched (R12)."""
        async with Refusals(context):
            xid, log_id = read_xid(request.xid), read_log_id(request.log_id)
            outcome = read_decision(request.outcome, "outcome")
            if not 1 <= len(request.reason.strip()) <= REASON_MAX_CHARS:
                raise InvalidFieldError("reason", f"1 to {REASON_MAX_CHARS} characters, to be kept with the branch")
            if request.preview:
                return resource_pb2.ResolveBranchResponse(branch=await self._shown(log_id, xid))
            ack = await self._asked(self._participant.resolve(log_id, xid, outcome, request.reason))
            return resource_pb2.ResolveBranchResponse(branch=await self._shown(log_id, xid), ack=write_ack(ack))

    async def Forget(  # noqa: N802
        self, request: resource_pb2.ForgetRequest, context: AnyContext
    ) -> resource_pb2.ForgetResponse:
        """Drop a heuristic branch that was dealt with."""
        async with Refusals(context):
            xid, log_id = read_xid(request.xid), read_log_id(request.log_id)
            ack = await self._asked(self._participant.forget(log_id, xid))
            return resource_pb2.ForgetResponse(ack=write_ack(ack))

    async def GetBranch(  # noqa: N802
        self, request: resource_pb2.GetBranchRequest, context: AnyContext
    ) -> resource_pb2.GetBranchResponse:
        """Show one branch; phase unspecified where it is not known."""
        async with Refusals(context):
            xid, log_id = read_xid(request.xid), read_log_id(request.log_id)
            return resource_pb2.GetBranchResponse(branch=await self._shown(log_id, xid))

    async def Session(  # noqa: N802  # pyright: ignore[reportIncompatibleMethodOverride]  grpc.aio takes a coroutine that writes to its context
        self,
        request_iterator: object,  # noqa: ARG002 - the contract's shape; frames are read from the context
        context: AnyContext,
    ) -> None:
        """Carry batches, with the meaning of the unary calls."""
        async with Refusals(context):
            await self._sessions.serve(GrpcServerStream(context))

    async def _shown(self, log_id: str, xid: Xid) -> resource_pb2.Branch:
        branch = await self._asked(self._participant.branch(log_id, xid))
        return write_branch(branch or Branch(log_id, xid, BranchPhase.NONE))

    async def _asked(self, question: Awaitable[Answer]) -> Answer:
        """Ask the participant itself. ParticipantFailedError for whatever it raises."""
        try:
            return await question
        except Exception as error:
            # A service's own code may raise anything; to the caller it means: no answer now.
            raise ParticipantFailedError(f"{self._participant.name} failed: {error}") from error


async def _answer(put: Callable[[Callable[[Xid, Answer], None]], None]) -> Answer:
    """Hand a branch to the workers and wait for its answer."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def reply(_xid: Xid, answer: Answer) -> None:
        # The caller may have gone meanwhile.
        if not answered.done():
            answered.set_result(answer)

    put(reply)
    return await answered
