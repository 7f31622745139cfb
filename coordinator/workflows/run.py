"""One workflow's life in this coordinator: taken up, forward, backward, waiting for an operator, over.

``work`` is the only place where a workflow's locks are taken: around all of it, for as long as it runs here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Final

from coordinator.errors import RefusedError
from coordinator.log.decision_log import OperatorAction
from coordinator.log.workflow_log import StoredWorkflow
from coordinator.protocol.effects import StoredDecision, replayed
from coordinator.protocol.workflow import NONDETERMINISTIC, PAST_PIVOT, Bound, Journal, fold
from coordinator.protocol.workflow_records import (
    Failure,
    StepKind,
    StepPhase,
    StepRecord,
    WorkflowPhase,
    WorkflowRecord,
    request_name,
    undo_name,
)
from coordinator.workflows.backward import UNDO_REFUSED, Backward
from coordinator.workflows.definitions import Definition
from coordinator.workflows.forward import Failed, Forward, Halted, Returned
from coordinator.workflows.held import HEURISTIC, HEURISTIC_ACCEPTED, Held, Skipping, tell
from coordinator.workflows.keeper import WorkflowKeeper
from coordinator.workflows.locking import WorkflowLocks
from coordinator.workflows.transactions import StepTransactions
from participant_sdk.clock import Clock

CANCELLED: Final = "CANCELLED"
TYPE_UNKNOWN: Final = "TYPE_UNKNOWN"
INTERNAL: Final = "INTERNAL"
# What another coordinator, or other code, may not be stuck with: tried again whenever the workflow is taken up.
_OF_THE_CODE: Final = frozenset({NONDETERMINISTIC, TYPE_UNKNOWN, INTERNAL})


class Run:
    """A workflow in this coordinator's hands. ``work`` must run for anything to happen to it."""

    def __init__(
        self,
        stored: StoredWorkflow,
        definition: Definition | None,
        keeper: WorkflowKeeper,
        transactions: StepTransactions,
        locks: WorkflowLocks,
        *,
        clock: Clock,
        random: Random,
        on_settled: Callable[[], None],
    ) -> None:
        self._definition = definition
        self._locks = locks
        self._random = random
        self._on_settled = on_settled
        self._held = Held(Journal(_without_code_stuck(stored.record), stored.steps), keeper, transactions, clock)
        # Whether the journal says what the log says, not what the rows say.
        self._is_folded = not stored.steps
        self._forward: Forward | None = None
        self._backward: Backward | None = None
        self._commanded = asyncio.Event()

    @property
    def stored(self) -> StoredWorkflow:
        """The workflow as it durably stands, with its steps as far as they are known."""
        return StoredWorkflow(self._held.durable, self._held.journal.steps)

    @property
    def is_settled(self) -> bool:
        """Nothing happens by itself any more: it is finished, or stuck."""
        record = self._held.durable
        return record.is_finished or record.stuck is not None

    def stop(self) -> None:
        """Begin no further step here."""
        self._held.is_stopping = True

    async def work(self) -> None:
        """Bring the workflow to its end. NotOurs where that is another coordinator's to do."""
        async with self._locks.holding(self._left_s() if self._is_unbegun else None) as refusal:
            if refusal is not None and self._is_unbegun:
                await self._fail(refusal, by_function=False)
            await self._to_the_end()
        self._on_settled()

    @property
    def _is_unbegun(self) -> bool:
        """It has asked for no step yet, and nobody wants anything else of it."""
        record = self._held.journal.record
        is_asked = bool(self._held.journal.steps) or record.stuck is not None or bool(record.cancelled)
        return record.phase is WorkflowPhase.RUNNING and not is_asked

    def _left_s(self) -> float:
        """How much of the workflow's time is left."""
        return max(0.0, (self._held.journal.record.deadline_unix_ms - self._held.clock.unix_ms()) / 1000)

    async def _to_the_end(self) -> None:
        while not (record := self._held.journal.record).is_finished:
            if record.stuck is not None:
                await self._parked()
            elif not self._is_folded:
                await self._fold()
            elif record.phase is WorkflowPhase.RUNNING:
                await self._go_forward()
            else:
                await self._go_backward()

    async def fail_inside(self, error: Exception) -> None:
        """Have the workflow be stuck with an error that nothing foresees."""
        self._is_folded = False
        await self._stick(Failure(INTERNAL, f"{type(error).__name__}: {error}"[:1000]))

    # What an operator asks.

    async def cancel(self, action: OperatorAction) -> None:
        """Have it undone. RefusedError once it is past a pivot, or finished."""
        journal = self._held.journal
        if journal.record.phase is WorkflowPhase.COMPENSATING:
            return
        self._check_unfinished()
        if journal.has_passed_pivot:
            raise RefusedError(f"workflow {self._held.id} is past its pivot: it can only go forward", code=PAST_PIVOT)
        journal.record = replace(journal.record, cancelled=action.reason, stuck=None)
        await self._held.save(action)
        if self._forward is not None:
            self._forward.end(Failure(CANCELLED, action.reason))
        self._locks.withdraw(RefusedError(f"workflow {self._held.id} is cancelled", code=CANCELLED))
        self._commanded.set()

    async def retry(self, action: OperatorAction) -> None:
        """Try again, now, what it waits for. RefusedError once it is finished."""
        self._check_unfinished()
        stuck = self._held.journal.record.stuck
        if stuck is not None:
            self._again(stuck)
            self._held.journal.record = replace(self._held.journal.record, stuck=None)
        await self._held.save(action)
        self._held.nudge.poke()
        self._commanded.set()

    async def skip(self, name: str, action: OperatorAction) -> None:
        """Let the step that it waits for count as done; or its effect stay, where it is being undone. RefusedError."""
        self._check_unfinished()
        journal = self._held.journal
        if journal.record.stuck is not None:
            self._skip_stuck(name)
            journal.record = replace(journal.record, stuck=None)
            await self._held.save(action)
            self._commanded.set()
            return
        under_way = self._forward.step if self._forward else self._backward.step if self._backward else None
        if under_way is None or under_way.name != name or self._held.skipping is not None:
            raise _not_waited_for(name)
        wish = Skipping(action, asyncio.get_running_loop().create_future())
        self._held.skipping = wish
        self._held.nudge.end()
        await wish.answer

    # Inside.

    async def _fold(self) -> None:
        """Have the journal say what the log says of the steps."""
        rows = self._held.journal.steps
        transactions = [step for step in rows if step.intention.kind is StepKind.TRANSACTION]
        names = [make(self._held.id, step) for step in transactions for make in (request_name, undo_name)]
        told = await asyncio.gather(*(self._held.transactions.bound(name) for name in names))
        bound = {name: _bound(stored) for name, stored in zip(names, told, strict=True) if stored is not None}
        # What an operator said meanwhile is in the record.
        record = self._held.journal.record
        steps = fold(record, rows, bound)
        self._held.journal = Journal(record, steps)
        self._held.journal.changed.update(new.position for new, old in zip(steps, rows, strict=True) if new != old)
        self._is_folded = True

    async def _go_forward(self) -> None:
        journal = self._held.journal
        if journal.record.cancelled:
            await self._held.settle_unknown()
            if not journal.has_passed_pivot:
                return await self._fail(Failure(CANCELLED, journal.record.cancelled), by_function=False)
        if self._definition is None:
            message = f"no workflow is called {journal.record.kind!r} at this coordinator (workflows.modules)"
            return await self._stick(Failure(TYPE_UNKNOWN, message))
        self._forward = Forward(self._held, self._definition, self._random)
        try:
            verdict = await self._forward.run()
        finally:
            self._forward = None
            self._refuse_wish()
        match verdict:
            case Returned(result):
                stuck = journal.returned(result, self._held.clock.unix_ms())
                return await (self._stick(stuck) if stuck is not None else self._held.save())
            case Failed(failure, by_function):
                return await self._fail(failure, by_function=by_function)
            case Halted(failure):
                return await self._stick(failure)

    async def _fail(self, failure: Failure, *, by_function: bool) -> None:
        await self._held.settle_unknown()
        stuck = self._held.journal.failed(failure, by_function=by_function)
        if stuck is not None:
            return await self._stick(stuck)
        # COMPENSATING is durable before the first undo.
        return await self._held.save()

    async def _go_backward(self) -> None:
        self._backward = Backward(self._held)
        try:
            stuck = await self._backward.run()
        finally:
            self._backward = None
            self._refuse_wish()
        if stuck is not None:
            await self._stick(stuck)

    def _refuse_wish(self) -> None:
        """Tell an operator that a step was not skipped: it came to another end meanwhile."""
        wish = self._held.take_skipping()
        if wish is not None:
            tell(wish, _not_waited_for(wish.action.participant))

    async def _stick(self, failure: Failure) -> None:
        await self._held.stick(failure)
        self._on_settled()

    async def _parked(self) -> None:
        self._commanded.clear()
        if self._held.journal.record.stuck is not None:
            await self._commanded.wait()

    def _again(self, stuck: Failure) -> None:
        """Have what it is stuck with be tried in another way than before, where that takes one."""
        step = self._held.journal.named(stuck.step)
        if step is None:
            return
        journal = self._held.journal
        match stuck.code:
            case code if code == HEURISTIC:
                journal.put(replace(step, reason=HEURISTIC_ACCEPTED))
            case code if code == UNDO_REFUSED and step.phase is StepPhase.UNDOING:
                journal.put(replace(step, undo_round=step.undo_round + 1))
            case code if code == PAST_PIVOT and step.phase is StepPhase.REFUSED:
                self._check_last(step)
                journal.move_step(step.position, StepPhase.ASKED)
                journal.put(replace(journal.step(step.position), round=step.round + 1, ended_unix_ms=0))
            case _:
                pass

    def _skip_stuck(self, name: str) -> None:
        journal = self._held.journal
        step = journal.named(name)
        if step is None or journal.record.stuck is None or journal.record.stuck.step != name:
            raise _not_waited_for(name)
        if step.phase is StepPhase.REFUSED:
            self._check_last(step)
            journal.move_step(step.position, StepPhase.SKIPPED)
        elif step.phase is StepPhase.UNDOING:
            journal.move_step(step.position, StepPhase.LEFT)
        else:
            raise _not_waited_for(name)

    def _check_last(self, step: StepRecord) -> None:
        """Later steps were asked for because this one was refused: to change that is to change their past."""
        if step.position != len(self._held.journal.steps):
            raise RefusedError(f"step {step.name!r} is not the last one", code="STEP_NOT_LAST")

    def _check_unfinished(self) -> None:
        record = self._held.journal.record
        if record.is_finished:
            raise RefusedError(f"workflow {self._held.id} is {record.phase.name}", code="ALREADY_FINISHED")


def _bound(stored: StoredDecision) -> Bound:
    told = replayed(stored)
    return Bound(told.decision, told.xid, told.reason, told.message)


def _without_code_stuck(record: WorkflowRecord) -> WorkflowRecord:
    """The record of a workflow that is taken up: what only other code was stuck with is tried again."""
    is_of_code = record.stuck is not None and record.stuck.code in _OF_THE_CODE
    return replace(record, stuck=None) if is_of_code else record


def _not_waited_for(name: str) -> RefusedError:
    return RefusedError(f"the workflow does not wait for step {name!r}", code="STEP_NOT_WAITED_FOR")
