"""ExecuteStream: many transactions in flight on one stream, without a task for any of them.

Requests go to the engine by waves, all that came meanwhile together, a piece at a time; what it tells of each goes into
a queue, and one writer sends all that ended while its last frame was on its way. A client that does not read
its answers is not read from either: at most ``IN_FLIGHT_MAX`` transactions are begun or
unanswered on one stream. When the stream breaks, its transactions go on without it (R16).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from math import ceil
from typing import Final

from pincex.tx.v1 import transaction_pb2

from coordinator.api import grpc_wire
from coordinator.api.gate import Gate
from coordinator.api.grpc_errors import AnyContext, failure_of, unforeseen
from coordinator.api.rejection import rejection
from coordinator.api.waves import Wave
from coordinator.errors import InvalidRequestError, TransactionError
from coordinator.requests import Ended, ExecuteCall
from coordinator.telemetry import Telemetry
from participant_sdk.batching import Batcher
from participant_sdk.xa import Decision

IN_FLIGHT_MAX: Final = 10_000
FRAME_REQUESTS_MAX: Final = 1024
BEGUN_MAX: Final = 256
HALVED_ABOVE: Final = 128
PIECE_BYTES: Final = 256 * 1024
ANSWERS_CAP: Final = 512
FRAME_RESULTS_MAX_CHARS: Final = 1024 * 1024

_COMMIT: Final = Decision.COMMIT

# An answer that waits to be sent: the request's tag, and how it ended. A plain tuple, made for every transaction.
_Answer = tuple[int, Ended | TransactionError]


class ClientStream:
    """One client's stream. ``serve`` returns when the client has said its last and everything is answered."""

    __slots__ = (
        "_answers",
        "_came",
        "_context",
        "_frames",
        "_gate",
        "_settled",
        "_telemetry",
        "_timeout_default_s",
        "_unsettled",
    )

    def __init__(self, gate: Gate, telemetry: Telemetry, context: AnyContext, timeout_default_s: float) -> None:
        self._gate = gate
        self._telemetry = telemetry
        self._context = context
        self._timeout_default_s = timeout_default_s
        # Read and not yet answered on the wire; the event is set whenever that goes down.
        self._unsettled = 0
        self._settled = asyncio.Event()
        # Read, and not begun yet; the event is set while there are any.
        self._frames: list[transaction_pb2.ExecuteStreamRequest] = []
        self._came = asyncio.Event()
        self._answers = Batcher(self._write, cap=ANSWERS_CAP, bound=IN_FLIGHT_MAX + FRAME_REQUESTS_MAX + 1)

    async def serve(self, frames: AsyncIterator[transaction_pb2.ExecuteStreamRequest | None]) -> None:
        """Take requests until the client closes its side, and send every answer.

        Cancelled (the client is gone), it leaves the transactions to the engine. InvalidRequestError
        for an unreadable frame (None) or one of too many requests, once all before it is answered.
        """
        refusal: InvalidRequestError | None = None
        async with asyncio.TaskGroup() as tasks:
            working = [tasks.create_task(part) for part in (self._begin_all(), self._answers.run())]
            async for frame in frames:
                refusal = _refusal_of(frame)
                if frame is None or refusal is not None:
                    break
                self._take(frame)
                await self._until_below(IN_FLIGHT_MAX)
            await self._until_below(1)
            for task in working:
                task.cancel()
        if refusal is not None:
            raise refusal

    async def _until_below(self, bound: int) -> None:
        while self._unsettled >= bound:
            self._settled.clear()
            await self._settled.wait()

    def _take(self, frame: transaction_pb2.ExecuteStreamRequest) -> None:
        count = 1 + len(frame.more)
        self._unsettled += count
        self._frames.append(frame)
        self._came.set()
        self._gate.waves.came(count)

    async def _begin_all(self) -> None:
        """Begin what comes, until cancelled: at each departure all that is there."""
        while True:
            await self._came.wait()
            wave = await self._gate.waves.departure()
            frames, self._frames = self._frames, []
            self._came.clear()
            requests = [
                (tag, request)
                for frame in frames
                for tag, request in enumerate((frame.request, *frame.more), frame.tag)
            ]
            size_bytes = sum([frame.ByteSize() for frame in frames])
            size = piece_size(len(requests), self._unsettled - len(requests), size_bytes)
            for at in range(0, len(requests), size):
                if at:
                    # What was begun leaves for the participants, and they work while the rest is read.
                    await asyncio.sleep(0)
                self._begin(wave, requests[at : at + size])

    def _begin(self, wave: Wave, requests: Sequence[tuple[int, transaction_pb2.ExecuteRequest]]) -> None:
        """Begin what came together, each request by itself, by its tag. All are read first: faster than by turns.

        What a request raises is its own answer: nothing of it was begun. What no rule foresees is counted, logged
        and answered with INTERNAL, which tells no outcome, whether it came of reading or of beginning.
        """
        self._gate.waves.begins(wave, len(requests))
        calls: list[tuple[int, ExecuteCall]] = []
        for tag, request in requests:
            try:
                calls.append((tag, grpc_wire.read_execute(request, self._timeout_default_s)))
            except Exception as error:  # noqa: BLE001 - what is wrong with one item must not end the others' stream
                self._answer(wave, tag, self._foreseen(error))
        for tag, call in calls:
            try:
                # All that is kept of the call meanwhile is what its answer may need.
                told = partial(self._told, wave, tag, call.services, call.request_id)
                self._gate.for_new_work().submit(call, told)
            except Exception as error:  # noqa: BLE001 - nor must what cannot begin
                self._answer(wave, tag, self._foreseen(error))

    def _told(
        self, wave: Wave, tag: int, services: tuple[str, ...], request_id: str, ended: Ended | TransactionError
    ) -> None:
        """Take how one request ended."""
        if isinstance(ended, Ended) and ended.outcome.decision is not _COMMIT:
            ended = self._judged(ended, services, request_id)
        self._answer(wave, tag, ended)

    def _answer(self, wave: Wave, tag: int, ended: Ended | TransactionError) -> None:
        """Queue the answer to one request."""
        self._answers.put((tag, ended))
        self._gate.waves.ended(wave)

    def _judged(self, ended: Ended, services: tuple[str, ...], request_id: str) -> Ended | TransactionError:
        try:
            return rejection(ended.outcome, services, request_id) or ended
        except Exception as error:  # noqa: BLE001 - it is this item's failure, and must not reach the engine
            return self._foreseen(error)

    def _foreseen(self, error: Exception) -> TransactionError:
        return error if isinstance(error, TransactionError) else unforeseen(self._telemetry, error)

    async def _write(self, answers: list[_Answer]) -> None:
        frame = transaction_pb2.ExecuteStreamResponse()
        size_chars = 0
        for tag, ended in answers:
            answer = frame.answers.add()
            answer.tag = tag % 2**64
            size_chars += self._write_answer(ended, answer)
            if size_chars > FRAME_RESULTS_MAX_CHARS:
                await self._context.write(frame)
                frame, size_chars = transaction_pb2.ExecuteStreamResponse(), 0
        await self._context.write(frame)
        self._telemetry.batch("client_stream", len(answers))
        self._unsettled -= len(answers)
        self._settled.set()

    def _write_answer(self, ended: Ended | TransactionError, answer: transaction_pb2.ExecuteStreamAnswer) -> int:
        """Write one answer; return roughly how many characters its results take."""
        if isinstance(ended, Ended):
            try:
                return grpc_wire.write_ended(ended, answer.result)
            except Exception as error:  # noqa: BLE001 - a result that cannot be written fails alone
                ended = unforeseen(self._telemetry, error)
        self._telemetry.refused("grpc", ended.reason)
        answer.failure.CopyFrom(failure_of(ended))
        return 0


def piece_size(requests: int, under_way: int, size_bytes: int) -> int:
    """How many of so many requests to begin at once, while ``under_way`` others of the stream are unanswered.

    ``size_bytes`` is theirs together: while large requests are read, nobody else has a turn.

    A large batch costs less of everybody's time for each. Yet where most of what there is comes at once, it is
    begun by halves: or the participants would wait while it is read, and the coordinator while they work.
    """
    pieces = max(ceil(requests / BEGUN_MAX), ceil(size_bytes / PIECE_BYTES))
    if requests > HALVED_ABOVE and under_way < requests // 2:
        pieces = max(pieces, 2)
    return ceil(requests / pieces)


def _refusal_of(frame: transaction_pb2.ExecuteStreamRequest | None) -> InvalidRequestError | None:
    if frame is None:
        return InvalidRequestError("the frame is no message of this stream", field="request", code="MESSAGE_MALFORMED")
    if len(frame.more) >= FRAME_REQUESTS_MAX:
        return InvalidRequestError(
            f"a frame has at most {FRAME_REQUESTS_MAX} requests", field="more", code="FRAME_TOO_LARGE"
        )
    return None
