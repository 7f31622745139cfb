"""What a workflow's function is given: steps, and nothing else that could change something.

The function must be deterministic: it runs again from the top whenever its workflow is taken up, and has to ask for
the same steps. So it looks at its parameters and at what steps returned, and at no clock, dice, file or global.
It runs on the coordinator's event loop: it awaits its steps, and computes nothing long.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from coordinator import canonical
from coordinator.protocol.workflow_records import Intention, StepKind
from coordinator.workflows.results import StepResult, compensation_text
from participant_sdk.ids import Xid
from participant_sdk.operations import OperationLike, operations_of
from participant_sdk.participant import Operation

STEP_TIMEOUT_S: Final = 30.0
EVERY_DEFAULT_S: Final = 0.5
STEP_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,47}")


@dataclass(frozen=True, slots=True)
class Work:
    """A step to run: what is recorded of it, and its operations. ``timeout_s`` is each attempt's.

    ``is_done`` says of what a READ reads whether that is what is waited for; it is read every ``every_s`` at first.
    """

    intention: Intention
    operations: tuple[Operation, ...]
    timeout_s: float
    is_done: Callable[[StepResult], bool] | None = None
    every_s: float = EVERY_DEFAULT_S


class Performer(Protocol):
    """Who performs steps: the run in the coordinator."""

    def __call__(self, work: Work, /) -> Awaitable[StepResult]:
        """Run a step to its outcome. StepRefused."""
        ...


class Workflow:
    """One workflow, as its function sees it."""

    def __init__(self, workflow_id: Xid, perform: Performer) -> None:
        self._id = workflow_id
        self._perform = perform

    @property
    def id(self) -> str:
        """The workflow's id: unique for ever, so a good reference for others' records."""
        return str(self._id)

    async def step(
        self,
        name: str,
        operations: Sequence[OperationLike],
        *,
        compensate: Sequence[OperationLike] = (),
        pivot: bool = False,
        timeout_s: float = STEP_TIMEOUT_S,
    ) -> StepResult:
        """Run a transaction, exactly once, and return what its operations returned once it is applied everywhere.

        ``compensate`` undoes it, should the workflow fail later; ``result_of`` stands there for what the step
        returned. Past a ``pivot`` that committed nothing is undone any more. ``timeout_s`` is for one attempt: a
        transient failure is tried again until the workflow's own time is over.

        StepRefused for a participant's "no", which left nothing behind. ValueError for a name that is malformed, or
        was used before, and for operations that are none.
        """
        work = operations_of(operations)
        undo = operations_of(compensate) if compensate else ()
        kept = compensation_text(work, undo)
        digest = _digest(StepKind.TRANSACTION, work, undo, pivot=pivot)
        return await self._perform(
            Work(Intention(_checked(name), StepKind.TRANSACTION, digest, kept, pivot), work, timeout_s)
        )

    async def read(self, name: str, operations: Sequence[OperationLike]) -> StepResult:
        """Run operations that only read, and keep what they return: asked again, the step has the same answer.

        Errors as for ``step``; an operation that changes something leaves the workflow stuck.
        """
        return await self.until(name, operations, lambda _: True)

    async def until(
        self,
        name: str,
        operations: Sequence[OperationLike],
        is_done: Callable[[StepResult], bool],
        *,
        every_s: float = EVERY_DEFAULT_S,
        timeout_s: float = STEP_TIMEOUT_S,
    ) -> StepResult:
        """Read again and again until ``is_done``; that answer is kept, and is the step's for ever.

        The pauses grow from ``every_s``. Errors as for ``read``. Nothing waits longer than the workflow's time, but
        past a pivot, where there is no other way than on.
        """
        work = operations_of(operations)
        digest = _digest(StepKind.READ, work, (), pivot=False)
        intention = Intention(_checked(name), StepKind.READ, digest)
        return await self._perform(Work(intention, work, timeout_s, is_done, every_s))


def _checked(name: str) -> str:
    if not STEP_NAME.fullmatch(name):
        raise ValueError(f"not a step's name (a-z first, then a-z 0-9 _ -, at most 48): {name[:64]!r}")
    return name


def _digest(kind: StepKind, work: Sequence[Operation], undo: Sequence[Operation], *, pivot: bool) -> bytes:
    parts = (bytes([kind, pivot]), canonical.digest(work), canonical.digest(undo) if undo else b"")
    return hashlib.sha256(b"".join(parts)).digest()
