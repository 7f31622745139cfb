"""What a simulator can be told to do wrong, and how it then answers.

A caller that survives all of these has understood what an answer proves: an error does not say that
nothing was done, and silence says nothing at all.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

DELAY_MAX_MS: Final = 600_000
FAULTS_MAX: Final = 32


class FaultKind(StrEnum):
    """What goes wrong with a call."""

    # It is done only after the delay: a caller that has given up meanwhile finds it done later.
    SLOW = "slow"
    # An error, and nothing was done.
    FAIL_BEFORE = "fail_before"
    # It is done twice, as when a network repeats a request; the second answer is given.
    TWICE = "twice"
    # It is done, and an error is told.
    FAIL_AFTER = "fail_after"
    # It is done, and the connection is cut before the answer.
    LOST = "lost"
    # It is done at once, and answered after the delay.
    LATE = "late"


class Fault(BaseModel):
    """One fault: which calls it strikes, by the beginning of their names, how often, and how many times in all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: FaultKind
    calls: str = ""
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    times: Annotated[int, Field(ge=1)] | None = None
    delay_ms: Annotated[int, Field(ge=0, le=DELAY_MAX_MS)] = 0


class Faults(BaseModel):
    """The body of ``PUT /behaviour``: everything that goes wrong from now on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    faults: Annotated[tuple[Fault, ...], Field(max_length=FAULTS_MAX)] = ()


class Behaviour:
    """The faults that a simulator was told, for as long as it lives. Mutable: it counts those that struck."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._left: list[tuple[Fault, int | None]] = []
        self._struck: Counter[FaultKind] = Counter()

    def tell(self, faults: Sequence[Fault]) -> Mapping[FaultKind, int]:
        """Misbehave in these ways, and in no others, from now on; how many calls each kind has struck until now."""
        self._left = [(fault, fault.times) for fault in faults]
        struck, self._struck = self._struck, Counter()
        return struck

    def told(self) -> Faults:
        """What may still go wrong."""
        return Faults(faults=tuple(fault.model_copy(update={"times": left}) for fault, left in self._left))

    def draw(self, call: str) -> dict[FaultKind, Fault]:
        """The faults that strike this call; each counts as having struck."""
        struck: dict[FaultKind, Fault] = {}
        kept: list[tuple[Fault, int | None]] = []
        for fault, left in self._left:
            strikes = call.startswith(fault.calls) and fault.kind not in struck and self._chance.random() < fault.share
            if strikes:
                struck[fault.kind] = fault
            remaining = left if left is None or not strikes else left - 1
            if remaining != 0:
                kept.append((fault, remaining))
        self._left = kept
        self._struck.update(struck.keys())
        return struck

    async def answer(self, call: str, perform: Callable[[], Awaitable[Response]]) -> Response:
        """Perform a call as the faults have it: ``perform`` once, not at all, or twice."""
        struck = self.draw(call)
        if (slow := struck.get(FaultKind.SLOW)) is not None:
            await asyncio.sleep(slow.delay_ms / 1000)
        if FaultKind.FAIL_BEFORE in struck:
            return _broken()
        response = await perform()
        if FaultKind.TWICE in struck:
            response = await perform()
        if (late := struck.get(FaultKind.LATE)) is not None:
            await asyncio.sleep(late.delay_ms / 1000)
        if FaultKind.LOST in struck:
            return CutResponse()
        return _broken() if FaultKind.FAIL_AFTER in struck else response


class CutResponse(Response):
    """An answer that is promised and never comes: the server cuts the connection, because it is not complete."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin an answer, and end without its body."""
        del scope, receive
        headers = [(b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


def _broken() -> Response:
    return JSONResponse({"error": "UNAVAILABLE", "message": "out of order, as it was told to be"}, 503)
