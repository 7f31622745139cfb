"""A workflow that is held here: its journal, how that is kept, and what others want of it meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final, Never

from coordinator.errors import RefusedError
from coordinator.log.decision_log import OperatorAction
from coordinator.log.workflow_log import WorkflowChange
from coordinator.protocol.workflow import Journal
from coordinator.protocol.workflow_records import Failure, StepKind, StepPhase, StepRecord, request_name
from coordinator.workflows.keeper import WorkflowKeeper
from coordinator.workflows.nudge import Nudge
from coordinator.workflows.transactions import Attempted, Settled, StepTransactions
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid

HEURISTIC: Final = "HEURISTIC"
# Kept as a step's reason: an operator has put right what ended by hand.
HEURISTIC_ACCEPTED: Final = "HEURISTIC_ACCEPTED"


@dataclass(frozen=True, slots=True)
class Skipping:
    """An operator's wish that the step under way count as done. ``answer`` tells whether it does."""

    action: OperatorAction
    answer: asyncio.Future[None]


class Held:
    """Mutable: one for each workflow, owned by its run. ``is_stopping``: nothing new is begun here any more."""

    def __init__(self, journal: Journal, keeper: WorkflowKeeper, transactions: StepTransactions, clock: Clock) -> None:
        self.journal = journal
        self.transactions = transactions
        self.clock = clock
        self.nudge = Nudge()
        self.skipping: Skipping | None = None
        self.is_stopping = False
        # What is durable of it: its end is told only then.
        self.durable = journal.record
        self._keeper = keeper

    @property
    def id(self) -> Xid:
        """The workflow's id."""
        return self.journal.record.workflow_id

    async def save(self, action: OperatorAction | None = None) -> None:
        """Return once the journal, as it is now, is durable. NotOurs."""
        changed = [self.journal.step(position) for position in sorted(self.journal.changed)]
        self.journal.changed.clear()
        record = self.journal.record
        await self._keeper.keep(WorkflowChange(record, tuple(changed), action))
        self.durable = record

    async def stick(self, failure: Failure) -> None:
        """Have the workflow wait for an operator."""
        self.journal.record = replace(self.journal.record, stuck=failure)
        await self.save()

    async def go_on_unless_stopping(self) -> None:
        """Return at once; never where nothing new may begin here."""
        if self.is_stopping:
            await never()

    async def note(self, position: int, attempted: Attempted) -> None:
        """Keep that an attempt came to nothing, for people to see."""
        step = self.journal.step(position)
        self.journal.put(replace(step, attempts=step.attempts + 1, reason=attempted.reason, message=attempted.message))
        await self.save()

    def settled(self, position: int, settled: Settled) -> StepRecord:
        """Note in the journal what a step's transaction came to. It is saved with whatever comes next."""
        step = self.journal.step(position)
        phase = StepPhase.COMMITTED if settled.is_committed else StepPhase.REFUSED
        if step.phase is StepPhase.ASKED:
            step = self.journal.move_step(position, phase)
        if step.ended_unix_ms and step.xid == settled.xid:
            return step
        is_accepted = step.reason == HEURISTIC_ACCEPTED
        return self.journal.put(
            replace(
                step,
                xid=settled.xid,
                reason=step.reason if is_accepted else settled.reason,
                message=step.message if is_accepted else settled.message,
                ended_unix_ms=self.clock.unix_ms(),
            )
        )

    async def settle_unknown(self) -> None:
        """Make every outcome known: close the intents of steps that may have committed or not."""
        while (step := self.journal.unknown) is not None:
            await self.settle(step)

    async def settle(self, step: StepRecord) -> None:
        """Close one step's intent, and note what it is bound to."""
        if step.intention.kind is not StepKind.TRANSACTION:
            raise AssertionError("what was only read needs no closing")
        closed = await self.transactions.close(
            request_name(self.id, step), (), "the workflow that asked for it goes no further"
        )
        self.settled(step.position, closed)

    def take_skipping(self) -> Skipping | None:
        """The operator's wish, if there is one; it is dealt with now."""
        wish, self.skipping = self.skipping, None
        if wish is not None:
            self.nudge.go_on()
        return wish

    async def skip(self, position: int, phase: StepPhase, wish: Skipping) -> None:
        """Let a step count as done, or its effect stay, and tell the operator so."""
        self.journal.move_step(position, phase)
        await self.save(wish.action)
        tell(wish, None)


def tell(wish: Skipping, refusal: RefusedError | None) -> None:
    """Answer an operator who still waits."""
    if wish.answer.done():
        return
    if refusal is None:
        wish.answer.set_result(None)
    else:
        wish.answer.set_exception(refusal)


def heuristic_failure(step: StepRecord, settled: Settled) -> Failure | None:
    """Why a step whose transaction ended by hand, not as decided, waits for an operator; None where it need not."""
    if settled.heuristic is None or step.reason == HEURISTIC_ACCEPTED:
        return None
    return Failure(
        HEURISTIC,
        f"transaction {settled.xid} was decided {settled.decision.name}, and ended {settled.heuristic.name} by hand:"
        " put it right, then retry, and the workflow goes on as if it had ended as decided",
        step.name,
    )


async def never() -> Never:
    """Wait until cancelled."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")
