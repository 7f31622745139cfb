"""The coordinators a client knows: one channel each, taken in turn when one fails.

Any coordinator takes any call, so a client stays with one while it answers, and goes to the
next when it does not. Clients start at different ones.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from pincex.tx.v1.lock_pb2_grpc import LockServiceStub
from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceStub

from participant_sdk.backoff import Backoff
from participant_sdk.client_errors import Failed, error_of, late_error_of
from participant_sdk.client_wire import AnswerError, read_status
from participant_sdk.context import trace_headers
from participant_sdk.grpc_options import CHANNEL_OPTIONS

if TYPE_CHECKING:
    # The asynchronous stub is a name for type checkers; what makes one is the plain stub.
    from pincex.tx.v1.lock_pb2_grpc import LockServiceAsyncStub
    from pincex.tx.v1.transaction_pb2_grpc import TransactionServiceAsyncStub

BACKOFF_FIRST_S: Final = 0.02
BACKOFF_MAX_S: Final = 1.0
# A coordinator that is silent for so long is left for the next one, by calls that may be made again. A frozen process
# keeps its connections, so that pings alone tell of it, and later.
TRY_MAX_S: Final = 5.0

_CHANNEL_OPTIONS: Final = {
    **dict(CHANNEL_OPTIONS),
    # Only calls are worth a ping; coordinators take one every ten seconds at most.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 0,
    # A coordinator that comes back is found within a second, not gRPC's two minutes.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1_000,
}
_RANDOM: Final = random.SystemRandom()

Request = TypeVar("Request")
Answer = TypeVar("Answer")
Read = TypeVar("Read")


def client_backoff() -> Backoff:
    """The pauses between tries: 20 ms, 40 ms, and so on up to a second, with jitter."""
    return Backoff(_RANDOM, first_s=BACKOFF_FIRST_S, cap_s=BACKOFF_MAX_S)


class Coordinators:
    """One channel per address; ``stub`` is the one in use."""

    __slots__ = ("_at", "_channels", "_lock_stubs", "_stubs", "addresses")

    def __init__(self, addresses: Sequence[str] | str) -> None:
        self.addresses = (addresses,) if isinstance(addresses, str) else tuple(addresses)
        if not self.addresses or not all(self.addresses):
            raise ValueError("a client needs at least one coordinator's address, host:port")
        self._channels = [
            grpc.aio.insecure_channel(address, options=tuple(_CHANNEL_OPTIONS.items())) for address in self.addresses
        ]
        self._stubs: list[TransactionServiceAsyncStub] = [TransactionServiceStub(c) for c in self._channels]
        self._lock_stubs: list[LockServiceAsyncStub] = [LockServiceStub(c) for c in self._channels]
        self._at = _RANDOM.randrange(len(self._stubs))

    @property
    def stub(self) -> TransactionServiceAsyncStub:
        """The coordinator in use."""
        return self._stubs[self._at]

    @property
    def locks(self) -> LockServiceAsyncStub:
        """The locks of the coordinator in use."""
        return self._lock_stubs[self._at]

    def turn_from(self, failed: TransactionServiceAsyncStub) -> None:
        """Go on to the next coordinator, unless another call has already left this one."""
        if self._stubs[self._at] is failed:
            self._at = (self._at + 1) % len(self._stubs)

    async def ask(
        self,
        call_of: Callable[[TransactionServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
        request: Request,
        timeout_s: float,
        read: Callable[[Answer], Read],
    ) -> Read | Failed:
        """Make one call at the coordinator in use, and read its answer.

        A status, or an answer that breaks the contract, is a ``Failed``; unless it is about the request
        itself, the next call goes to the next coordinator.
        """
        stub = self.stub
        answer = await _ask(stub, call_of, request, timeout_s, read)
        if isinstance(answer, Failed) and not _is_about_request(answer):
            self.turn_from(stub)
        return answer

    async def insist(
        self,
        call_of: Callable[[TransactionServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
        request: Request,
        timeout_s: float,
        read: Callable[[Answer], Read],
        tries_each: int = 1,
    ) -> Read:
        """Make a call that decides nothing, at the coordinators in turn, until one answers.

        ``tries_each``: how often in a row at one of them, unless it is silent. ClientError where trying
        again is no use; UnavailableError when ``timeout_s`` is over, RequestInUseError if the last answer was that.
        """
        until_s = time.monotonic() + timeout_s
        backoff = client_backoff()
        stub, tried = self.stub, 0
        while True:
            try_s = min(max(until_s - time.monotonic(), 0.001), TRY_MAX_S)
            answer = await _ask(stub, call_of, request, try_s, read)
            if not isinstance(answer, Failed):
                return answer
            if (error := error_of(answer)) is not None:
                raise error
            pause_s = max(backoff.next_s(), answer.retry_after_s)
            if time.monotonic() + pause_s >= until_s:
                addresses = ", ".join(self.addresses)
                raise late_error_of(answer, f"no answer from {addresses} in {timeout_s:g} s: {answer}")
            tried += 1
            if (tried >= tries_each or answer.is_silence) and not answer.in_use:
                self.turn_from(stub)
                stub, tried = self.stub, 0
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """End every channel at once; calls in flight fail."""
        for channel in self._channels:
            await channel.close()


async def _ask(
    stub: TransactionServiceAsyncStub,
    call_of: Callable[[TransactionServiceAsyncStub], grpc.aio.UnaryUnaryMultiCallable[Request, Answer]],
    request: Request,
    timeout_s: float,
    read: Callable[[Answer], Read],
) -> Read | Failed:
    try:
        return read(await call_of(stub)(request, timeout=timeout_s, metadata=trace_headers()))
    except grpc.aio.AioRpcError as error:
        return read_status(error)
    except AnswerError as error:
        return Failed(grpc.StatusCode.DATA_LOSS, str(error))


def _is_about_request(failed: Failed) -> bool:
    """The coordinator is well; any other would say the same."""
    return failed.in_use or error_of(failed) is not None
