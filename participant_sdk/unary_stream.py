"""A session's frames carried by unary calls, for participants that do not serve Session.

The same frames in and out, so that the link above needs no second way. Each branch becomes one
call; a failed call never becomes an outcome (R19): a failed Prepare is a transient "no", a failed
Commit or Rollback is RETRY. Endings and prepares have callers of their own, so that slow
prepares hold up no commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import grpc
from pincex.tx.v1 import resource_pb2

from participant_sdk.frames import Answered, PackedPrepare, read_commits, read_prepares, read_rollbacks, write_answers
from participant_sdk.ids import Xid
from participant_sdk.participant import Commit
from participant_sdk.transport import StreamClosedError
from participant_sdk.wire import read_ack, read_vote
from participant_sdk.xa import Ack, AckKind, Vote, XaCode, transient_no

if TYPE_CHECKING:
    # The stubs know it; at run time there is one class for both kinds of channel.
    from pincex.tx.v1.resource_pb2_grpc import ResourceServiceAsyncStub

PREPARE_CALLERS: Final = 48
ENDING_CALLERS: Final = 16
QUEUE_BOUND: Final = 10_000
CALL_TIMEOUT_S: Final = 30.0
# A call outlives the vote's own time by this much, so that the participant's "no" still arrives.
ANSWER_GRACE_S: Final = 1.0

Answer = TypeVar("Answer")
_Call = Callable[[], Awaitable[None]]


class CallFailedError(Exception):
    """A unary call failed. ``code`` is gRPC's; the message is for people. It tells no outcome."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnaryStream:
    """A ``ClientStream`` over unary calls, a bounded number at once.

    It owns its tasks: ``close`` cancels them and waits for their end. No ``async with`` can own
    them, because a stream's life has no block of its own.
    """

    def __init__(self, stub: ResourceServiceAsyncStub) -> None:
        self._stub = stub
        self._log_id = ""
        self._prepares: asyncio.Queue[_Call] = asyncio.Queue(QUEUE_BOUND)
        self._endings: asyncio.Queue[_Call] = asyncio.Queue(QUEUE_BOUND)
        self._answered = Answered()
        self._hello: resource_pb2.HelloResponse | None = None
        self._wake = asyncio.Event()
        self._broken = ""
        self._callers = [asyncio.create_task(self._call_all(self._prepares)) for _ in range(PREPARE_CALLERS)]
        self._callers += [asyncio.create_task(self._call_all(self._endings)) for _ in range(ENDING_CALLERS)]

    async def send(self, frame: resource_pb2.SessionRequest) -> None:
        """Queue a frame's calls; Hello is called at once. StreamClosedError when the participant is gone."""
        if self._broken:
            raise StreamClosedError(self._broken)
        if frame.HasField("hello"):
            await self._call_hello(frame.hello)
        for commit in read_commits(frame.commits, self._log_id, frame.epoch):
            self._queue_commit(commit)
        for xid in read_rollbacks(frame.rollbacks):
            self._queue_rollback(xid, frame.epoch)
        for packed in read_prepares(frame.prepares):
            self._queue_prepare(packed)

    async def receive(self) -> resource_pb2.SessionResponse:
        """All answers since the last call, once there is one. StreamClosedError when the participant is gone."""
        await self._wake.wait()
        self._wake.clear()
        if not self._answered and self._hello is None:
            raise StreamClosedError(self._broken)
        answered, self._answered = self._answered, Answered()
        frame = write_answers(answered)
        if self._hello is not None:
            frame.hello.CopyFrom(self._hello)
            self._hello = None
        if self._broken:
            # These answers first, then the end.
            self._wake.set()
        return frame

    async def close(self) -> None:
        """Cancel the calls under way, and wait until they have ended."""
        self._broken = self._broken or "closed"
        for caller in self._callers:
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        self._wake.set()

    async def _call_hello(self, hello: resource_pb2.HelloRequest) -> None:
        self._log_id = hello.log_id
        try:
            self._hello = await _reply(self._stub.Hello(hello, timeout=CALL_TIMEOUT_S))
        except CallFailedError as error:
            raise StreamClosedError(f"Hello failed: {error}") from error
        self._wake.set()

    def _queue_prepare(self, packed: PackedPrepare) -> None:
        packed.request.xid, packed.request.log_id = str(packed.xid), self._log_id
        timeout_s = packed.request.remaining_ms / 1000 + ANSWER_GRACE_S

        async def call() -> None:
            try:
                response = await _reply(self._stub.Prepare(packed.request, timeout=timeout_s))
            except CallFailedError as error:
                self._voted(packed.xid, self._vote_of(error))
            else:
                self._voted(packed.xid, read_vote(response.vote))

        try:
            self._prepares.put_nowait(call)
        except asyncio.QueueFull:
            self._voted(packed.xid, transient_no("PARTICIPANT_BUSY", "too many calls are waiting"))

    def _queue_commit(self, commit: Commit) -> None:
        request = resource_pb2.CommitRequest(
            xid=str(commit.xid),
            log_id=self._log_id,
            incarnation=commit.incarnation,
            sequence=commit.sequence,
            epoch=commit.epoch,
        )

        async def call() -> None:
            try:
                response = await _reply(self._stub.Commit(request, timeout=CALL_TIMEOUT_S))
            except CallFailedError as error:
                self._committed(commit.xid, self._ack_of(error))
            else:
                self._committed(commit.xid, read_ack(response.ack))

        try:
            self._endings.put_nowait(call)
        except asyncio.QueueFull:
            self._committed(commit.xid, _retry("too many calls are waiting"))

    def _queue_rollback(self, xid: Xid, epoch: int) -> None:
        request = resource_pb2.RollbackRequest(xid=str(xid), log_id=self._log_id, epoch=epoch)

        async def call() -> None:
            try:
                response = await _reply(self._stub.Rollback(request, timeout=CALL_TIMEOUT_S))
            except CallFailedError as error:
                self._rolled_back(xid, self._ack_of(error))
            else:
                self._rolled_back(xid, read_ack(response.ack))

        try:
            self._endings.put_nowait(call)
        except asyncio.QueueFull:
            self._rolled_back(xid, _retry("too many calls are waiting"))

    async def _call_all(self, calls: asyncio.Queue[_Call]) -> NoReturn:
        while True:
            call = await calls.get()
            await call()

    def _vote_of(self, error: CallFailedError) -> Vote:
        self._notice(error)
        return transient_no("CALL_FAILED", f"Prepare failed: {error}", xa_code=XaCode.RBCOMMFAIL)

    def _ack_of(self, error: CallFailedError) -> Ack:
        self._notice(error)
        return _retry(str(error))

    def _notice(self, error: CallFailedError) -> None:
        """A participant that cannot be reached ends the stream, after the answers that are in."""
        if error.code is grpc.StatusCode.UNAVAILABLE and not self._broken:
            self._broken = str(error)
            self._wake.set()

    def _voted(self, xid: Xid, vote: Vote) -> None:
        self._answered.votes.append((xid, vote))
        self._wake.set()

    def _committed(self, xid: Xid, ack: Ack) -> None:
        self._answered.commit_acks.append((xid, ack))
        self._wake.set()

    def _rolled_back(self, xid: Xid, ack: Ack) -> None:
        self._answered.rollback_acks.append((xid, ack))
        self._wake.set()


def _retry(message: str) -> Ack:
    return Ack(AckKind.RETRY, XaCode.RETRY, message)


async def _reply(call: Awaitable[Answer | None]) -> Answer:
    """Await a call's answer. CallFailedError for a status, and for bytes that are no answer."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        raise CallFailedError(error.code(), f"{error.code().name}: {error.details()}") from error
    if answer is None:
        # grpc.aio logs bytes that do not parse, and hands out None for them.
        raise CallFailedError(grpc.StatusCode.INTERNAL, "the answer is no message of the contract")
    return answer
