"""What both doors ask of a call about workflows. Each refusal names the field."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from coordinator.api import checks
from coordinator.errors import InvalidRequestError
from coordinator.log.workflow_log import StoredWorkflow, WorkflowFilter
from coordinator.workflows.context import STEP_NAME
from coordinator.workflows.definitions import KIND_FORM
from coordinator.workflows.workflows import WorkflowCall, Workflows
from participant_sdk.ids import Xid

TIMEOUT_MAX_S: Final = 30 * 86_400
PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1000


class WorkflowPage(NamedTuple):
    """A page of a listing, newest first; ``next_token`` is empty on the last."""

    workflows: Sequence[StoredWorkflow]
    next_token: str


def workflow_call(
    kind: str,
    parameters: str,
    timeout_s: Decimal | None,
    request_id: str,
    *,
    default_s: float,
    field: str = "timeout",
    lock_keys: Sequence[str] = (),
) -> WorkflowCall:
    """A workflow that may be begun; its type and parameters are looked at where it is. InvalidRequestError."""
    if not kind:
        raise InvalidRequestError("required: what the workflow is called", field="workflow_type", code="REQUIRED")
    checks.check_parameters(parameters, "parameters")
    if timeout_s is not None and not 0 < timeout_s <= TIMEOUT_MAX_S:
        raise InvalidRequestError(
            f"a workflow's time is above 0 and at most {TIMEOUT_MAX_S} seconds (30 days), not {timeout_s:f}",
            field=field,
            code="TIMEOUT_OUT_OF_RANGE",
        )
    checks.check_request_id(request_id)
    keys = checks.check_lock_keys(lock_keys, "lock_keys", least=0)
    return WorkflowCall(kind, parameters, default_s if timeout_s is None else float(timeout_s), request_id, keys)


def check_kind(text: str) -> str:
    """Return the type that a listing is narrowed to, or nothing for all."""
    if text and not KIND_FORM.fullmatch(text):
        raise InvalidRequestError(f"not a workflow's name: {text[:64]!r}", field="workflow_type", code="NAME_MALFORMED")
    return text


def check_workflow_id(text: str) -> Xid:
    """Read a workflow's identifier."""
    return checks.check_xid(text, "workflow_id")


def check_step(name: str) -> str:
    """Return a step's name."""
    if not STEP_NAME.fullmatch(name):
        raise InvalidRequestError(f"not a step's name: {name[:64]!r}", field="step", code="NAME_MALFORMED")
    return name


async def read_page(workflows: Workflows, wanted: WorkflowFilter, size: int, token: str) -> WorkflowPage:
    """Read a page; ``size`` 0 is the default. InvalidRequestError."""
    if not 0 <= size <= PAGE_SIZE_MAX:
        raise InvalidRequestError(f"0 to {PAGE_SIZE_MAX}, not {size}", field="page_size", code="PAGE_SIZE_OUT_OF_RANGE")
    before = checks.check_xid(token, "page_token") if token else None
    limit = size or PAGE_SIZE_DEFAULT
    found = await workflows.list(wanted, before, limit + 1)
    page = found[:limit]
    return WorkflowPage(page, str(page[-1].record.workflow_id) if len(found) > limit else "")
