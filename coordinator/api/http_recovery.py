"""The HTTP door's routes of recovery: what operators ask, in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.api import checks, http_json, http_recovery_schema, http_views
from coordinator.api import http_recovery_views as views
from coordinator.api.gate import Gate
from coordinator.api.http_query import page_size, query
from coordinator.api.http_schema import PROBLEMS
from coordinator.errors import InvalidRequestError
from coordinator.passes import Scope
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision

PAGE_SIZE_DEFAULT: Final = 100
_DEFAULT_REASON: Final = "an operator asked for rollback"
_PAGE_KEYS: Final = ("participant", "page_size", "page_token")
_SCOPES: Final = {scope.name.lower(): scope for scope in Scope}
_OUTCOMES: Final = {decision.name.lower(): decision for decision in Decision}


@dataclass(frozen=True, slots=True)
class RecoveryRoutes:
    """What the routes call."""

    gate: Gate

    async def trigger(self, request: Request) -> Response:
        """Run a pass now, and answer with it when it has ended."""
        body = await http_json.read_members(
            request, ("recovery_type", "transaction_id", "participant"), ("recovery_type",)
        )
        kind = http_json.text(body["recovery_type"], "recovery_type")
        if kind not in _SCOPES:
            raise http_json.invalid(f"must be one of: {', '.join(_SCOPES)}", "recovery_type", "SCOPE_UNKNOWN")
        scope = _SCOPES[kind]
        xid, participant = checks.check_pass(
            scope, _text(body, "transaction_id"), _text(body, "participant"), xid_field="transaction_id"
        )
        assembly = self.gate.assembly
        ran = None if xid is None else await assembly.peers.trigger(xid)
        return _json(
            views.pass_json(ran or await assembly.passes.trigger(scope, xid=xid, participant=participant)),
        )

    async def status(self) -> Response:
        """Tell of passes, participants, coordinators, HOLD."""
        assembly = self.gate.assembly
        own = assembly.engine.incarnation.number
        return _json(views.status_json(assembly.passes.status(), own, assembly.open_heuristics.count))

    async def in_doubt(self, request: Request) -> Response:
        """List branches in doubt, a page at a time."""
        asked = query(request, _PAGE_KEYS)
        participant = asked.get("participant", "")
        page = await self.gate.assembly.resolution.list_in_doubt(
            checks.check_participant(participant) if participant else "",
            asked.get("page_token", ""),
            page_size(asked.get("page_size", ""), PAGE_SIZE_DEFAULT),
        )
        return _json(views.in_doubt_json(page))

    async def hold(self, request: Request) -> Response:
        """Put the log in HOLD: every coordinator ends, and the next presume nothing."""
        body = await http_json.read_members(request, ("reason",), ("reason",))
        return _json(views.held_json(await self.gate.assembly.holding.hold(_reason(body))))

    async def release(self, request: Request) -> Response:
        """End HOLD with what participants had applied, or show what that would restore."""
        body = await http_json.read_members(request, ("reason", "preview"), ("reason",))
        preview = _flag(body, "preview")
        plan = await self.gate.assembly.holding.release(_reason(body), preview=preview)
        return _json(views.plan_json(plan, preview=preview))

    async def retry(self, request: Request, transaction_id: str) -> Response:
        """Send a decided transaction's messages again, now."""
        xid = _xid(transaction_id)
        await http_json.read_members(request, (), may_be_absent=True)
        assembly = self.gate.assembly
        phase = await assembly.peers.retry(xid) or await assembly.resolution.retry(xid)
        return _json(views.retried_json(xid, phase))

    async def resolve(self, request: Request, transaction_id: str) -> Response:
        """Force one branch in doubt, or show what would be touched."""
        xid = _xid(transaction_id)
        body = await http_json.read_members(
            request, ("participant", "outcome", "reason", "preview"), ("participant", "outcome", "reason")
        )
        participant = checks.check_participant(http_json.text(body["participant"], "participant"))
        outcome = _OUTCOMES.get(http_json.text(body["outcome"], "outcome"))
        if outcome is None:
            raise http_json.invalid(f"must be one of: {', '.join(_OUTCOMES)}", "outcome", "NOT_AN_OUTCOME")
        reason, preview = _reason(body), _flag(body, "preview")
        assembly = self.gate.assembly
        forced = await assembly.peers.resolve(xid, participant, outcome, reason, preview=preview)
        if forced is None:
            forced = await assembly.resolution.resolve(xid, participant, outcome, reason, preview=preview)
        return _json(views.forced_json(forced, xid, participant))

    async def forget(self, request: Request, transaction_id: str) -> Response:
        """Drop a heuristic outcome that was dealt with."""
        xid = _xid(transaction_id)
        body = await http_json.read_members(request, ("reason",), ("reason",))
        return _json(views.forgotten_json(xid, await self.gate.assembly.resolution.forget(xid, _reason(body))))

    async def rollback(self, request: Request, transaction_id: str) -> Response:
        """Undo a transaction that is not being decided yet; later, tell how it ended."""
        xid = _xid(transaction_id)
        body = await http_json.read_members(request, ("reason",), may_be_absent=True)
        reason = checks.check_reason(_text(body, "reason")) or _DEFAULT_REASON
        assembly = self.gate.assembly
        view = await assembly.peers.rollback(xid, reason)
        if view is None:
            if assembly.engine.find(xid) is None:
                await assembly.aftermath.ended(xid)
            else:
                await assembly.engine.rollback(xid, reason)
            view = await assembly.inquiries.transaction(xid)
        return _json(http_views.view_json(view))


def add_recovery_routes(router: APIRouter, routes: RecoveryRoutes, prefix: str) -> None:
    """Serve recovery below ``prefix``."""
    for path, call in (("recovery/status", routes.status), ("recovery/in-doubt", routes.in_doubt)):
        schema = http_recovery_schema.SCHEMAS[path]
        path = f"{prefix}/{path}"  # noqa: PLW2901 - the same path, in full
        router.add_api_route(path, call, methods=["GET"], openapi_extra=schema, responses=PROBLEMS, tags=["recovery"])
        router.add_api_route(path, call, methods=["HEAD"], include_in_schema=False)
    for path, post in (
        ("recovery/trigger", routes.trigger),
        ("recovery/hold", routes.hold),
        ("recovery/release", routes.release),
        ("{transaction_id}/retry", routes.retry),
        ("{transaction_id}/resolve", routes.resolve),
        ("{transaction_id}/forget", routes.forget),
        ("{transaction_id}/rollback", routes.rollback),
    ):
        router.add_api_route(
            f"{prefix}/{path}",
            post,
            methods=["POST"],
            openapi_extra=http_recovery_schema.SCHEMAS[path],
            responses=PROBLEMS,
            tags=["recovery"],
        )


def _xid(written: str) -> Xid:
    return checks.check_xid(written, "transaction_id")


def _reason(body: dict[str, str]) -> str:
    return checks.check_given_reason(http_json.text(body["reason"], "reason"))


def _text(body: dict[str, str], key: str) -> str:
    """A member that may be left out; one that is there says something."""
    if key not in body:
        return ""
    written = http_json.text(body[key], key)
    if not written:
        raise InvalidRequestError("empty; leave it out for none", field=key, code="EMPTY")
    return written


def _flag(body: dict[str, str], key: str) -> bool:
    return key in body and http_json.flag(body[key], key)


def _json(text: str) -> Response:
    return Response(text, HTTPStatus.OK.value, media_type="application/json")
