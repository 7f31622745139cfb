"""The two ways to call a participant, unary and Session, behind one face: messages in, raw messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.line import CALL_TIMEOUT_S, Line, shown_status
from participant_sdk.conformance.report import DeviationError
from participant_sdk.conformance.words import Words
from participant_sdk.ids import InvalidIdentifierError, Xid

SessionCall = grpc.aio.StreamStreamCall[resource_pb2.SessionRequest, resource_pb2.SessionResponse]

REFUSED: Final = "INVALID_ARGUMENT"


@dataclass(slots=True)
class Speaker:
    """The coordinator that the kit plays. Mutable: the epoch rises."""

    log_id: str
    incarnation: int
    epoch: int


def greeting_of(speaker: Speaker, addresses: Sequence[str], unix_ms: int) -> resource_pb2.HelloRequest:
    """Make an introduction; ``addresses`` are whom to ask when in doubt."""
    return resource_pb2.HelloRequest(
        log_id=speaker.log_id,
        coordinator="conformance",
        incarnation=speaker.incarnation,
        epoch=speaker.epoch,
        coordinator_addresses=addresses,
        clock_unix_ms=unix_ms,
    )


class Decided(NamedTuple):
    """A Commit to send."""

    xid: Xid
    incarnation: int
    sequence: int


def commit_request(speaker: Speaker, decided: Decided) -> resource_pb2.CommitRequest:
    """Make a Commit."""
    return resource_pb2.CommitRequest(
        xid=str(decided.xid),
        log_id=speaker.log_id,
        incarnation=decided.incarnation,
        sequence=decided.sequence,
        epoch=speaker.epoch,
    )


def rollback_request(speaker: Speaker, xid: Xid) -> resource_pb2.RollbackRequest:
    """Make a Rollback."""
    return resource_pb2.RollbackRequest(xid=str(xid), log_id=speaker.log_id, epoch=speaker.epoch)


class Calls(Protocol):
    """Sends branches, any number at once, and returns one answer for each, in order.

    A Prepare that is refused with INVALID_ARGUMENT gets the vote UNSPECIFIED with reason ``INVALID_ARGUMENT``.
    """

    async def hello(self, request: resource_pb2.HelloRequest) -> resource_pb2.HelloResponse:
        """Introduce oneself."""
        ...

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

    def __init__(self, line: Line, speaker: Speaker, words: Words) -> None:
        self._line = line
        self._speaker = speaker
        self._words = words

    async def hello(self, request: resource_pb2.HelloRequest) -> resource_pb2.HelloResponse:
        """Introduce oneself."""
        return await self._line.hello(request)

    async def prepare(self, requests: Sequence[resource_pb2.PrepareRequest]) -> list[common_pb2.Vote]:
        """Prepare, in as many calls."""
        return [*await asyncio.gather(*map(self._prepare, requests))]

    async def commit(self, commits: Sequence[Decided]) -> list[common_pb2.Ack]:
        """Commit, in as many calls."""
        requests = [commit_request(self._speaker, commit) for commit in commits]
        answers = await asyncio.gather(*map(self._line.commit, requests))
        return [self._words.heard_ack(answer.ack) for answer in answers]

    async def rollback(self, xids: Sequence[Xid]) -> list[common_pb2.Ack]:
        """Roll back, in as many calls."""
        requests = [rollback_request(self._speaker, xid) for xid in xids]
        answers = await asyncio.gather(*map(self._line.rollback, requests))
        return [self._words.heard_ack(answer.ack) for answer in answers]

    async def _prepare(self, request: resource_pb2.PrepareRequest) -> common_pb2.Vote:
        try:
            return self._words.heard_vote((await self._line.prepare(request)).vote)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            return common_pb2.Vote(reason=REFUSED, message=error.details() or "")


class SessionCalls:
    """Branches packed in frames of one session; what is asked together travels in one frame."""

    def __init__(self, call: SessionCall, line: Line, speaker: Speaker, words: Words) -> None:
        self._call = call
        self._exchange = line.exchange
        self._speaker = speaker
        self._words = words
        self._hello: resource_pb2.HelloResponse | None = None
        self._votes: dict[Xid, common_pb2.Vote] = {}
        self._commits: dict[Xid, common_pb2.Ack] = {}
        self._rollbacks: dict[Xid, common_pb2.Ack] = {}

    async def hello(self, request: resource_pb2.HelloRequest) -> resource_pb2.HelloResponse:
        """Introduce oneself, first or again."""
        await self._write(resource_pb2.SessionRequest(hello=request, epoch=request.epoch))
        while self._hello is None:
            await self._take()
        hello, self._hello = self._hello, None
        return hello

    async def close(self) -> None:
        """End the session."""
        # It may have ended already.
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()
        self._call.cancel()

    async def prepare(self, requests: Sequence[resource_pb2.PrepareRequest]) -> list[common_pb2.Vote]:
        """Prepare, in one frame."""
        return (await self.together(requests=requests)).votes

    async def commit(self, commits: Sequence[Decided]) -> list[common_pb2.Ack]:
        """Commit, in one frame."""
        return (await self.together(commits)).commits

    async def rollback(self, xids: Sequence[Xid]) -> list[common_pb2.Ack]:
        """Roll back, in one frame."""
        return (await self.together(rollbacks=xids)).rollbacks

    async def together(
        self,
        commits: Sequence[Decided] = (),
        rollbacks: Sequence[Xid] = (),
        requests: Sequence[resource_pb2.PrepareRequest] = (),
    ) -> Together:
        """Commit, roll back and prepare, in one frame."""
        frame = resource_pb2.SessionRequest(epoch=self._speaker.epoch)
        for commit in commits:
            frame.commits.add(xids=commit.xid, incarnation=commit.incarnation, sequences=[commit.sequence])
        if rollbacks:
            frame.rollbacks.xids = b"".join(rollbacks)
        xids = [Xid.parse(request.xid) for request in requests]
        for request in requests:
            packed = frame.prepares.requests.add()
            packed.CopyFrom(request)
            packed.ClearField("xid")
            packed.ClearField("log_id")
        frame.prepares.xids = b"".join(xids)
        await self._write(frame)
        decided = [commit.xid for commit in commits]
        while not (
            all(xid in self._commits for xid in decided)
            and all(xid in self._rollbacks for xid in rollbacks)
            and all(xid in self._votes for xid in xids)
        ):
            await self._take()
        return Together(
            [self._commits.pop(xid) for xid in decided],
            [self._rollbacks.pop(xid) for xid in rollbacks],
            [self._votes.pop(xid) for xid in xids],
        )

    async def _write(self, frame: resource_pb2.SessionRequest) -> None:
        self._exchange.sent("Session", frame)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._call.write(frame)
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError) as error:
            raise DeviationError(f"the session ended: {await self._ending()}") from error

    async def _take(self) -> None:
        frame = await self._read()
        self._exchange.came("Session", frame)
        if frame.HasField("hello"):
            self._hello = frame.hello
        try:
            for xid in Xid.unpack(frame.votes.prepared_xids):
                self._votes[xid] = common_pb2.Vote(kind=common_pb2.VOTE_KIND_PREPARED)
            votes = zip(Xid.unpack(frame.votes.xids), frame.votes.votes, strict=True)
            self._votes.update((xid, self._words.heard_vote(vote)) for xid, vote in votes)
            for batch, acks in ((frame.commit_acks, self._commits), (frame.rollback_acks, self._rollbacks)):
                for xid in Xid.unpack(batch.done_xids):
                    acks[xid] = common_pb2.Ack(kind=common_pb2.ACK_KIND_DONE)
                others = zip(Xid.unpack(batch.xids), batch.acks, strict=True)
                acks.update((xid, self._words.heard_ack(ack)) for xid, ack in others)
        except (ValueError, InvalidIdentifierError) as error:
            raise DeviationError(f"a frame whose columns do not fit together: {error}") from error

    async def _read(self) -> resource_pb2.SessionResponse:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                frame = await self._call.read()
        except TimeoutError as error:
            raise DeviationError(f"no answer in the session for {CALL_TIMEOUT_S:.0f} s") from error
        except grpc.aio.AioRpcError as error:
            raise DeviationError(f"the session ended: {shown_status(error)}") from error
        if not isinstance(frame, resource_pb2.SessionResponse):
            raise DeviationError(f"the session ended before every branch was answered: {await self._ending()}")
        return frame

    async def _ending(self) -> str:
        return f"{(await self._call.code()).name} {await self._call.details()}".strip()


class Together(NamedTuple):
    """The answers to one frame."""

    commits: list[common_pb2.Ack]
    rollbacks: list[common_pb2.Ack]
    votes: list[common_pb2.Vote]
