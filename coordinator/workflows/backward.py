"""A workflow's way back: what stands is undone, the last first, by the compensations stored with the steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from coordinator.errors import RefusedError, RequestReusedError
from coordinator.protocol.effects import replayed
from coordinator.protocol.workflow import Over, Settle, Undo
from coordinator.protocol.workflow_records import (
    Failure,
    StepPhase,
    StepRecord,
    WorkflowPhase,
    request_name,
    undo_name,
)
from coordinator.workflows.context import STEP_TIMEOUT_S
from coordinator.workflows.held import Held, heuristic_failure, tell
from coordinator.workflows.results import ResultMissingError, compensation_of
from coordinator.workflows.transactions import Settled
from participant_sdk.client_errors import InvalidRequestError
from participant_sdk.participant import Operation

UNDO_REFUSED: Final = "UNDO_REFUSED"


class Backward:
    """Undoes one workflow. COMPENSATING is durable before."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self.step: StepRecord | None = None

    async def run(self) -> Failure | None:
        """Undo until nothing stands any more: None; or until an operator is needed: why. NotOurs."""
        held = self._held
        while True:
            await held.go_on_unless_stopping()
            match held.journal.todo():
                case Settle(step):
                    await held.settle(step)
                case Undo(step):
                    self.step = step
                    if (stuck := await self._undo(step)) is not None:
                        return stuck
                    self.step = None
                case Over():
                    held.journal.move(WorkflowPhase.COMPENSATED, ended_unix_ms=held.clock.unix_ms())
                    await held.save()
                    return None

    async def _undo(self, step: StepRecord) -> Failure | None:
        held, position = self._held, step.position
        if step.phase is StepPhase.COMMITTED:
            step = held.journal.move_step(position, StepPhase.UNDOING)
            await held.save()
        try:
            operations = await self._operations(step)
            settled = await held.transactions.run(
                undo_name(held.id, step), operations, STEP_TIMEOUT_S, held.nudge, partial(held.note, position)
            )
        except (ResultMissingError, InvalidRequestError) as error:
            return Failure(UNDO_REFUSED, str(error), step.name)
        except RequestReusedError as error:
            return Failure(UNDO_REFUSED, error.message, step.name)
        step = held.journal.step(position)
        wish = held.take_skipping()
        if (by_hand := heuristic_failure(step, settled)) is not None:
            return by_hand
        if settled.is_committed:
            if wish is not None:
                tell(wish, RefusedError(f"step {step.name!r} is undone", code="STEP_UNDONE"))
            held.journal.move_step(position, StepPhase.UNDONE)
            held.journal.put(
                replace(held.journal.step(position), undo_xid=settled.xid, ended_unix_ms=held.clock.unix_ms())
            )
            return None
        if wish is not None:
            await held.skip(position, StepPhase.LEFT, wish)
            return None
        return self._refused(step, settled)

    async def _operations(self, step: StepRecord) -> tuple[Operation, ...]:
        """The step's compensation, with what the log says that the step returned."""
        stored = await self._held.transactions.bound(request_name(self._held.id, step))
        if stored is None:
            raise ResultMissingError(f"the log does not know step {step.name!r} any more")
        return compensation_of(step.intention.compensation, replayed(stored).branches)

    def _refused(self, step: StepRecord, settled: Settled) -> Failure:
        self._held.journal.put(replace(step, reason=settled.reason, message=settled.message))
        return Failure(UNDO_REFUSED, f"{settled.reason}: {settled.message}", step.name)
