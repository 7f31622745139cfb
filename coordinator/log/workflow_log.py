"""Where workflows are kept: beside the decisions, under the same fence.

``WorkflowLog`` is a part of the decision log, in memory and on PostgreSQL alike; both pass
``tests/contract/test_workflow_log.py``. A fenced incarnation changes nothing here either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from coordinator.log.decision_log import Incarnation, OperatorAction
from coordinator.protocol.workflow_records import StepRecord, WorkflowPhase, WorkflowRecord
from participant_sdk.ids import Xid

# Decisions that a workflow needs may have xids a little older than its own: another coordinator's clock gave them out.
CLOCKS_APART_MAX_MS: Final = 300_000


class StoredWorkflow(NamedTuple):
    """A workflow with its steps, by position."""

    record: WorkflowRecord
    steps: tuple[StepRecord, ...]


@dataclass(frozen=True, slots=True)
class WorkflowChange:
    """A workflow as it is to be kept from now on, and those of its steps that changed.

    ``action`` is what an operator did, kept in the same transaction.
    """

    record: WorkflowRecord
    steps: tuple[StepRecord, ...]
    action: OperatorAction | None = None


@dataclass(frozen=True, slots=True)
class WorkflowFilter:
    """Which workflows to list; None and empty for all. ``is_stuck``: only those that wait for an operator."""

    phase: WorkflowPhase | None = None
    kind: str = ""
    is_stuck: bool = False


class WorkflowLog(Protocol):
    """Statements about workflows. Every call may raise LogUnavailableError; writes also LogUncertainError."""

    async def begin(self, incarnation: Incarnation, record: WorkflowRecord) -> StoredWorkflow | None:
        """Keep a new workflow; the one that stands there afterwards: this, or the one that its request is bound to.

        None, and nothing is kept, when the incarnation is fenced, or the log in HOLD. Idempotent.
        """
        ...

    async def save(self, incarnation: Incarnation, changes: Sequence[WorkflowChange]) -> Sequence[Xid]:
        """Keep changes of workflows that this incarnation owns, in one statement; which ones were kept.

        Others are not changed: they have been taken over, or this incarnation is fenced. Idempotent, but for
        the actions. BadRecordError when a value is refused.
        """
        ...

    async def claim(self, incarnation: Incarnation, limit: int) -> Sequence[StoredWorkflow]:
        """Take over unfinished workflows of fenced incarnations, the oldest first, if this one is live."""
        ...

    async def read(self, workflow_id: Xid) -> StoredWorkflow | None:
        """Read one workflow; None where none is known, or is any more."""
        ...

    async def list(self, wanted: WorkflowFilter, before: Xid | None, limit: int) -> Sequence[StoredWorkflow]:
        """Workflows, newest first, below ``before``."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
