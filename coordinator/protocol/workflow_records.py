"""What is kept of a workflow: its words, what may follow what, and its rows.

::

    RUNNING ──▶ COMPLETED
       └──────▶ COMPENSATING ──▶ COMPENSATED

COMPENSATING is durable before the first compensation, and there is no edge back. That a workflow waits for an
operator, was cancelled, or why it failed, are fields of their own, never phases. A step has its own table:
ASKED means that its outcome is not known yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from participant_sdk.ids import RequestId, Xid


class WorkflowPhase(IntEnum):
    """Where a workflow stands. The numbers are the workflows table's."""

    RUNNING = 1
    COMPENSATING = 2
    COMPLETED = 3
    COMPENSATED = 4


class StepPhase(IntEnum):
    """Where a step stands. The numbers are the steps table's."""

    ASKED = 1
    COMMITTED = 2
    REFUSED = 3
    # An operator said that it counts as done; its effect is not there.
    SKIPPED = 4
    UNDOING = 5
    UNDONE = 6
    # An operator said that its effect stays.
    LEFT = 7


class StepKind(IntEnum):
    """What answers a step when it is asked for again: the decision log, or what was read and kept beside it."""

    TRANSACTION = 1
    READ = 2


MAY_FOLLOW: Final = {
    WorkflowPhase.RUNNING: frozenset({WorkflowPhase.COMPENSATING, WorkflowPhase.COMPLETED}),
    WorkflowPhase.COMPENSATING: frozenset({WorkflowPhase.COMPENSATED}),
    WorkflowPhase.COMPLETED: frozenset[WorkflowPhase](),
    WorkflowPhase.COMPENSATED: frozenset[WorkflowPhase](),
}
FINISHED: Final = frozenset({WorkflowPhase.COMPLETED, WorkflowPhase.COMPENSATED})

STEP_MAY_FOLLOW: Final = {
    StepPhase.ASKED: frozenset({StepPhase.COMMITTED, StepPhase.REFUSED}),
    # Again, in another round, or skipped: by an operator alone.
    StepPhase.REFUSED: frozenset({StepPhase.ASKED, StepPhase.SKIPPED}),
    StepPhase.COMMITTED: frozenset({StepPhase.UNDOING}),
    StepPhase.UNDOING: frozenset({StepPhase.UNDONE, StepPhase.LEFT}),
    StepPhase.SKIPPED: frozenset[StepPhase](),
    StepPhase.UNDONE: frozenset[StepPhase](),
    StepPhase.LEFT: frozenset[StepPhase](),
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a workflow failed, or is stuck: a stable code, a sentence, and the step concerned, if one is."""

    code: str
    message: str
    step: str = ""


@dataclass(frozen=True, slots=True)
class WorkflowRecord:
    """A workflow's row. ``workflow_id`` is of the xids' form and source, so it says when the workflow began.

    ``parameters`` and ``result`` are JSON texts, the latter empty for none. ``incarnation`` is whose it is.
    ``stuck`` says why it waits for an operator; ``cancelled`` is the reason of whoever wants it undone. ``lock_keys``
    are held for as long as it runs.
    """

    workflow_id: Xid
    kind: str
    version: str
    parameters: str
    request: RequestId | None
    digest: bytes
    incarnation: int
    deadline_unix_ms: int
    phase: WorkflowPhase = WorkflowPhase.RUNNING
    ended_unix_ms: int = 0
    failure: Failure | None = None
    stuck: Failure | None = None
    cancelled: str = ""
    result: str = ""
    lock_keys: tuple[str, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Nothing more will happen to it."""
        return self.phase in FINISHED


@dataclass(frozen=True, slots=True)
class Intention:
    """A step as the workflow's function asks for it. ``compensation`` is the undo's operations as JSON, or empty.

    ``digest`` is of all of it: a recorded step that is asked for with another one is not the same step.
    """

    name: str
    kind: StepKind
    digest: bytes
    compensation: str = ""
    is_pivot: bool = False


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step's row. ``position`` counts from 1.

    ``round`` and ``undo_round`` count the request_ids used: an operator's retry of what was refused takes a new
    one. ``xid`` and ``undo_xid`` are the transactions that ended them. ``reason`` and ``message`` tell what went
    wrong last. ``results`` is what a READ read, as JSON. Of a TRANSACTION the phase is a copy, for people: the
    decision log is asked.
    """

    position: int
    intention: Intention
    phase: StepPhase = StepPhase.ASKED
    round: int = 1
    undo_round: int = 1
    attempts: int = 0
    xid: Xid | None = None
    undo_xid: Xid | None = None
    reason: str = ""
    message: str = ""
    results: str = ""
    began_unix_ms: int = 0
    ended_unix_ms: int = 0

    @property
    def name(self) -> str:
        """The step's name, unique within its workflow."""
        return self.intention.name


def request_name(workflow_id: Xid, step: StepRecord) -> str:
    """The request_id of a step's transaction. Names have neither colon nor hash, so none is another's."""
    return f"{workflow_id}:{step.name}{_suffix(step.round)}"


def undo_name(workflow_id: Xid, step: StepRecord) -> str:
    """The request_id of a step's compensation."""
    return f"{workflow_id}:{step.name}:undo{_suffix(step.undo_round)}"


def _suffix(number: int) -> str:
    return f"#{number}" if number > 1 else ""
