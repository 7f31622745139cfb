"""The HTTP door's routes of locks: what operators see and break, in JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from coordinator.api import checks, http_json
from coordinator.api.gate import Gate
from coordinator.api.http_query import page_size, query
from coordinator.api.http_schema import PROBLEMS
from coordinator.locks.board import LockClaim, LockedKey

PAGE_SIZE_DEFAULT: Final = 100
_PAGE_KEYS: Final = ("key_prefix", "page_size", "page_token")
_LIST: Final[dict[str, object]] = {
    "parameters": [
        {"name": "key_prefix", "in": "query", "schema": {"type": "string", "maxLength": 200}},
        {"name": "page_size", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000}},
        {"name": "page_token", "in": "query", "schema": {"type": "string", "maxLength": 200}},
    ]
}
_BREAK: Final[dict[str, object]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["reason"],
                    "additionalProperties": False,
                    "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": 200}},
                }
            }
        },
    }
}


@dataclass(frozen=True, slots=True)
class LockRoutes:
    """What the routes call."""

    gate: Gate

    async def list_locks(self, request: Request) -> Response:
        """List locked keys, with who holds and who waits, a page at a time."""
        asked = query(request, _PAGE_KEYS)
        prefix, after = asked.get("key_prefix", ""), asked.get("page_token", "")
        size = checks.check_page_size(page_size(asked.get("page_size", ""), PAGE_SIZE_DEFAULT))
        found = await self.gate.assembly.locks.board.locked_keys(
            checks.check_lock_key(prefix, "key_prefix") if prefix else "",
            checks.check_lock_key(after, "page_token") if after else "",
            size,
        )
        following = found[-1].key if len(found) == size else None
        return _json({"locks": [_locked(each) for each in found], "next_page_token": following})

    async def break_lock(self, request: Request, key: str) -> Response:
        """Take a key from its holders; the reason is kept for good."""
        checks.check_lock_key(key)
        body = await http_json.read_members(request, ("reason",), ("reason",))
        reason = checks.check_given_reason(http_json.text(body["reason"], "reason"))
        broken = await self.gate.assembly.locks.board.break_lock(key, reason)
        return _json(
            {
                "key": key,
                "broken": [
                    {"owner": claim.owner, "transaction_id": _xid(claim), "owner_alive": claim.is_alive}
                    for claim in broken.claims
                ],
                "keys": broken.keys,
            }
        )


def add_lock_routes(router: APIRouter, routes: LockRoutes, prefix: str) -> None:
    """Serve locks below ``prefix``."""
    path = f"{prefix}/locks"
    router.add_api_route(
        path, routes.list_locks, methods=["GET"], openapi_extra=_LIST, responses=PROBLEMS, tags=["locks"]
    )
    router.add_api_route(path, routes.list_locks, methods=["HEAD"], include_in_schema=False)
    # A key may hold slashes.
    router.add_api_route(
        f"{path}/{{key:path}}",
        routes.break_lock,
        methods=["DELETE"],
        openapi_extra=_BREAK,
        responses=PROBLEMS,
        tags=["locks"],
    )


def _locked(locked: LockedKey) -> dict[str, object]:
    return {
        "key": locked.key,
        "holders": [_holder(claim) for claim in locked.holders],
        "waiters": [_claim(claim) for claim in locked.waiters],
    }


def _holder(claim: LockClaim) -> dict[str, object]:
    # As text: a token has more digits than many a reader of JSON keeps.
    return {**_claim(claim), "token": str(claim.token)}


def _claim(claim: LockClaim) -> dict[str, object]:
    return {
        "owner": claim.owner,
        "transaction_id": _xid(claim),
        "mode": claim.mode.name,
        "for_ms": max(0, claim.for_ms),
        "ttl_ms": max(0, claim.ttl_ms),
        "incarnation": claim.incarnation,
        "owner_alive": claim.is_alive,
    }


def _xid(claim: LockClaim) -> str | None:
    return None if claim.xid is None else str(claim.xid)


def _json(document: dict[str, object]) -> Response:
    return Response(json.dumps(document), media_type="application/json")
