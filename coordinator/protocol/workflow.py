"""A workflow's journal: what its steps come to, and what may be done next. Deterministic, without I/O.

The decision log is the truth about steps. ``Journal`` is folded from the stored rows and from what the log has
bound to the steps' request_ids, each time that a workflow is taken up; whatever a row says of an outcome is not
believed. While RUNNING the workflow's function asks for its steps from the top, and the journal says of each
whether it is the recorded one. Once it fails:

1. every step's outcome is made known (``Settle``), for what is unknown cannot be compensated;
2. past a pivot nothing is compensated: the workflow is stuck, and goes forward when an operator says how;
3. else COMPENSATING is written, and from then on ``todo`` alone says what is next: the last effect that stands
   (``Undo``), one at a time, until nothing does (``Over``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from coordinator.protocol.workflow_records import (
    MAY_FOLLOW,
    STEP_MAY_FOLLOW,
    Failure,
    Intention,
    StepKind,
    StepPhase,
    StepRecord,
    WorkflowPhase,
    WorkflowRecord,
    request_name,
    undo_name,
)
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision

NONDETERMINISTIC: Final = "NONDETERMINISTIC"
PAST_PIVOT: Final = "PAST_PIVOT"


class Bound(NamedTuple):
    """What the log has bound to a request_id. ``reason`` and ``message`` say why a ROLLBACK was."""

    decision: Decision
    xid: Xid
    reason: str = ""
    message: str = ""


class WorkflowStateError(AssertionError):
    """Something that may not follow was about to: a defect here, never of the caller's input."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Make this step's outcome known: close its intent, which tells whether it has committed."""

    step: StepRecord


@dataclass(frozen=True, slots=True)
class Undo:
    """Run this step's compensation."""

    step: StepRecord


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing is left to be undone."""


Todo = Settle | Undo | Over


def fold(record: WorkflowRecord, steps: Sequence[StepRecord], bound: Mapping[str, Bound]) -> tuple[StepRecord, ...]:
    """The steps as the log tells them; ``bound`` is what it has bound to their request names."""
    return tuple(_folded(record, step, bound) for step in sorted(steps, key=lambda each: each.position))


def _folded(record: WorkflowRecord, step: StepRecord, bound: Mapping[str, Bound]) -> StepRecord:
    by_hand = step.phase in (StepPhase.SKIPPED, StepPhase.LEFT)
    if by_hand or step.intention.kind is StepKind.READ:
        # Nobody but its row knows of it.
        return step
    forward = bound.get(request_name(record.workflow_id, step))
    if forward is None:
        return replace(step, phase=StepPhase.ASKED, xid=None)
    if forward.decision is Decision.ROLLBACK:
        return replace(step, phase=StepPhase.REFUSED, xid=forward.xid, reason=forward.reason, message=forward.message)
    undo = bound.get(undo_name(record.workflow_id, step))
    if undo is not None and undo.decision is Decision.COMMIT:
        return replace(step, phase=StepPhase.UNDONE, xid=forward.xid, undo_xid=undo.xid)
    # The note of an undo that was refused stays beside the effect, which stands.
    return replace(step, phase=StepPhase.COMMITTED, xid=forward.xid)


class Journal:
    """One workflow's record and steps. Mutable: whoever runs the workflow owns it, alone.

    ``changed`` names the positions of steps that differ from what was saved last; who saves clears it.
    """

    def __init__(self, record: WorkflowRecord, steps: Sequence[StepRecord] = ()) -> None:
        self.record = record
        self.changed: set[int] = set()
        self._steps = list(steps)
        self._asked = 0

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """All steps, in order."""
        return tuple(self._steps)

    @property
    def has_passed_pivot(self) -> bool:
        """What was done cannot be undone any more."""
        passed = (StepPhase.COMMITTED, StepPhase.SKIPPED)
        return any(step.intention.is_pivot and step.phase in passed for step in self._steps)

    @property
    def unknown(self) -> StepRecord | None:
        """A step whose transaction may have committed or not."""
        asked = (step for step in self._steps if step.phase is StepPhase.ASKED)
        return next((step for step in asked if step.intention.kind is StepKind.TRANSACTION), None)

    @property
    def has_abandoned_step(self) -> bool:
        """The function went on, and left the step that it asked for last without an outcome."""
        return self._asked == len(self._steps) and self.unknown is not None

    def begin_run(self) -> None:
        """The function runs, from the top."""
        self._check(self.record.phase is WorkflowPhase.RUNNING, "a run begins while RUNNING")
        self._asked = 0

    def step(self, position: int) -> StepRecord:
        """The step at a position, as it stands now."""
        return self._steps[position - 1]

    def named(self, name: str) -> StepRecord | None:
        """The step of this name."""
        return next((step for step in self._steps if step.name == name), None)

    def ask(self, intention: Intention, now_unix_ms: int) -> StepRecord | Failure:
        """The step that the function asks for now: the recorded one, or a new one; a Failure if they differ.

        ValueError for a name that an earlier step of this run has.
        """
        self._check(self.record.phase is WorkflowPhase.RUNNING, "a step is asked for while RUNNING")
        self._check(not self.has_abandoned_step, "one step at a time")
        if any(step.name == intention.name for step in self._steps[: self._asked]):
            raise ValueError(f"the step {intention.name!r} was asked for before: each has a name of its own")
        if self._asked == len(self._steps):
            self._steps.append(StepRecord(len(self._steps) + 1, intention, began_unix_ms=now_unix_ms))
            self.changed.add(len(self._steps))
        recorded = self._steps[self._asked]
        if recorded.intention.name != intention.name:
            return self._differs(recorded, f"the function asks for {intention.name!r} in its place")
        if recorded.intention != intention:
            return self._differs(recorded, "the function asks for it with other operations")
        self._asked += 1
        return recorded

    def returned(self, result: str, now_unix_ms: int) -> Failure | None:
        """The function is through; a Failure where it left recorded steps out."""
        if (left_out := self._left_out("returned")) is not None:
            return left_out
        self._check(self.unknown is None, "a workflow completes with every outcome known")
        self.move(WorkflowPhase.COMPLETED, result=result, ended_unix_ms=now_unix_ms)
        return None

    def failed(self, failure: Failure, *, by_function: bool) -> Failure | None:
        """Begin to compensate; or the Failure that it is stuck with. Every outcome must be known.

        A failure of the function's own comes only after it asked for all that is recorded.
        """
        self._check(self.unknown is None, "nothing is compensated while an outcome is unknown")
        if by_function and (left_out := self._left_out(f"failed ({failure.message})")) is not None:
            return left_out
        if self.has_passed_pivot:
            return Failure(PAST_PIVOT, f"{failure.code}: {failure.message}; it can only go forward", failure.step)
        self.move(WorkflowPhase.COMPENSATING, failure=failure)
        return None

    def todo(self) -> Todo:
        """What is next while COMPENSATING."""
        self._check(self.record.phase is WorkflowPhase.COMPENSATING, "it is undone while COMPENSATING")
        if (unknown := self.unknown) is not None:
            return Settle(unknown)
        stands = (StepPhase.COMMITTED, StepPhase.UNDOING)
        for step in reversed(self._steps):
            if step.phase in stands and step.intention.compensation:
                return Undo(step)
        return Over()

    def move(
        self, phase: WorkflowPhase, *, failure: Failure | None = None, result: str = "", ended_unix_ms: int = 0
    ) -> None:
        """Go to another phase."""
        self._check(phase in MAY_FOLLOW[self.record.phase], f"{self.record.phase.name} to {phase.name}")
        self.record = replace(
            self.record,
            phase=phase,
            failure=failure or self.record.failure,
            result=result or self.record.result,
            ended_unix_ms=ended_unix_ms,
            stuck=None,
        )

    def move_step(self, position: int, phase: StepPhase) -> StepRecord:
        """Take a step to another phase."""
        step = self.step(position)
        self._check(phase in STEP_MAY_FOLLOW[step.phase], f"step {step.name}: {step.phase.name} to {phase.name}")
        if phase is StepPhase.UNDOING:
            self._check(self.todo() == Undo(step), f"step {step.name} is not the one to undo")
        return self.put(replace(step, phase=phase))

    def put(self, step: StepRecord) -> StepRecord:
        """Note something beside a step's phase."""
        self._steps[step.position - 1] = step
        self.changed.add(step.position)
        return step

    def _left_out(self, what: str) -> Failure | None:
        if self._asked == len(self._steps):
            return None
        return self._differs(self._steps[self._asked], f"the function {what} without it")

    def _differs(self, recorded: StepRecord, how: str) -> Failure:
        name, version = recorded.name, self.record.version
        return Failure(
            NONDETERMINISTIC, f"step {recorded.position}, {name!r}, is recorded by version {version}: {how}", name
        )

    @staticmethod
    def _check(holds: bool, what: str) -> None:
        if not holds:
            raise WorkflowStateError(what)
