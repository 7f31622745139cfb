"""The two ways to call a participant, unary and Session, behind one face: messages in, raw messages out.

Nothing is translated: a wrong participant's wrong numbers must be seen as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.report import DeviationError
from participant_sdk.ids import Xid

if TYPE_CHECKING:
    # Generated for type checkers alone.
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub

    SessionCall = grpc.aio.StreamStreamCall[resource_pb2.SessionRequest, resource_pb2.SessionResponse]

CALL_TIMEOUT_S: Final = 20.0


@dataclass(slots=True)
class Speaker:
    """The coordinator that the kit plays. Mutable: the epoch rises."""

    log_id: str
    incarnation: int
    epoch: int


class Decided(NamedTuple):
    """A Commit to send."""

    xid: Xid
    incarnation: int
    sequence: int


class Calls(Protocol):
    """Sends branches, any number at once, and returns one answer for each, in order.

    A Prepare that is refused with INVALID_ARGUMENT gets the vote UNSPECIFIED with reason ``INVALID_ARGUMENT``.
    """

    async def prepare(self, requests: Sequence[resource_pb2.PrepareRequest]) -> list[common_pb2.Vote]:
        """Prepare; each request names its xid and log id."""
        ...

    async def commit(self, commits: Sequence[Decided]) -> list[common_pb2.Ack]:
        """Commit."""
        ...

    async def rollback(self, xids: Sequence[Xid]) -> list[common_pb2.Ack]:
        """Roll back."""
        ...


class UnaryCalls:
    """Each branch in a call of its own, all at once."""

    def __init__(self, stub: ResourceServiceAsyncStub, speaker: Speaker) -> None:
        self._stub = stub
        self._speaker = speaker

    async def prepare(self, requests: Sequence[resource_pb2.PrepareRequest]) -> list[common_pb2.Vote]:
        """Prepare, in as many calls."""
        return [*await asyncio.gather(*map(self._prepare, requests))]

    async def commit(self, commits: Sequence[Decided]) -> list[common_pb2.Ack]:
        """Commit, in as many calls."""
        requests = [
            resource_pb2.CommitRequest(
                xid=str(commit.xid),
                log_id=self._speaker.log_id,
                incarnation=commit.incarnation,
                sequence=commit.sequence,
                epoch=self._speaker.epoch,
            )
            for commit in commits
        ]
        answers = await asyncio.gather(*[self._stub.Commit(it, timeout=CALL_TIMEOUT_S) for it in requests])
        return [answer.ack for answer in answers]

    async def rollback(self, xids: Sequence[Xid]) -> list[common_pb2.Ack]:
        """Roll back, in as many calls."""
        requests = [
            resource_pb2.RollbackRequest(xid=str(xid), log_id=self._speaker.log_id, epoch=self._speaker.epoch)
            for xid in xids
        ]
        answers = await asyncio.gather(*[self._stub.Rollback(it, timeout=CALL_TIMEOUT_S) for it in requests])
        return [answer.ack for answer in answers]

    async def _prepare(self, request: resource_pb2.PrepareRequest) -> common_pb2.Vote:
        try:
            return (await self._stub.Prepare(request, timeout=CALL_TIMEOUT_S)).vote
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            return common_pb2.Vote(reason="INVALID_ARGUMENT", message=error.details() or "")


class SessionCalls:
    """Branches packed in frames of one session; what is asked together travels in one frame."""

    def __init__(self, call: SessionCall, speaker: Speaker) -> None:
        self._call = call
        self._speaker = speaker
        self._votes: dict[Xid, common_pb2.Vote] = {}
        self._commits: dict[Xid, common_pb2.Ack] = {}
        self._rollbacks: dict[Xid, common_pb2.Ack] = {}

    async def greet(self, hello: resource_pb2.HelloRequest) -> resource_pb2.HelloResponse:
        """Send the first frame; return the participant's."""
        await self._call.write(resource_pb2.SessionRequest(hello=hello, epoch=hello.epoch))
        frame = await self._read()
        if not frame.HasField("hello"):
            raise DeviationError("the first frame of a session is no Hello")
        return frame.hello

    async def close(self) -> None:
        """End the session."""
        await self._call.done_writing()
        self._call.cancel()

    async def prepare(self, requests: Sequence[resource_pb2.PrepareRequest]) -> list[common_pb2.Vote]:
        """Prepare, in one frame."""
        return (await self.together((), requests))[1]

    async def commit(self, commits: Sequence[Decided]) -> list[common_pb2.Ack]:
        """Commit, in one frame."""
        return (await self.together(commits, ()))[0]

    async def rollback(self, xids: Sequence[Xid]) -> list[common_pb2.Ack]:
        """Roll back, in one frame."""
        batch = resource_pb2.RollbackBatch(xids=b"".join(xids))
        await self._call.write(resource_pb2.SessionRequest(rollbacks=batch, epoch=self._speaker.epoch))
        while not all(xid in self._rollbacks for xid in xids):
            await self._take()
        return [self._rollbacks.pop(xid) for xid in xids]

    async def together(
        self, commits: Sequence[Decided], requests: Sequence[resource_pb2.PrepareRequest]
    ) -> tuple[list[common_pb2.Ack], list[common_pb2.Vote]]:
        """Commit and prepare, in one frame."""
        frame = resource_pb2.SessionRequest(epoch=self._speaker.epoch)
        for commit in commits:
            frame.commits.add(xids=commit.xid, incarnation=commit.incarnation, sequences=[commit.sequence])
        xids = [Xid.parse(request.xid) for request in requests]
        for request in requests:
            packed = frame.prepares.requests.add()
            packed.CopyFrom(request)
            packed.ClearField("xid")
            packed.ClearField("log_id")
        frame.prepares.xids = b"".join(xids)
        await self._call.write(frame)
        decided = [commit.xid for commit in commits]
        while not (all(xid in self._commits for xid in decided) and all(xid in self._votes for xid in xids)):
            await self._take()
        return [self._commits.pop(xid) for xid in decided], [self._votes.pop(xid) for xid in xids]

    async def _take(self) -> None:
        frame = await self._read()
        for xid in Xid.unpack(frame.votes.prepared_xids):
            self._votes[xid] = common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED)
        self._votes.update(zip(Xid.unpack(frame.votes.xids), frame.votes.votes, strict=True))
        for batch, acks in ((frame.commit_acks, self._commits), (frame.rollback_acks, self._rollbacks)):
            for xid in Xid.unpack(batch.done_xids):
                acks[xid] = common_pb2.Ack(kind=common_pb2.ACK_KIND_DONE)
            acks.update(zip(Xid.unpack(batch.xids), batch.acks, strict=True))

    async def _read(self) -> resource_pb2.SessionResponse:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            frame = await self._call.read()
        if not isinstance(frame, resource_pb2.SessionResponse):
            raise DeviationError("the session ended before every branch was answered")
        return frame
