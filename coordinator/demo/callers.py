"""Clients that do not give up: the same request under the same request_id, until its outcome is known.

Errors, silence and lost answers end nothing (R19). What a client is told is on disk before it goes on.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import httpx

from coordinator.demo.record import Record
from participant_sdk.client import TransactionClient
from participant_sdk.client_errors import InvalidRequestError, OutcomeUnknown, RequestInUseError, UnavailableError
from participant_sdk.client_results import Committed, Ending
from participant_sdk.operations import OperationLike, Parameter, json_text
from participant_sdk.testing import System

PATIENCE_S: Final = 900.0
# How often something that nothing stands in the way of is made anew, when it was given up.
GIVE_UP: Final = 5
ENDED: Final = ("COMPLETED", "COMPENSATED", "STUCK")

_TRANSACTION_S: Final = 120.0
_ANSWER_S: Final = 30.0
_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_API: Final = "/api/v1/transactions"
_BUSY: Final = 409
_TOO_MANY: Final = 429
_BROKEN: Final = 500
_ACCEPTED: Final = 202

Answer = TypeVar("Answer")


class NoAnswerError(Exception):
    """Nobody said how it ended, in all the time that a client has."""


class RefusedCallError(Exception):
    """The answer says that the call itself is wrong, which none of ours is."""


class Callers:
    """All clients' connections. ``counts`` is what happened, by word; ``again`` how often something was sent again."""

    def __init__(self, system: System, client: TransactionClient, http: httpx.AsyncClient, record: Record) -> None:
        self.system = system
        self.record = record
        self.counts: Counter[str] = Counter()
        self._client = client
        self._http = http

    async def transact(self, what: str, request_id: str, operations: Sequence[OperationLike]) -> Ending:
        """Run a transaction to its ending, and keep what was told. NoAnswerError."""
        asked = [[service, name, _plain(given)] for service, name, given in operations]
        await self.record.asked(request_id, what, {"operations": asked})
        ending = await self._insist(lambda: self._executed(operations, request_id))
        await self.tell(request_id, ending)
        self.counts[f"{what} {'COMMITTED' if isinstance(ending, Committed) else 'ROLLED_BACK'}"] += 1
        return ending

    async def must(self, what: str, request_id: str, operations: Sequence[OperationLike]) -> None:
        """Run what nothing stands in the way of. A request that was given up is made again, under another name."""
        for attempt in range(1, GIVE_UP + 1):
            name = request_id if attempt == 1 else f"{request_id}#{attempt}"
            if isinstance(await self.transact(what, name, operations), Committed):
                return

    async def ask_again(self, request_id: str, operations: Sequence[OperationLike]) -> Ending:
        """Send a request that has ended once more, and keep what is told this time. NoAnswerError."""
        ending = await self._insist(lambda: self._executed(operations, request_id))
        await self.tell(request_id, ending)
        return ending

    async def tell(self, request_id: str, ending: Ending) -> None:
        """Keep an ending that was told."""
        if isinstance(ending, Committed):
            await self.record.told(request_id, "COMMITTED", xid=str(ending.xid))
        else:
            await self.record.told(
                request_id, "ROLLED_BACK", xid=str(ending.xid), reason=ending.reason, message=ending.message
            )

    async def read(self, service: str, operation: str, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
        """Ask a participant, by a transaction that only reads. NoAnswerError; RefusedCallError for a "no"."""
        ending = await self._insist(lambda: self._executed([(service, operation, parameters)], None))
        if not isinstance(ending, Committed):
            raise RefusedCallError(f"{service}.{operation} {parameters}: {ending.reason} {ending.message}")
        return json.loads(ending.results(service)[0])

    async def probe(self, service: str, operation: str, parameters: Mapping[str, Parameter]) -> None:
        """Return once a participant has answered anything, through a coordinator. NoAnswerError."""
        # A "no" is an answer, too.
        with suppress(InvalidRequestError):
            await self._insist(lambda: self._executed([(service, operation, parameters)], None))

    async def result_of(self, xid: str, participant: str) -> dict[str, Any]:
        """What a participant's first operation returned in a transaction that has committed. NoAnswerError."""
        state = await self._insist(lambda: self._client.get_transaction(xid))
        if not isinstance(state.ending, Committed):
            raise RefusedCallError(f"transaction {xid} did not commit, and its workflow's step did")
        return json.loads(state.ending.results(participant)[0])

    async def run(self, what: str, request_id: str, kind: str, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
        """Run a workflow to its end, over HTTP, and keep what was told. NoAnswerError."""
        await self._ask_for(what, request_id, kind, parameters)
        return await self.ended(what, request_id, kind, parameters)

    async def begin(self, what: str, request_id: str, kind: str, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
        """Begin a workflow, and do not wait for its end. NoAnswerError."""
        await self._ask_for(what, request_id, kind, parameters)
        return await self._insist(lambda: self._posted(request_id, kind, parameters, wait=False))

    async def ended(self, what: str, request_id: str, kind: str, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
        """Ask for a workflow again, by its request_id, until it has ended. NoAnswerError."""
        told = await self._insist(lambda: self._posted(request_id, kind, parameters, wait=True))
        failure: dict[str, Any] = told["failure"] or told["stuck"] or {}
        await self.record.told(
            request_id,
            told["state"],
            workflow_id=told["workflow_id"],
            result=told["result"],
            reason=failure.get("code", ""),
            message=failure.get("message", ""),
        )
        self.counts[f"{what} {told['state']}"] += 1
        return told

    async def show(self, workflow_id: str) -> dict[str, Any]:
        """A workflow as it stands. NoAnswerError."""
        return await self._insist(lambda: self._answer("GET", f"{_API}/workflows/{workflow_id}"))

    async def company(self, name: str, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Call another company as its other customers do: what is asked may be asked again. NoAnswerError."""
        return await self._insist(lambda: self._answer(method, f"{self.system.simulators[name]}{path}", json=body))

    async def company_once(self, name: str, method: str, path: str, body: object = None) -> dict[str, Any] | None:
        """The same, once: None where no answer came, and it may have been done."""
        try:
            return await self._answer(method, f"{self.system.simulators[name]}{path}", json=body)
        except (_NotYetError, httpx.TransportError):
            self.counts["sent again"] += 1
            return None

    async def _ask_for(self, what: str, request_id: str, kind: str, parameters: Mapping[str, Parameter]) -> None:
        await self.record.asked(request_id, what, {"workflow": kind, **_plain(parameters)})

    async def _executed(self, operations: Sequence[OperationLike], request_id: str | None) -> Ending:
        return await self._client.execute(operations, request_id=request_id, timeout_s=_TRANSACTION_S)

    async def _posted(
        self, request_id: str, kind: str, parameters: Mapping[str, Parameter], *, wait: bool
    ) -> dict[str, Any]:
        body: Parameter = {"workflow_type": kind, "parameters": parameters}
        headers = {"Content-Type": "application/json", "Idempotency-Key": request_id}
        if not wait:
            headers["Prefer"] = "respond-async"
        told = await self._answer(
            "POST", f"{_API}/execute-workflow", content=json_text(body, "workflow"), headers=headers
        )
        if wait and told["state"] not in ENDED:
            raise _NotYetError(told["state"])
        return told

    async def _answer(self, method: str, url: str, **more: Any) -> dict[str, Any]:  # httpx takes anything.
        answer = await self._http.request(method, url, timeout=_ANSWER_S, **more)
        if answer.status_code in {_BUSY, _TOO_MANY} or answer.status_code >= _BROKEN:
            raise _NotYetError(f"{answer.status_code} {answer.text[:200]}")
        if answer.status_code > _ACCEPTED:
            raise RefusedCallError(f"{method} {url}: {answer.status_code} {answer.text[:500]}")
        found: dict[str, Any] = answer.json()
        return found

    async def _insist(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        until_s = time.monotonic() + PATIENCE_S
        pause_s = _PAUSE_S
        while True:
            try:
                return await call()
            except (OutcomeUnknown, UnavailableError, RequestInUseError, _NotYetError, httpx.TransportError) as error:
                self.counts["sent again"] += 1
                if time.monotonic() > until_s:
                    raise NoAnswerError(f"no outcome in {PATIENCE_S:g} s; last: {error!r}") from error
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


class _NotYetError(Exception):
    """An answer that says nothing of the outcome."""


def _plain(given: str | Mapping[str, Parameter]) -> dict[str, Any]:  # JSON has no other type.
    """Parameters as they are kept. Amounts are text, so nothing is rounded."""
    found: dict[str, Any] = json.loads(given if isinstance(given, str) else json_text(given, "parameters"))
    return found
