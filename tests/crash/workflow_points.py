"""Where a coordinator is killed in the middle of a workflow: at every boundary of its steps, forward and back."""

from __future__ import annotations

from functools import partial
from typing import Final

from tests.crash.placing import Part, Point, Where

_BEFORE, _AFTER, _ENTRY = Where.BEFORE, Where.AFTER, Where.ENTRY
_in = partial(Point, part=Part.COORDINATOR)
_workflows = partial(_in, module="coordinator.workflows.workflows")
_kept = partial(
    _in,
    module="coordinator.workflows.keeper",
    function="WorkflowKeeper._write",
    anchor="saved = set(await self._log.save(",
)
_forward = partial(_in, module="coordinator.workflows.forward")
_backward = partial(_in, module="coordinator.workflows.backward")

WORKFLOW_POINTS: Final = (
    _workflows("WORKFLOW_BEGUN", function="Workflows.begin", where=_AFTER, anchor="stored = await self._begun("),
    _workflows(
        "WORKFLOW_CLAIMED", function="Workflows.resume", where=_AFTER, anchor="claimed = await self._log.claim("
    ),
    _kept("WORKFLOW_CHANGE_BEFORE", where=_BEFORE),
    _kept("WORKFLOW_CHANGE_AFTER", where=_AFTER),
    _forward("STEP_ASKED", function="Forward._performed", where=_AFTER, anchor="self._step = asked"),
    _forward("STEP_SETTLED", function="Forward._transact", where=_AFTER, anchor="step = held.settled("),
    _forward("READ_KEPT", function="Forward._keep_read", where=_AFTER, anchor="await held.save()"),
    _in("WORKFLOW_FAILED", module="coordinator.workflows.run", function="Run._fail", where=_ENTRY),
    _backward("BACKWARD_BEGUN", function="Backward.run", where=_ENTRY),
    _backward("UNDO_BEGUN", function="Backward._undo", where=_ENTRY),
    _backward("UNDO_SETTLED", function="Backward._undo", where=_AFTER, anchor="wish = held.take_skipping()"),
)
