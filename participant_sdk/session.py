"""A session, seen from the participant, above a frame stream (gRPC's or the simulation's).

Frames in: each branch goes to the workers by itself. Answers out: everything that is ready when
the last frame has left rides in the next. A coordinator that does not read its answers is not
read from either.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from pincex.tx.v1 import resource_pb2

from participant_sdk.answers import AnswerQueue
from participant_sdk.clock import Clock
from participant_sdk.frames import BadFrameError, PackedPrepare, read_commits, read_prepares, read_rollbacks
from participant_sdk.hello import EPOCH_STALE, LOG_MISMATCH, Introduction, Welcome
from participant_sdk.known_logs import KnownLogs, ParticipantFailedError
from participant_sdk.participant import Participant, Rollback
from participant_sdk.transport import ServerStream, StreamClosedError
from participant_sdk.wire import InvalidFieldError, read_introduction, read_prepare, write_welcome
from participant_sdk.worker import Workers
from participant_sdk.xa import STALE, Ack, AckKind, Vote, XaCode, invalid, transient_no

IMPLAUSIBLE_ACK: Final = Ack(AckKind.RETRY, XaCode.RETRY, "no log can have drawn the deciding incarnation by now")
STALE_VOTE: Final = transient_no(EPOCH_STALE, "the coordinator speaks for an older epoch of the log")

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _RefusedError(Exception):
    """The coordinator was refused, and told so: the session ends."""


class SessionServer:
    """Serves sessions of one participant: many at once, of many coordinators and logs."""

    def __init__(self, participant: Participant, workers: Workers, logs: KnownLogs, *, clock: Clock) -> None:
        self._name = participant.name
        self._workers = workers
        self._logs = logs
        self._clock = clock

    async def serve(self, stream: ServerStream) -> None:
        """Serve one session until the stream ends or the coordinator is refused.

        Answers to work under way when it ends are dropped; the work goes on. BadFrameError
        when a frame makes no sense: the stream is to be closed.
        """
        try:
            frame = await stream.receive()
            session = await self._open(stream, frame)
            await session.run(frame)
        except (StreamClosedError, _RefusedError) as error:
            _log.info("session_ended", participant=self._name, reason=str(error))
        except ParticipantFailedError as error:
            # The store behind the participant is out of reach; the coordinator comes again.
            _log.warning("session_ended", participant=self._name, reason=str(error))

    async def _open(self, stream: ServerStream, frame: resource_pb2.SessionRequest) -> _Session:
        if not frame.HasField("hello"):
            raise BadFrameError("the first frame of a session is a Hello")
        introduction = _read_hello(frame.hello)
        welcome = await self._logs.greet(introduction, frame.hello.clock_unix_ms)
        await stream.send(resource_pb2.SessionResponse(hello=write_welcome(welcome)))
        if welcome.refusal:
            raise _RefusedError(welcome.refusal)
        frame.ClearField("hello")
        return _Session(self._name, introduction, self._workers, self._logs, stream, self._clock)


class _Session:
    """One open session: which log it speaks for, and what waits to leave on it."""

    __slots__ = ("_answers", "_clock", "_introduction", "_logs", "_name", "_stream", "_workers")

    def __init__(
        self,
        name: str,
        introduction: Introduction,
        workers: Workers,
        logs: KnownLogs,
        stream: ServerStream,
        clock: Clock,
    ) -> None:
        self._name = name
        self._introduction = introduction
        self._workers = workers
        self._logs = logs
        self._stream = stream
        self._clock = clock
        self._answers = AnswerQueue()

    async def run(self, first: resource_pb2.SessionRequest) -> None:
        """Read and write until the session ends, which is always an error; only one of them is told."""
        end: Exception = StreamClosedError("the session ended")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_all(first))
                group.create_task(self._write_all())
        except* (StreamClosedError, _RefusedError, BadFrameError, ParticipantFailedError) as errors:
            # Raised below: what is raised in here would come out as a group again.
            end = errors.exceptions[0]
        raise end

    async def _read_all(self, frame: resource_pb2.SessionRequest) -> None:
        """Read until the stream ends, or until a later introduction is refused."""
        while await self._take(frame):
            await self._answers.room()
            frame = await self._stream.receive()

    async def _write_all(self) -> None:
        while True:
            frame = await self._answers.next_frame()
            await self._stream.send(frame)
            if frame.hello.refusal:
                raise _RefusedError(frame.hello.refusal)

    async def _take(self, frame: resource_pb2.SessionRequest) -> bool:
        """Hand a frame's branches on; False once the coordinator is refused."""
        # Deadlines count from here, whatever the participant's store takes to adopt an epoch (R16).
        now_s = self._clock.monotonic_s()
        if frame.HasField("hello") and not await self._greet(frame.hello):
            return False
        stale = frame.epoch < await self._admit(frame.epoch)
        # Checked as a whole before anything of it is begun.
        commits = read_commits(frame.commits, self._introduction.log_id, frame.epoch)
        rollbacks = read_rollbacks(frame.rollbacks)
        prepares = read_prepares(frame.prepares)
        for commit in commits:
            if stale:
                self._answers.committed(commit.xid, STALE)
            elif not self._logs.is_plausible(commit.incarnation):
                # Its watermark would tell every coordinator that the log lost decisions (R15).
                self._answers.committed(commit.xid, IMPLAUSIBLE_ACK)
            else:
                self._workers.commit(commit, self._answers.committed)
        for xid in rollbacks:
            if stale:
                self._answers.rolled_back(xid, STALE)
            else:
                self._workers.rollback(Rollback(self._introduction.log_id, xid), self._answers.rolled_back)
        for packed in prepares:
            if stale:
                self._answers.voted(packed.xid, STALE_VOTE)
            else:
                self._prepare(packed, now_s)
        return True

    def _prepare(self, packed: PackedPrepare, now_s: float) -> None:
        try:
            branch = read_prepare(
                packed.request, packed.xid, self._introduction.log_id, service=self._name, now_s=now_s
            )
        except InvalidFieldError as error:
            self._answers.voted(packed.xid, refused_field(error))
            return
        self._workers.prepare(branch, self._answers.voted)

    async def _admit(self, epoch: int) -> int:
        try:
            return await self._logs.admit(self._introduction.log_id, epoch)
        except InvalidFieldError as error:
            raise BadFrameError(f"{error.field}: {error}") from error

    async def _greet(self, hello: resource_pb2.HelloRequest) -> bool:
        introduction = _read_hello(hello)
        if introduction.log_id != self._introduction.log_id:
            welcome = Welcome(self._name, self._clock.unix_ms(), 0, refusal=LOG_MISMATCH, number=introduction.number)
        else:
            welcome = await self._logs.greet(introduction, hello.clock_unix_ms)
        self._answers.welcomed(welcome)
        return not welcome.refusal


def refused_field(error: InvalidFieldError) -> Vote:
    """Make the vote on a branch with a field that is wrong in itself: this branch's alone (R17)."""
    return invalid("INVALID_FIELD", f"{error.field}: {error}", error.field)


def _read_hello(hello: resource_pb2.HelloRequest) -> Introduction:
    try:
        return read_introduction(hello)
    except InvalidFieldError as error:
        raise BadFrameError(f"hello.{error.field}: {error}") from error
