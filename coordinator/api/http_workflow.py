"""The HTTP door's routes of workflows: run one, look, and an operator's hand."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.api import checks, http_json, http_workflow_schema, workflow_checks
from coordinator.api import http_workflow_views as views
from coordinator.api.gate import Gate
from coordinator.api.http_body import read_lock_keys, read_request_id
from coordinator.api.http_query import page_size, query
from coordinator.api.http_schema import PROBLEMS
from coordinator.log.workflow_log import StoredWorkflow, WorkflowFilter
from coordinator.protocol.workflow_records import WorkflowPhase

_RUN_KEYS: Final = ("workflow_type", "parameters", "timeout_seconds", "request_id", "lock_keys")
_LIST_KEYS: Final = ("state", "workflow_type", "page_size", "page_token")
_STUCK: Final = "STUCK"


@dataclass(frozen=True, slots=True)
class WorkflowRoutes:
    """What the routes call. Workflows are found below ``prefix``."""

    gate: Gate
    prefix: str

    async def run(self, request: Request) -> Response:
        """Run a workflow, and answer when it has ended or waits for an operator; at once with respond-async."""
        body = await http_json.read_members(request, _RUN_KEYS, ("workflow_type", "parameters"))
        assembly = self.gate.assembly_for_new_work()
        timeout_s = http_json.number(body["timeout_seconds"], "timeout_seconds") if "timeout_seconds" in body else None
        call = workflow_checks.workflow_call(
            http_json.text(body["workflow_type"], "workflow_type"),
            body["parameters"],
            timeout_s,
            read_request_id(request, body),
            default_s=assembly.workflows.settings.timeout_s,
            field="timeout_seconds",
            lock_keys=read_lock_keys(body),
        )
        stored = await assembly.workflows.begin(call)
        if _is_async(request):
            return self._accepted(stored)
        return _json(views.workflow_json(await assembly.workflow_peers.ended(stored.record.workflow_id)))

    async def show(self, workflow_id: str) -> Response:
        """Show one workflow."""
        key = workflow_checks.check_workflow_id(workflow_id)
        return _json(views.workflow_json(await self.gate.assembly.workflows.find(key)))

    async def list(self, request: Request) -> Response:
        """List workflows, newest first."""
        asked = query(request, _LIST_KEYS)
        page = await workflow_checks.read_page(
            self.gate.assembly.workflows,
            _filter(asked),
            checks.check_page_size(page_size(asked.get("page_size", ""), workflow_checks.PAGE_SIZE_DEFAULT)),
            asked.get("page_token", ""),
        )
        return _json(views.page_json(page))

    async def cancel(self, request: Request, workflow_id: str) -> Response:
        """Have a workflow undone; refused once it is past its pivot."""
        key = workflow_checks.check_workflow_id(workflow_id)
        body = await http_json.read_members(request, ("reason",), ("reason",))
        return _json(views.workflow_json(await self.gate.assembly.workflow_peers.cancel(key, _reason(body))))

    async def retry(self, request: Request, workflow_id: str) -> Response:
        """Try again, now, what a workflow waits for."""
        key = workflow_checks.check_workflow_id(workflow_id)
        body = await http_json.read_members(request, ("reason",), ("reason",))
        return _json(views.workflow_json(await self.gate.assembly.workflow_peers.retry(key, _reason(body))))

    async def skip(self, request: Request, workflow_id: str) -> Response:
        """Let the step that a workflow waits for count as done, or as undone."""
        key = workflow_checks.check_workflow_id(workflow_id)
        body = await http_json.read_members(request, ("step", "reason"), ("step", "reason"))
        step = workflow_checks.check_step(http_json.text(body["step"], "step"))
        return _json(views.workflow_json(await self.gate.assembly.workflow_peers.skip(key, step, _reason(body))))

    def _accepted(self, stored: StoredWorkflow) -> Response:
        where = f"{self.prefix}/workflows/{stored.record.workflow_id}"
        headers = {"Location": where, "Preference-Applied": "respond-async"}
        return Response(
            views.workflow_json(stored), HTTPStatus.ACCEPTED.value, headers=headers, media_type="application/json"
        )


def add_workflow_routes(router: APIRouter, routes: WorkflowRoutes) -> None:
    """Serve workflows below the routes' prefix."""
    prefix = routes.prefix
    for path, call in (("workflows", routes.list), ("workflows/{workflow_id}", routes.show)):
        schema = http_workflow_schema.SCHEMAS[path]
        router.add_api_route(
            f"{prefix}/{path}", call, methods=["GET"], openapi_extra=schema, responses=PROBLEMS, tags=["workflows"]
        )
        router.add_api_route(f"{prefix}/{path}", call, methods=["HEAD"], include_in_schema=False)
    for path, post in (
        ("execute-workflow", routes.run),
        ("workflows/{workflow_id}/cancel", routes.cancel),
        ("workflows/{workflow_id}/retry", routes.retry),
        ("workflows/{workflow_id}/skip", routes.skip),
    ):
        schema = http_workflow_schema.SCHEMAS[path]
        router.add_api_route(
            f"{prefix}/{path}", post, methods=["POST"], openapi_extra=schema, responses=PROBLEMS, tags=["workflows"]
        )


def _is_async(request: Request) -> bool:
    """Whether the client would rather not wait (RFC 7240)."""
    wishes = ",".join(request.headers.getlist("prefer")).lower().split(",")
    return "respond-async" in [wish.partition(";")[0].strip() for wish in wishes]


def _filter(asked: dict[str, str]) -> WorkflowFilter:
    state = asked.get("state", "").upper()
    known = (*WorkflowPhase.__members__, _STUCK)
    if state and state not in known:
        raise http_json.invalid(f"must be one of: {', '.join(known)}", "state", "STATE_UNKNOWN")
    is_stuck = state == _STUCK
    phase = WorkflowPhase[state] if state and not is_stuck else None
    return WorkflowFilter(phase, workflow_checks.check_kind(asked.get("workflow_type", "")), is_stuck)


def _reason(body: dict[str, str]) -> str:
    return checks.check_given_reason(http_json.text(body["reason"], "reason"))


def _json(text: str) -> Response:
    return Response(text, HTTPStatus.OK.value, media_type="application/json")
