"""The service over HTTP: one call each for try, confirm and cancel, bounded in time, size and number.

Nothing is followed or repeated here: no redirects, no second attempts, no proxy from the environment.
An answer is read as it came, uncompressed, and no further than 64 KiB.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import httpx

from participant_sdk.clock import Clock
from participant_sdk.ids import BranchId
from participant_sdk.participant import Prepare
from participant_sdk.xa import XaCode, transient_no
from sidecars.http.answers import ANSWER_MAX_BYTES, Tried, is_done, read_try, unknown
from sidecars.http.journal import HeldState, Owed
from sidecars.http.requests import SIGNATURE, ending_body, signature, try_body
from sidecars.http.target import Target

# One connection carries one call. Whatever a service sends beyond its answer, a second one above all, would otherwise
# be read as the answer to the next call, which is of another branch.
_HEADERS: Final = {
    "connection": "close",
    "user-agent": "pincex-http-sidecar",
    "accept": "application/json",
    "accept-encoding": "identity",
    "content-type": "application/json",
}


class _BusyError(Exception):
    """The service was not called: too many calls were under way."""


class _FailedError(Exception):
    """No answer, or none that can be taken. The message says how, and tells nothing of what the service did."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class _Answer(NamedTuple):
    status: int
    body: bytes


class Service:
    """A service's three URLs, as called by the participant of this name."""

    def __init__(self, name: str, target: Target, client: httpx.AsyncClient, clock: Clock) -> None:
        self._name = name
        self._target = target
        self._client = client
        self._clock = clock
        # Apart, so that a service whose confirms hang is still asked for votes, and the other way round.
        self._trying = asyncio.Semaphore(target.calls_at_once)
        self._ending = asyncio.Semaphore(target.calls_at_once)

    @classmethod
    @asynccontextmanager
    async def open(cls, name: str, target: Target, clock: Clock) -> AsyncGenerator[Service]:
        """Keep connections to the service until the block ends. Nobody need be there yet."""
        async with httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            verify=ssl.create_default_context(),
            timeout=target.timeout_s,
            limits=httpx.Limits(max_connections=2 * target.calls_at_once, max_keepalive_connections=0),
            headers=_HEADERS,
        ) as client:
            yield cls(name, target, client, clock)

    async def attempt(self, prepare: Prepare) -> Tried:
        """Ask the service to try a branch; what it does not answer in time is unknown.

        One whose turn does not come was not asked, so nothing is owed of it.
        """
        branch = BranchId(prepare.log_id, prepare.xid, self._name)
        try:
            async with self._turn(self._trying, within_s=self._left_s(prepare)):
                left_s = min(self._target.timeout_s, self._left_s(prepare))
                body = try_body(branch, prepare, max(0, int(left_s * 1000)))
                answer = await self._post(self._target.try_url, body, left_s)
        except _BusyError as error:
            return Tried(transient_no("SERVICE_BUSY", f"{self._name}: try: {error}"))
        except _FailedError as error:
            xa_code = XaCode.RBTIMEOUT if error.reason == "SERVICE_TIMED_OUT" else XaCode.RBCOMMFAIL
            return unknown(error.reason, f"{self._name}: try: {error}", xa_code=xa_code)
        return read_try(answer.status, answer.body, len(prepare.operations))

    async def end(self, owed: Owed) -> str:
        """Ask the service to confirm or cancel a branch; empty once it is done, else why it is not."""
        is_confirm = owed.state is HeldState.CONFIRMING
        call = "confirm" if is_confirm else "cancel"
        url = self._target.confirm_url if is_confirm else self._target.cancel_url
        body = ending_body(call, BranchId(owed.log_id, owed.xid, self._name))
        try:
            async with self._turn(self._ending):
                answer = await self._post(url, body, self._target.timeout_s)
        except (_BusyError, _FailedError) as error:
            return f"{call}: {error}"
        return "" if is_done(answer.status) else f"{call} was answered {answer.status}"

    def _left_s(self, prepare: Prepare) -> float:
        return prepare.deadline_s - self._clock.monotonic_s()

    @asynccontextmanager
    async def _turn(self, places: asyncio.Semaphore, *, within_s: float = math.inf) -> AsyncGenerator[None]:
        """Hold one of the places for the time of the block. _BusyError where none is free in time."""
        within_s = min(within_s, self._target.turn_s)
        try:
            async with asyncio.timeout(within_s):
                await places.acquire()
        except TimeoutError as error:
            raise _BusyError(
                f"{self._target.calls_at_once} calls are under way, and were for {within_s:.3g} s"
            ) from error
        try:
            yield
        finally:
            places.release()

    async def _post(self, url: str, body: bytes, within_s: float) -> _Answer:
        """Make one call. _FailedError for whatever is no answer."""
        signed = self._target.secret and signature(self._target.secret, self._clock.unix_ms() // 1000, body)
        headers = {SIGNATURE: signed} if signed else {}
        try:
            async with (
                asyncio.timeout(within_s),
                self._client.stream("POST", url, content=body, headers=headers) as response,
            ):
                return _Answer(response.status_code, await _read(response))
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _FailedError("SERVICE_TIMED_OUT", f"no answer within {within_s:.3g} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            words = str(error) or type(error).__name__
            raise _FailedError("SERVICE_UNREACHABLE", f"no answer: {words}") from error


async def _read(response: httpx.Response) -> bytes:
    """Read an answer, and of one that is too long as much as shows that."""
    parts: list[bytes] = []
    size_bytes = 0
    async for part in response.aiter_raw():
        parts.append(part)
        size_bytes += len(part)
        if size_bytes > ANSWER_MAX_BYTES:
            break
    return b"".join(parts)
