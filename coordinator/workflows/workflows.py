"""The workflows of one incarnation: begun, taken over, shown, and handed to operators."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

import structlog

from coordinator import canonical
from coordinator.engine import Engine
from coordinator.errors import (
    BusyError,
    RefusedError,
    RequestReusedError,
    UnavailableError,
    UnknownWorkflowError,
)
from coordinator.locks.locks import Locks
from coordinator.log.decision_log import (
    BadRecordError,
    DecisionLog,
    LogUnavailableError,
    LogUncertainError,
    OperatorAction,
)
from coordinator.log.group_commit import GroupCommit
from coordinator.log.workflow_log import StoredWorkflow, WorkflowFilter
from coordinator.protocol.workflow_records import WorkflowRecord
from coordinator.requests import TENANT_DEFAULT
from coordinator.telemetry import Telemetry
from coordinator.workflows.definitions import Definition, unknown_kind
from coordinator.workflows.keeper import NotOurs, WorkflowKeeper
from coordinator.workflows.locking import WorkflowLocks
from coordinator.workflows.run import Run
from coordinator.workflows.transactions import RETRY_FIRST_S, StepTransactions
from participant_sdk.clock import Clock
from participant_sdk.ids import RequestId, Xid
from participant_sdk.participant import Operation

HELD_MAX: Final = 10_000
CLAIMED_AT_ONCE: Final = 500
BUSY_RETRY_AFTER_S: Final = 1.0
# How long a caller waits for the log to take a workflow, of which it hears either way.
BEGIN_TRIES: Final = 5
KIND_UNKNOWN: Final = "unknown"

_LOG: Final = structlog.get_logger(__name__)


class WorkflowCall(NamedTuple):
    """A workflow to run. ``parameters`` is one JSON object's text; ``request_id`` is empty for none.

    ``lock_keys`` are held alone for as long as it runs.
    """

    kind: str
    parameters: str
    timeout_s: float
    request_id: str = ""
    lock_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkflowSettings:
    """What workflows there are, how long one may take that says nothing of it, and a step's first pause."""

    definitions: Mapping[str, Definition]
    timeout_s: float = 600.0
    retry_first_s: float = RETRY_FIRST_S


class Workflows:
    """Owns the workflows that run here. ``run`` must run for anything to happen."""

    def __init__(
        self,
        engine: Engine,
        log: DecisionLog,
        commit: GroupCommit,
        steps: StepTransactions,
        locks: Locks,
        settings: WorkflowSettings,
        *,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
    ) -> None:
        self.settings = settings
        self._engine = engine
        self._log = log.workflows
        self._commit = commit
        self._locks = locks
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._keeper = WorkflowKeeper(self._log, engine.incarnation, random)
        self._transactions = steps
        self._runs: dict[Xid, Run] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._is_stopping = False
        # Set, and made anew, whenever one is settled.
        self._settled = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                await self._keeper.run()
            finally:
                self._tasks = None

    def stop(self) -> None:
        """Begin nothing more, no step either: whoever comes next goes on."""
        self._is_stopping = True
        for run in self._runs.values():
            run.stop()

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def stuck(self) -> int:
        """How many wait for an operator here."""
        return sum(1 for run in self._runs.values() if run.stored.record.stuck is not None)

    # What callers ask.

    async def begin(self, call: WorkflowCall) -> StoredWorkflow:
        """Begin a workflow, durably; or tell of the one that the request_id has begun, wherever it runs.

        InvalidRequestError (unknown type, wrong parameters): nothing was begun. RequestReusedError; BusyError;
        UnavailableError (HOLD; the log cannot be reached: whether it was begun is open, ask again by request_id).
        """
        definition = self.settings.definitions.get(call.kind)
        if definition is None:
            raise unknown_kind(call.kind, self.settings.definitions, field="workflow_type")
        definition.check(call.parameters)
        self._engine.admission.check_open()
        if self._tasks is None or self._is_stopping:
            raise UnavailableError("this coordinator is stopping and takes nothing new; ask another")
        if len(self._runs) >= HELD_MAX:
            raise BusyError(f"{HELD_MAX} workflows run here, the most allowed", retry_after_s=BUSY_RETRY_AFTER_S)
        record = self._record(call, definition)
        stored = await self._begun(record)
        if stored.record.digest != record.digest:
            raise RequestReusedError(
                f"the request_id is bound to workflow {stored.record.workflow_id} with another type or parameters"
            )
        if stored.record.workflow_id == record.workflow_id:
            self._telemetry.workflow_begun(record.kind)
            self._start(stored)
        return stored

    async def resume(self) -> int:
        """Take over what fenced incarnations left unfinished, and run it on; how many workflows.

        LogUnavailableError, LogUncertainError: what was taken over until then is run, the rest another time.
        """
        count = 0
        while self._tasks is not None and not self._is_stopping and (room := HELD_MAX - len(self._runs)) > 0:
            claimed = await self._log.claim(self._engine.incarnation, min(CLAIMED_AT_ONCE, room))
            if not claimed:
                break
            # The fence that it rests on, and what was read, must be durable before anything is done about it (R7).
            await self._commit.confirm()
            for stored in claimed:
                self._start(stored)
            count += len(claimed)
            _LOG.info("workflows_taken_over", count=len(claimed))
        return count

    async def find(self, workflow_id: Xid) -> StoredWorkflow:
        """One workflow as it stands. UnknownWorkflowError, UnavailableError."""
        run = self._runs.get(workflow_id)
        if run is not None:
            return run.stored
        try:
            stored = await self._log.read(workflow_id)
        except LogUnavailableError as error:
            raise UnavailableError(f"workflow {workflow_id}: the log cannot be read; ask again") from error
        if stored is None:
            raise UnknownWorkflowError(f"no workflow {workflow_id} is known")
        return stored

    async def list(self, wanted: WorkflowFilter, before: Xid | None, limit: int) -> Sequence[StoredWorkflow]:
        """Workflows below ``before``, newest first. UnavailableError."""
        try:
            return await self._log.list(wanted, before, limit)
        except LogUnavailableError as error:
            raise UnavailableError("workflows cannot be listed: the log cannot be read; ask again") from error

    def is_held(self, workflow_id: Xid) -> bool:
        """Whether it runs, or waits for an operator, here."""
        return workflow_id in self._runs

    async def wait(self, workflow_id: Xid) -> StoredWorkflow:
        """A workflow that is held here, once it is finished or stuck. UnknownWorkflowError, UnavailableError."""
        while (run := self._runs.get(workflow_id)) is not None and not run.is_settled:
            await self._settled.wait()
        return await self.find(workflow_id)

    # What operators ask; the workflow must be held here.

    async def cancel(self, workflow_id: Xid, reason: str) -> StoredWorkflow:
        """Have it undone. RefusedError once it is past its pivot, or finished."""
        run = await self._held(workflow_id)
        with suppress(NotOurs):
            await run.cancel(_action("WORKFLOW_CANCEL", workflow_id, "", reason))
        return await self.find(workflow_id)

    async def retry(self, workflow_id: Xid, reason: str) -> StoredWorkflow:
        """Try again, now, what it waits for. RefusedError once it is finished."""
        run = await self._held(workflow_id)
        with suppress(NotOurs):
            await run.retry(_action("WORKFLOW_RETRY", workflow_id, "", reason))
        return await self.find(workflow_id)

    async def skip(self, workflow_id: Xid, step: str, reason: str) -> StoredWorkflow:
        """Let the step that it waits for count as done, or as undone. RefusedError."""
        run = await self._held(workflow_id)
        with suppress(NotOurs):
            await run.skip(step, _action("WORKFLOW_SKIP", workflow_id, step, reason))
        return await self.find(workflow_id)

    # Inside.

    def _record(self, call: WorkflowCall, definition: Definition) -> WorkflowRecord:
        now_ms = self._clock.unix_ms()
        return WorkflowRecord(
            self._engine.new_id(),
            call.kind,
            definition.version,
            call.parameters,
            RequestId(TENANT_DEFAULT, call.request_id) if call.request_id else None,
            canonical.digest([Operation("workflow", call.kind, call.parameters)]),
            self._engine.incarnation.number,
            now_ms + round(call.timeout_s * 1000),
            lock_keys=call.lock_keys,
        )

    async def _begun(self, record: WorkflowRecord) -> StoredWorkflow:
        for _ in range(BEGIN_TRIES):
            with suppress(LogUncertainError):
                try:
                    stored = await self._log.begin(self._engine.incarnation, record)
                except (LogUnavailableError, BadRecordError) as error:
                    raise UnavailableError(f"the log did not take the workflow: {error}; ask again") from error
                if stored is None:
                    raise UnavailableError("this coordinator may write no more, or the log is in HOLD; ask another")
                return stored
        raise UnavailableError("whether the log took the workflow is not known; ask again by its request_id")

    def _start(self, stored: StoredWorkflow) -> None:
        key = stored.record.workflow_id
        if self._tasks is None or key in self._runs:
            return
        run = self._runs[key] = Run(
            stored,
            self.settings.definitions.get(stored.record.kind),
            self._keeper,
            self._transactions,
            WorkflowLocks(self._locks, key, stored.record.lock_keys, self._random),
            clock=self._clock,
            random=self._random,
            on_settled=self._note_settled,
        )
        self._tasks.create_task(self._work(key, run))

    async def _work(self, key: Xid, run: Run) -> None:
        try:
            while True:
                try:
                    await run.work()
                except Exception as error:
                    if isinstance(error, NotOurs):
                        raise
                    # It is stuck with it, for everybody to see, until an operator tries again.
                    self._telemetry.fault("workflow", error)
                    await run.fail_inside(error)
                else:
                    return self._tell(run.stored.record)
        except (NotOurs, BadRecordError) as error:
            _LOG.warning("workflow_let_go", workflow_id=str(key), reason=str(error))
        finally:
            del self._runs[key]
            self._note_settled()

    def _tell(self, record: WorkflowRecord) -> None:
        # What other code began may have any name: of that the metrics have but one.
        kind = record.kind if record.kind in self.settings.definitions else KIND_UNKNOWN
        self._telemetry.workflow_ended(kind, record.phase.name)
        failure = record.failure
        _LOG.info(
            "Workflow ended",
            workflow_id=str(record.workflow_id),
            workflow_type=record.kind,
            state=record.phase.name,
            duration_ms=record.ended_unix_ms - record.workflow_id.unix_ms,
            code=failure.code if failure else "",
        )

    def _note_settled(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()

    async def _held(self, workflow_id: Xid) -> Run:
        run = self._runs.get(workflow_id)
        if run is not None:
            return run
        stored = await self.find(workflow_id)
        if stored.record.is_finished:
            raise RefusedError(
                f"workflow {workflow_id} is {stored.record.phase.name}: nothing happens to it any more",
                code="ALREADY_FINISHED",
            )
        raise UnavailableError(f"workflow {workflow_id} is being taken over; ask again")


def _action(action: str, workflow_id: Xid, step: str, reason: str) -> OperatorAction:
    return OperatorAction(action, reason, participant=step, detail=f"workflow {workflow_id}")
