"""A participant that serves only the unary calls, as one in another language may: the same link drives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
import pytest
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.known_logs import KnownLogs
from participant_sdk.participant import Operation
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.rich_status import AnyContext
from participant_sdk.servicer import ResourceServicer
from participant_sdk.worker import Workers
from participant_sdk.xa import AckKind, Decision, VoteKind
from tests.sdk.peers import CLOCK, EPOCH, NAME, Told, branch, hosted, is_done, is_prepared, linked, memory, transfer


class UnaryServicer(ResourceServicer):
    """Says that it does not serve Session."""

    async def Hello(self, request: resource_pb2.HelloRequest, context: AnyContext) -> resource_pb2.HelloResponse:  # noqa: N802
        answer = await super().Hello(request, context)
        answer.session = False
        return answer

    async def Session(self, request_iterator: object, context: AnyContext) -> None:  # noqa: N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no Session here")


class ForgetfulServicer(UnaryServicer):
    """Does not serve Session, and says that it does."""

    async def Hello(self, request: resource_pb2.HelloRequest, context: AnyContext) -> resource_pb2.HelloResponse:  # noqa: N802
        return await ResourceServicer.Hello(self, request, context)


class FailingServicer(UnaryServicer):
    """Fails every call that is about a branch."""

    code = grpc.StatusCode.INTERNAL

    async def Prepare(self, request: resource_pb2.PrepareRequest, context: AnyContext) -> resource_pb2.PrepareResponse:  # noqa: N802
        await context.abort(self.code, "cannot")

    async def Commit(self, request: resource_pb2.CommitRequest, context: AnyContext) -> resource_pb2.CommitResponse:  # noqa: N802
        await context.abort(self.code, "cannot")

    async def Rollback(  # noqa: N802
        self, request: resource_pb2.RollbackRequest, context: AnyContext
    ) -> resource_pb2.RollbackResponse:
        await context.abort(self.code, "cannot")


class GoneServicer(FailingServicer):
    """Says that it cannot be reached, as a proxy before it would."""

    code = grpc.StatusCode.UNAVAILABLE


class SlowServicer(UnaryServicer):
    """Never votes."""

    async def Prepare(self, request: resource_pb2.PrepareRequest, context: AnyContext) -> resource_pb2.PrepareResponse:  # noqa: N802
        await asyncio.Event().wait()
        return resource_pb2.PrepareResponse()


class WordlessServicer(UnaryServicer):
    """Answers without saying anything."""

    async def Prepare(self, request: resource_pb2.PrepareRequest, context: AnyContext) -> resource_pb2.PrepareResponse:  # noqa: N802
        return resource_pb2.PrepareResponse(vote=common_pb2.Vote())

    async def Commit(self, request: resource_pb2.CommitRequest, context: AnyContext) -> resource_pb2.CommitResponse:  # noqa: N802
        return resource_pb2.CommitResponse()


@asynccontextmanager
async def unary(kind: type[UnaryServicer], resource: MemoryResource) -> AsyncGenerator[int]:
    workers = Workers(resource, clock=CLOCK)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(workers.run())
        async with hosted(kind(resource, workers, KnownLogs(resource, clock=CLOCK), clock=CLOCK)) as port:
            yield port
        task.cancel()


@pytest.mark.parametrize("kind", [UnaryServicer, ForgetfulServicer])
async def test_a_participant_without_session_takes_part(kind: type[UnaryServicer]) -> None:
    """The unary calls are the contract; Session is only the fast path."""
    told, resource = Told(), memory()
    async with unary(kind, resource) as port, linked(port, told) as link:
        await told.up()
        branches = [transfer("0.5") for _ in range(100)]
        read = branch(Operation(NAME, "read", '{"account": "a"}'))
        for one in (*branches, read):
            link.prepare(one)
        await told.until(lambda: len(told.votes) == 101)
        assert all(is_prepared(told.votes[one.xid][0]) for one in branches)
        assert told.votes[read.xid][0].kind is VoteKind.READ_ONLY
        for sequence, one in enumerate(branches[:50], 1):
            link.commit(one.xid, EPOCH, sequence)
        for one in branches[50:]:
            link.rollback(one.xid)
        await told.until(lambda: len(told.acks) == 100)
        assert all(is_done(acks[0]) for acks in told.acks.values())
    assert not resource.invariants()


async def test_a_failed_call_is_no_outcome() -> None:
    """R19: a status tells nothing, so a failed Prepare is transient and a failed ending is RETRY."""
    told = Told()
    async with unary(FailingServicer, memory()) as port, linked(port, told) as link:
        await told.up()
        one = transfer()
        link.prepare(one)
        vote = await told.vote(one.xid)
        link.commit(one.xid, EPOCH, 1)
        link.rollback(one.xid)
        assert (vote.transient, vote.reason) == (True, "CALL_FAILED")
        assert (await told.ack(Decision.COMMIT, one.xid)).kind is AckKind.RETRY
        assert (await told.ack(Decision.ROLLBACK, one.xid)).kind is AckKind.RETRY
        assert link.is_up


async def test_a_participant_out_of_reach_ends_the_session_and_is_met_anew() -> None:
    """UNAVAILABLE counts as down: on return it is greeted again, with epoch and watermarks."""
    told = Told()
    async with unary(GoneServicer, memory()) as port, linked(port, told) as link:
        await told.up()
        one = transfer()
        link.prepare(one)
        assert (await told.vote(one.xid)).transient
        assert "UNAVAILABLE" in await told.down()
        await told.up(times=2)


async def test_a_call_that_never_ends_is_a_transient_no() -> None:
    """The call's time-out is the vote's time and a second; the engine's own deadline comes first."""
    told = Told()
    async with unary(SlowServicer, memory()) as port, linked(port, told) as link:
        await told.up()
        one = transfer(seconds=0.1)
        link.prepare(one)
        vote = await told.vote(one.xid)
    assert (vote.transient, vote.reason) == (True, "CALL_FAILED")
    assert "DEADLINE_EXCEEDED" in vote.message


async def test_an_empty_answer_is_a_no_and_no_acknowledgement() -> None:
    """R2: UNSPECIFIED counts as "no"; an acknowledgement that says nothing is RETRY."""
    told = Told()
    async with unary(WordlessServicer, memory()) as port, linked(port, told) as link:
        await told.up()
        one = transfer()
        link.prepare(one)
        assert (await told.vote(one.xid)).transient
        link.commit(one.xid, EPOCH, 1)
        assert (await told.ack(Decision.COMMIT, one.xid)).kind is AckKind.RETRY
