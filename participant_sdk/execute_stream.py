"""Many transactions at once over one stream.

All that was asked for while the last frame was being written travels in the next one, and
answers come in batches too: that is what makes thousands a second possible. A stream that
breaks is opened again, at the next coordinator; what was in flight on it is settled by unary
calls, under the same request_ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import grpc
from pincex.tx.v1 import transaction_pb2

from participant_sdk.batching import Batcher
from participant_sdk.client_errors import NOT_SENT, Failed
from participant_sdk.client_results import Ending, Wait
from participant_sdk.client_wire import AnswerError, read_ending, read_failure, set_timeout
from participant_sdk.context import trace_headers
from participant_sdk.conversation import converse
from participant_sdk.coordinators import Coordinators, client_backoff
from participant_sdk.intents import REPLY_GRACE_S, Intent, Settling
from participant_sdk.operations import OperationLike

IN_FLIGHT_DEFAULT: Final = 1_024
FRAME_MAX_ITEMS: Final = 512
FRAME_MAX_BYTES: Final = 512 * 1024
SWEEP_S: Final = 0.25

if TYPE_CHECKING:
    # gRPC's calls are generic, and its asynchronous stubs have names, for type checkers only.
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

    _Stream = grpc.aio.StreamStreamCall[transaction_pb2.ExecuteStreamRequest, transaction_pb2.ExecuteStreamResponse]


class _Item:
    """One try of an intent on the stream. Slots, not frozen: one is made for every transaction."""

    __slots__ = ("answer", "intent", "sent", "size_bytes", "tag")

    def __init__(self, tag: int, intent: Intent, answer: asyncio.Future[Ending | Failed]) -> None:
        self.tag = tag
        self.intent = intent
        self.answer = answer
        self.sent = False
        self.size_bytes = intent.request.ByteSize()

    def resolve(self, answer: Ending | Failed) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)


class ExecuteStream:
    """Executes transactions over one stream, with at most ``in_flight`` under way on it.

    Made by ``TransactionClient.stream``; used as ``async with``. Leaving the block gives up the
    stream; executions still under way then go on by unary calls.
    """

    def __init__(
        self,
        coordinators: Coordinators,
        settling: Settling,
        intent_of: Callable[[Sequence[OperationLike], float | None, str | None, Wait], Intent],
        in_flight: int = IN_FLIGHT_DEFAULT,
    ) -> None:
        self._coordinators = coordinators
        self._settling = settling
        self._intent_of = intent_of
        self._slots = asyncio.Semaphore(in_flight)
        self._queue = Batcher[_Item](self._write, cap=min(FRAME_MAX_ITEMS, in_flight), bound=in_flight)
        self._open: dict[int, _Item] = {}
        self._next_tag = 1
        self._call: _Stream | None = None
        self._group = asyncio.TaskGroup()
        self._answered = False
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._runner = self._group.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        self._runner.cancel()
        await self._group.__aexit__(kind, error, trace)

    async def execute(
        self,
        operations: Sequence[OperationLike],
        *,
        timeout_s: float | None = None,
        request_id: str | None = None,
        wait: Wait = Wait.APPLIED,
    ) -> Ending:
        """Run one transaction to its ending; see ``TransactionClient.execute``, whose promises are the same.

        While ``in_flight`` transactions are under way on the stream it waits for a place, at the cost of
        its own ``timeout_s``. A try that may have begun it and was not answered is settled beside the stream.
        """
        intent = self._intent_of(operations, timeout_s, request_id, wait)
        return await self._settling.settle(intent, self._attempt)

    async def _attempt(self, intent: Intent) -> Ending | Failed:
        if not await self._enter(intent):
            return Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "no place on the stream in time", NOT_SENT)
        try:
            if self._closed:
                return await self._settling.attempt(intent)
            return await self._try_on_stream(intent)
        finally:
            self._slots.release()

    async def _enter(self, intent: Intent) -> bool:
        """Wait for a place on the stream while the intent has time."""
        if not self._slots.locked():
            # At once, and without the price of a timer.
            return await self._slots.acquire()
        try:
            async with asyncio.timeout(intent.left_s):
                return await self._slots.acquire()
        except TimeoutError:
            return False

    async def _try_on_stream(self, intent: Intent) -> Ending | Failed:
        set_timeout(intent.request.timeout, max(intent.left_s, 0.001))
        item = _Item(self._next_tag, intent, asyncio.get_running_loop().create_future())
        self._next_tag += 1
        self._open[item.tag] = item
        try:
            self._queue.put(item)
            return await item.answer
        finally:
            del self._open[item.tag]
            if not item.sent:
                # Given up before it left. Every item in the queue so belongs to somebody who has a
                # place, of which there are as many as the queue holds: it is never full.
                self._queue.discard(item)

    async def _run(self) -> None:
        """Keep a stream open until cancelled: at the next coordinator after each failure."""
        backoff = client_backoff()
        try:
            while True:
                if await self._session():
                    backoff = client_backoff()
                await asyncio.sleep(backoff.next_s())
        finally:
            self._fail_open("the stream was closed")

    async def _session(self) -> bool:
        """One stream from its opening to its end, whatever ended it. Tells whether it brought any answer."""
        stub = self._coordinators.stub
        self._answered = False
        self._call = stub.ExecuteStream(metadata=trace_headers())
        try:
            error = await converse(
                (self._queue.run, partial(self._sweep, stub), partial(self._read, self._call)),
                AnswerError,
                grpc.aio.AioRpcError,
                asyncio.InvalidStateError,
            )
            self._coordinators.turn_from(stub)
            self._fail_open(str(error))
        finally:
            self._call.cancel()
            self._call = None
        return self._answered

    async def _write(self, items: list[_Item]) -> None:
        """One round: everything that queued, in as few frames as their tags and sizes allow."""
        call = self._call
        if call is None:
            raise AnswerError("no stream is open")
        for frame in _frames(items):
            await call.write(frame)

    async def _read(self, call: _Stream) -> None:
        while isinstance(frame := await call.read(), transaction_pb2.ExecuteStreamResponse):
            self._answered = True
            for answer in frame.answers:
                item = self._open.get(answer.tag)
                if item is not None:
                    item.resolve(_read_answer(answer, item.intent.request_id))
        raise AnswerError("the coordinator ended the stream")

    async def _sweep(self, stub: TransactionServiceAsyncStub) -> None:
        """Give up waiting for answers that are overdue: their intents are settled by unary calls, elsewhere first."""
        while True:
            await asyncio.sleep(SWEEP_S)
            overdue = [item for item in self._open.values() if item.intent.left_s < -REPLY_GRACE_S]
            for item in overdue:
                self._coordinators.turn_from(stub)
                item.resolve(_not_answered(item, "no answer in time"))

    def _fail_open(self, why: str) -> None:
        """Tell everything queued or in flight that the stream is gone."""
        self._queue.drain()
        for item in self._open.values():
            item.resolve(_not_answered(item, why))


def _frames(items: Sequence[_Item]) -> Iterator[transaction_pb2.ExecuteStreamRequest]:
    """Put items into frames of consecutive tags and bounded size; those given up meanwhile are left out."""
    frame: list[_Item] = []
    size_bytes = 0
    for item in items:
        if item.answer.done():
            continue
        item.sent = True
        if frame and (item.tag != frame[-1].tag + 1 or size_bytes + item.size_bytes > FRAME_MAX_BYTES):
            yield _frame(frame)
            frame, size_bytes = [], 0
        frame.append(item)
        size_bytes += item.size_bytes
    if frame:
        yield _frame(frame)


def _frame(items: Sequence[_Item]) -> transaction_pb2.ExecuteStreamRequest:
    first = items[0]
    more = [item.intent.request for item in items[1:]]
    return transaction_pb2.ExecuteStreamRequest(tag=first.tag, request=first.intent.request, more=more)


def _read_answer(answer: transaction_pb2.ExecuteStreamAnswer, request_id: str) -> Ending | Failed:
    if answer.HasField("failure"):
        return read_failure(answer.failure)
    try:
        return read_ending(answer.result, request_id)
    except AnswerError as error:
        return Failed(grpc.StatusCode.DATA_LOSS, str(error))


def _not_answered(item: _Item, why: str) -> Failed:
    return Failed(grpc.StatusCode.UNAVAILABLE, why, "" if item.sent else NOT_SENT)
