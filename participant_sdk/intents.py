"""Intents: what a client wants done once, whatever happens to the messages about it.

An intent has a request_id, so that it can be sent as often as needed and still commits at most
once (R3). ``Settling`` sends it until it has ended, one way or the other:

1. A committed or rolled-back answer that binds is an ending.
2. *Retry*, "busy", "in use", a lost reply and every other status of gRPC are none (R19): it is sent
   again, to the coordinators in turn, with growing pauses, until its time is up.
3. Then it is closed: Rollback by request_id binds ROLLBACK, unless an earlier try was bound
   after all, and the answer says which. Where another transaction has the request_id, and nothing
   of this one was begun, there is nothing to close.
4. If nobody confirms even that, the outcome is unknown, and said to be.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from pincex.tx.v1 import transaction_pb2

from participant_sdk.client_errors import (
    ClientError,
    Failed,
    OutcomeUnknown,
    RequestReusedError,
    error_of,
    late_error_of,
)
from participant_sdk.client_results import Committed, Ending, RolledBack
from participant_sdk.client_wire import read_ending, set_timeout
from participant_sdk.coordinators import Coordinators, client_backoff

# How long after its time-out a transaction's answer may still come: the coordinator's own "timed out".
REPLY_GRACE_S: Final = 1.0
# How long an intent may take to be closed, after its time was up.
CLOSING_S: Final = 5.0


@dataclass(slots=True)
class Intent:
    """One request on its way to an ending. Not frozen: it remembers what its tries have shown.

    ``deadline_s`` is on the monotonic clock. ``uncertain``: a try may have left a live or finished
    transaction behind. ``named_by_caller``: other operations may have used the request_id.
    """

    request: transaction_pb2.ExecuteRequest
    request_id: str
    named_by_caller: bool
    deadline_s: float
    uncertain: bool = False
    retry: RolledBack | None = None
    failed: Failed | None = None

    @property
    def left_s(self) -> float:
        """Seconds to the deadline; below 0 after it."""
        return self.deadline_s - time.monotonic()

    @property
    def last_heard(self) -> str:
        """The last answer that was no ending, in a few words."""
        if self.failed is not None:
            return str(self.failed)
        return f"{self.retry.reason}: {self.retry.message}" if self.retry is not None else "nothing"


Attempt = Callable[[Intent], Awaitable[Ending | Failed]]


class Settling:
    """Brings intents to their endings over unary calls."""

    __slots__ = ("_coordinators",)

    def __init__(self, coordinators: Coordinators) -> None:
        self._coordinators = coordinators

    async def attempt(self, intent: Intent) -> Ending | Failed:
        """Send the intent once, by a unary call."""
        left_s = max(intent.left_s, 0.001)
        set_timeout(intent.request.timeout, left_s)
        return await self._coordinators.ask(
            lambda stub: stub.Execute,
            intent.request,
            left_s + REPLY_GRACE_S,
            lambda answer: read_ending(answer.result, intent.request_id),
        )

    async def settle(self, intent: Intent, first: Attempt) -> Ending:
        """Send the intent until it ends: by ``first`` while its tries are accounted for, else by unary calls.

        A cancelled caller leaves the intent as it stands; sending it again tells. ClientError where
        trying again is no use and nothing was kept; OutcomeUnknown where nobody would say.
        """
        backoff = client_backoff()
        while intent.left_s > 0:
            answer = await (self.attempt if intent.uncertain else first)(intent)
            match answer:
                case Committed():
                    return answer
                case RolledBack():
                    if not answer.retry:
                        return answer
                    intent.retry, intent.failed = answer, None
                    pause_s = backoff.next_s()
                case Failed():
                    pause_s = max(backoff.next_s(), answer.retry_after_s)
                    error = _take(intent, answer)
                    if error is not None:
                        return await self._close_after(intent, error)
            await asyncio.sleep(min(pause_s, max(intent.left_s, 0.0)))
        return await self._close_late(intent)

    async def close(self, request_id: str, reason: str) -> Ending:
        """Bind ROLLBACK to the request_id, and tell what it is bound to. OutcomeUnknown if nobody says."""
        deadline_s = time.monotonic() + CLOSING_S
        backoff = client_backoff()
        request = transaction_pb2.TransactionServiceRollbackRequest(request_id=request_id, reason=reason)
        while (left_s := deadline_s - time.monotonic()) > 0:
            # One silent coordinator does not get all the time there is.
            try_s = min(left_s, CLOSING_S / 2)
            answer = await self._coordinators.ask(
                lambda stub: stub.Rollback, request, try_s, lambda answer: read_ending(answer.result, request_id)
            )
            if not isinstance(answer, Failed) and not (isinstance(answer, RolledBack) and answer.retry):
                return answer
            if isinstance(answer, Failed) and (error := error_of(answer)) is not None:
                raise OutcomeUnknown(f"closing the intent was refused: {answer}", request_id=request_id) from error
            await asyncio.sleep(backoff.next_s())
        raise OutcomeUnknown(
            f"no coordinator confirmed the end of request {request_id}; ask again with the same request_id",
            request_id=request_id,
        )

    async def _close_after(self, intent: Intent, error: ClientError) -> Ending:
        """End with the error, unless an earlier try may have left something: that is closed first."""
        if isinstance(error, RequestReusedError) or not intent.uncertain:
            raise error
        ending = await self._close(intent, str(error))
        if isinstance(ending, RolledBack):
            raise error
        return ending

    async def _close_late(self, intent: Intent) -> Ending:
        if intent.failed is not None and intent.failed.in_use and not intent.uncertain:
            # Nothing of ours is there to be closed, and closing would end the other transaction's request.
            raise late_error_of(intent.failed, intent.failed.message)
        ending = await self._close(intent, f"the client's time was up; last heard: {intent.last_heard}")
        if isinstance(ending, Committed) or ending.replayed or intent.retry is None:
            return ending
        # The reason of the last try says more than that of the closing.
        last = intent.retry
        return replace(ending, reason=last.reason, message=last.message, branches=last.branches)

    async def _close(self, intent: Intent, reason: str) -> Ending:
        ending = await self.close(intent.request_id, reason[:200])
        if isinstance(ending, RolledBack) or not intent.named_by_caller:
            return ending
        # Rollback by request_id matches any operations: only sending ours again shows whether it is
        # they that committed. It is bound, so it cannot run anew.
        intent.deadline_s = time.monotonic() + CLOSING_S
        answer = await self.attempt(intent)
        if isinstance(answer, Committed):
            return answer
        if isinstance(answer, Failed) and isinstance(error := error_of(answer), RequestReusedError):
            raise error
        raise OutcomeUnknown(f"request {intent.request_id} is bound to COMMIT; ask again", request_id=intent.request_id)


def _take(intent: Intent, failed: Failed) -> ClientError | None:
    """Remember a try that brought no outcome; return the error for which trying again is no use."""
    intent.failed = failed
    error = error_of(failed)
    if error is None and not failed.nothing_begun:
        intent.uncertain = True
    return error
