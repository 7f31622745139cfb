"""The HTTP door's routes: the wire to domain calls, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from coordinator.api import checks, http_problems, http_views
from coordinator.api.gate import Gate
from coordinator.api.http_body import read_call
from coordinator.api.http_faults import Faults
from coordinator.api.http_locks import LockRoutes, add_lock_routes
from coordinator.api.http_recovery import RecoveryRoutes, add_recovery_routes
from coordinator.api.http_schema import EXECUTE, PROBLEMS
from coordinator.api.http_workflow import WorkflowRoutes, add_workflow_routes
from coordinator.api.rejection import rejection
from coordinator.errors import TransactionError
from coordinator.health import Health
from coordinator.telemetry import Telemetry

PREFIX: Final = "/api/v1/transactions"
METRICS_MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class HttpRoutes:
    """What the routes call. ``timeout_default_s`` is for requests that bring none."""

    gate: Gate
    telemetry: Telemetry
    health: Callable[[], Health]
    timeout_default_s: float

    async def execute(self, request: Request) -> Response:
        """Run one transaction from begin to outcome; ROLLED_BACK is a result like COMMITTED."""
        call = await read_call(request, self.timeout_default_s)
        ended = await self.gate.execute(call)
        rejected = rejection(ended.outcome, call.services, call.request_id)
        if rejected is not None:
            raise rejected
        return _json(http_views.ended_json(ended))

    async def status(self, transaction_id: str) -> Response:
        """Tell a transaction's story."""
        xid = checks.check_xid(transaction_id, "transaction_id")
        view = await self.gate.assembly.peers.transaction(xid) or await self.gate.inquiries.transaction(xid)
        return _json(http_views.view_json(view))

    async def show_health(self) -> Response:
        """Tell how the coordinator, its log and its participants are; 503 when calls are not welcome."""
        health = self.health()
        return _json(http_views.health_json(health), is_good=health.is_ready)

    async def live(self) -> Response:
        """Answer that the process lives: restart it when this does not answer."""
        return _json('{"status":"UP"}')

    async def ready(self) -> Response:
        """Answer whether calls are welcome: send them elsewhere when not."""
        is_ready = self.health().is_ready
        return _json('{"status":"UP"}' if is_ready else '{"status":"DOWN"}', is_good=is_ready)

    async def metrics(self) -> Response:
        """Give all metrics in Prometheus' text format."""
        return Response(self.telemetry.metrics.render(), media_type=METRICS_MEDIA_TYPE)


def make_app(routes: HttpRoutes) -> FastAPI:
    """The application: routes and error answers, no state of its own."""
    app = FastAPI(title="PinCEX Transactions", version="1", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.include_router(_router(routes))

    async def on_refusal(request: Request, error: Exception) -> Response:
        if not isinstance(error, TransactionError):
            raise error
        routes.telemetry.refused("http", error.reason)
        return http_problems.problem_of(error, request)

    async def on_routing(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        return http_problems.problem_of_routing(request, error)

    async def on_leaving(_request: Request, _error: Exception) -> Response:
        # Nobody reads it.
        return http_problems.problem(HTTPStatus.BAD_REQUEST, "CLIENT_LEFT", "the connection was closed")

    app.add_exception_handler(TransactionError, on_refusal)
    app.add_exception_handler(HTTPException, on_routing)
    app.add_exception_handler(ClientDisconnect, on_leaving)
    app.add_middleware(Faults, routes.telemetry)
    return app


def _router(routes: HttpRoutes) -> APIRouter:
    router = APIRouter(redirect_slashes=False)
    router.add_api_route(
        f"{PREFIX}/execute",
        routes.execute,
        methods=["POST"],
        openapi_extra=EXECUTE,
        responses=PROBLEMS,
        tags=["transactions"],
    )
    status = f"{PREFIX}/status/{{transaction_id}}"
    router.add_api_route(status, routes.status, methods=["GET"], responses=PROBLEMS, tags=["transactions"])
    router.add_api_route(status, routes.status, methods=["HEAD"], include_in_schema=False)
    add_recovery_routes(router, RecoveryRoutes(routes.gate), PREFIX)
    add_workflow_routes(router, WorkflowRoutes(routes.gate, PREFIX))
    add_lock_routes(router, LockRoutes(routes.gate), PREFIX)
    for path, call in (
        (f"{PREFIX}/health", routes.show_health),
        ("/health/live", routes.live),
        ("/health/ready", routes.ready),
        ("/metrics", routes.metrics),
    ):
        router.add_api_route(path, call, methods=["GET"], tags=["watching"])
        router.add_api_route(path, call, methods=["HEAD"], include_in_schema=False)
    return router


def _json(text: str, *, is_good: bool = True) -> Response:
    status = HTTPStatus.OK if is_good else HTTPStatus.SERVICE_UNAVAILABLE
    return Response(text, status.value, media_type="application/json")
