"""What no rule foresees, over HTTP: 500 without its text, counted, and logged once."""

from __future__ import annotations

from http import HTTPStatus

from starlette.types import ASGIApp, Receive, Scope, Send

from coordinator.api import http_problems
from coordinator.telemetry import Telemetry


class Faults:
    """Around the routes. Starlette's own last resort raises such an error again, for the server to log it twice."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await self._app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - the last resort: nobody else would answer the client
            self._telemetry.fault("http", error)
            answer = http_problems.problem(
                HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL", "an error inside the coordinator; it is in its log"
            )
            await answer(scope, receive, send)
