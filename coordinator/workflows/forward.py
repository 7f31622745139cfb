"""A workflow's way forward: its function runs, from the top, and its steps are performed, exactly once each.

The function's task is where steps are performed. What the function must not get past (the workflow is stuck, is to
be undone, or is another coordinator's by now) is not told to it: it never hears again, and is cancelled. So no
``except`` of a workflow's author swallows it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Final, Never

import structlog

from coordinator.errors import RefusedError, RequestReusedError
from coordinator.log.decision_log import BadRecordError
from coordinator.protocol.workflow import NONDETERMINISTIC, WorkflowStateError
from coordinator.protocol.workflow_records import Failure, StepKind, StepPhase, StepRecord, request_name
from coordinator.workflows.context import Work, Workflow
from coordinator.workflows.definitions import Definition
from coordinator.workflows.held import Held, heuristic_failure, never, tell
from coordinator.workflows.keeper import NotOurs
from coordinator.workflows.results import (
    StepRefused,
    StepResult,
    WorkflowFailed,
    kept_text,
    kept_values,
    texts_of,
    values_of,
)
from coordinator.workflows.transactions import Attempted, Settled, changes_something
from participant_sdk.backoff import Backoff
from participant_sdk.client_errors import ClientError
from participant_sdk.exact_json import PARAMETERS_MAX_BYTES
from participant_sdk.ids import Xid
from participant_sdk.operations import Parameter, json_text
from participant_sdk.xa import Decision

STEPS_MAX: Final = 1000
# What is waited for is looked at this often at least.
READ_CAP_S: Final = 5.0
CANCEL_WITHIN_S: Final = 1.0
MESSAGE_MAX_CHARS: Final = 1000
TIMED_OUT: Final = "TIMED_OUT"

_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Returned:
    """The function is through; ``result`` is JSON."""

    result: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The workflow is to be undone. ``by_function``: the function said so, having asked for all its steps."""

    failure: Failure
    by_function: bool


@dataclass(frozen=True, slots=True)
class Halted:
    """The workflow waits for an operator."""

    failure: Failure


Verdict = Returned | Failed | Halted


class Forward:
    """One run of a workflow's function."""

    def __init__(self, held: Held, definition: Definition, random: Random) -> None:
        self._held = held
        self._definition = definition
        self._random = random
        self._verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        # Why the run comes to an end before the function does.
        self._ending: Failure | None = None
        self._step: StepRecord | None = None
        self._is_performing = False

    @property
    def step(self) -> StepRecord | None:
        """The step that is being performed."""
        return self._step if self._is_performing else None

    def end(self, failure: Failure) -> None:
        """Go no further: the step under way gets its outcome, and the workflow fails, unless that was a pivot."""
        self._ending = failure
        self._held.nudge.end()
        if not self._is_performing:
            self._rule(Failed(failure, by_function=False))

    async def run(self) -> Verdict:
        """Run the function to a verdict. NotOurs, and whatever nothing foresees."""
        record = self._held.journal.record
        self._held.journal.begin_run()
        started = self._definition.start(Workflow(self._held.id, self._perform), record.parameters)
        function = asyncio.ensure_future(started)
        try:
            await self._until_ruled(function)
            return self._verdict.result() if self._verdict.done() else _verdict_of(function)
        finally:
            self._held.nudge.go_on()
            await _cancel(function)

    async def _until_ruled(self, function: asyncio.Future[Parameter]) -> None:
        while not function.done() and not self._verdict.done():
            waited: set[asyncio.Future[Parameter] | asyncio.Future[Verdict]] = {function, self._verdict}
            await asyncio.wait(waited, timeout=self._left_s(), return_when=asyncio.FIRST_COMPLETED)
            if not function.done() and not self._verdict.done() and self._left_s() == 0.0:
                self.end(Failure(TIMED_OUT, "the workflow's time was over before it was through"))

    def _left_s(self) -> float | None:
        """How long the function may go on; None for as long as it takes: past a pivot there is no other way."""
        if self._ending is not None or self._held.journal.has_passed_pivot:
            return None
        left_ms = self._held.journal.record.deadline_unix_ms - self._held.clock.unix_ms()
        return max(0.0, left_ms / 1000)

    def _rule(self, verdict: Verdict) -> None:
        if not self._verdict.done():
            self._verdict.set_result(verdict)

    async def _halt(self, verdict: Verdict) -> Never:
        """Give the verdict; the function never hears again."""
        self._rule(verdict)
        return await never()

    async def _perform(self, work: Work) -> StepResult:
        if self._verdict.done():
            await never()
        if self._is_performing:
            raise RuntimeError("one step at a time: await a step before you ask for the next")
        self._is_performing = True
        try:
            return await self._performed(work)
        except (NotOurs, BadRecordError, WorkflowStateError) as error:
            if not self._verdict.done():
                self._verdict.set_exception(error)
            return await never()
        finally:
            self._is_performing = False

    async def _performed(self, work: Work) -> StepResult:
        journal = self._held.journal
        if self._ending is not None:
            await self._halt(Failed(self._ending, by_function=False))
        await self._held.go_on_unless_stopping()
        if journal.has_abandoned_step:
            raise RuntimeError("a step was left before it had ended: put no time-out around one, it has its own")
        if len(journal.steps) >= STEPS_MAX and journal.named(work.intention.name) is None:
            raise WorkflowFailed("TOO_MANY_STEPS", f"a workflow has at most {STEPS_MAX} steps")
        asked = journal.ask(work.intention, self._held.clock.unix_ms())
        if isinstance(asked, Failure):
            await self._halt(Halted(asked))
        self._step = asked
        if asked.phase is StepPhase.SKIPPED:
            return StepResult(is_skipped=True)
        if journal.changed:
            # What undoes it must be durable before anything is done.
            await self._held.save()
        match work.intention.kind:
            case StepKind.TRANSACTION:
                return await self._transact(work, asked)
            case StepKind.READ:
                return await self._read(work, asked)

    async def _transact(self, work: Work, asked: StepRecord) -> StepResult:
        held, position = self._held, asked.position
        name = request_name(held.id, asked)
        try:
            settled = await held.transactions.run(
                name, work.operations, work.timeout_s, held.nudge, partial(held.note, position)
            )
        except RequestReusedError:
            message = f"the log has {name} bound to other operations"
            await self._halt(Halted(Failure(NONDETERMINISTIC, message, asked.name)))
        step = held.settled(position, settled)
        if (by_hand := heuristic_failure(step, settled)) is not None:
            await self._halt(Halted(by_hand))
        if not settled.is_committed:
            return await self._refused(step, settled.reason, settled.message)
        if (wish := held.take_skipping()) is not None:
            tell(wish, RefusedError(f"step {step.name!r} has committed", code="STEP_COMMITTED"))
        await self._end_if_asked()
        return StepResult(values_of(settled.results))

    async def _read(self, work: Work, asked: StepRecord) -> StepResult:
        held, position = self._held, asked.position
        if asked.phase is StepPhase.COMMITTED:
            return StepResult(kept_values(asked.results))
        if asked.phase is StepPhase.REFUSED:
            raise StepRefused(asked.name, asked.reason, asked.message)
        backoff = Backoff(self._random, first_s=work.every_s, cap_s=max(work.every_s, READ_CAP_S))
        with held.transactions.woken(work.operations, held.nudge):
            while not held.nudge.is_ending:
                read = await held.transactions.read(work.operations, work.timeout_s)
                match read:
                    case Attempted():
                        await held.note(position, read)
                    case outcome if outcome.decision is Decision.ROLLBACK:
                        refused = Settled(outcome.decision, outcome.xid, outcome.reason, outcome.message)
                        self._settle_read(position, StepPhase.REFUSED, refused)
                        await held.save()
                        raise StepRefused(asked.name, outcome.reason, outcome.message)
                    case outcome if changes_something(outcome.branches):
                        message = f"transaction {outcome.xid} was to read, and a participant changed something for it"
                        await self._halt(Halted(Failure("NOT_READ_ONLY", message, asked.name)))
                    case outcome:
                        texts = texts_of([each.service for each in work.operations], outcome.branches)
                        if work.is_done is None or work.is_done(StepResult(values_of(texts))):
                            return await self._keep_read(position, outcome.xid, kept_text(texts))
                await held.nudge.pause(backoff.next_s())
        return await self._refused(asked, "NOT_AWAITED", "it was waited for in vain")

    async def _keep_read(self, position: int, xid: Xid, results: str) -> StepResult:
        held = self._held
        self._settle_read(position, StepPhase.COMMITTED, Settled(Decision.COMMIT, xid))
        held.journal.put(replace(held.journal.step(position), results=results))
        # It binds the function: so it is durable before that hears of it.
        await held.save()
        return StepResult(kept_values(results))

    def _settle_read(self, position: int, phase: StepPhase, settled: Settled) -> None:
        self._held.journal.move_step(position, phase)
        self._held.settled(position, settled)

    async def _refused(self, step: StepRecord, reason: str, message: str) -> StepResult:
        """Tell the function of a "no", unless an operator skips the step, or the run ends here."""
        held = self._held
        if (wish := held.take_skipping()) is not None:
            if held.journal.step(step.position).phase is StepPhase.ASKED:
                held.journal.move_step(step.position, StepPhase.REFUSED)
            await held.skip(step.position, StepPhase.SKIPPED, wish)
            return StepResult(is_skipped=True)
        await self._end_if_asked()
        raise StepRefused(step.name, reason, message)

    async def _end_if_asked(self) -> None:
        """End the run here, if that was asked for; past a pivot it goes on all the same."""
        if self._ending is None:
            return
        if not self._held.journal.has_passed_pivot:
            await self._halt(Failed(self._ending, by_function=False))
        self._ending = None
        self._held.nudge.go_on()


def _verdict_of(function: asyncio.Future[Parameter]) -> Verdict:
    """What a function's end comes to."""
    if function.cancelled():
        return Failed(Failure("EXCEPTION", "the function cancelled itself"), by_function=True)
    match function.exception():
        case None:
            return _returned(function.result())
        case StepRefused() as refused:
            failure = Failure(refused.reason, refused.message, refused.step)
        case WorkflowFailed() as planned:
            failure = Failure(planned.code, planned.message)
        case Exception() as error:
            _LOG.warning("workflow_function_failed", exc_info=error)
            failure = Failure("EXCEPTION", f"{type(error).__name__}: {error}"[:MESSAGE_MAX_CHARS])
        case fatal:
            raise fatal
    return Failed(failure, by_function=True)


def _returned(value: Parameter) -> Verdict:
    try:
        text = json_text(value, "result")
    except ClientError as error:
        return Failed(Failure("RESULT_INVALID", str(error)), by_function=True)
    if len(text.encode()) > PARAMETERS_MAX_BYTES:
        message = f"a workflow returns at most {PARAMETERS_MAX_BYTES} bytes of JSON"
        return Failed(Failure("RESULT_INVALID", message), by_function=True)
    return Returned(text)


async def _cancel(function: asyncio.Future[Parameter]) -> None:
    """End the function's task, and wait for that; one that will not end is left, for it can do nothing any more."""
    function.cancel()
    done, _ = await asyncio.wait({function}, timeout=CANCEL_WITHIN_S)
    if not done:
        _LOG.error("workflow_function_ignores_cancellation")
    elif not function.cancelled():
        function.exception()
