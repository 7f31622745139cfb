"""Workflows as a client has them who outlives coordinators: begun, looked at, waited for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import httpx

from tests.crash.processes import Cluster

Json: TypeAlias = "dict[str, Any]"  # pyright: ignore[reportExplicitAny]  Whatever a coordinator answers.

ENDS_WITHIN_S: Final = 60.0
# A coordinator that stands still, as it may be told to, answers nothing: whoever asks then asks again.
_ANSWERS_WITHIN_S: Final = 1.0
# A look costs a coordinator's processor what the workflow needs.
LOOK_EVERY_S: Final = 0.1
ENDED: Final = frozenset({"COMPLETED", "COMPENSATED", "STUCK"})


def url_of(up: Cluster, path: str) -> str:
    """Where the first coordinator has this."""
    return f"http://{up.coordinators[0].http}/api/v1/transactions/{path}"


async def post(up: Cluster, body: Mapping[str, object], *, prefer: str = "") -> httpx.Response:
    """Ask for a workflow."""
    headers = {"content-type": "application/json", **({"prefer": prefer} if prefer else {})}
    return await up.client.post(url_of(up, "execute-workflow"), content=json.dumps(body), headers=headers)


async def run(up: Cluster, kind: str, parameters: Mapping[str, object], **more: object) -> Json:
    """Run a workflow to its end."""
    answer = await post(up, {"workflow_type": kind, "parameters": parameters, **more})
    assert answer.status_code == 200, answer.text
    told: Json = answer.json()
    return told


async def begin(up: Cluster, name: str, kind: str, parameters: Mapping[str, object], **more: object) -> None:
    """Begin a workflow under a request_id; the coordinator may die of it."""
    body = {"workflow_type": kind, "parameters": parameters, "request_id": name, **more}
    try:
        answer = await post(up, body, prefer="respond-async")
    except httpx.TransportError:
        return
    assert answer.status_code == 202, answer.text


async def workflow_of(up: Cluster, name: str) -> Json | None:
    """The workflow of a request_id, one of the newest, as the first coordinator shows it.

    {} if there is none, None if the coordinator cannot say.
    """
    try:
        answer = await up.client.get(url_of(up, "workflows?page_size=5"), timeout=_ANSWERS_WITHIN_S)
    except httpx.TransportError:
        return None
    if answer.status_code != 200:
        return None
    found: list[Json] = [each for each in answer.json()["workflows"] if each["request_id"] == name]
    return found[0] if found else {}


async def ended(up: Cluster, name: str) -> Json:
    """The workflow of a request_id, once it has ended or waits for an operator."""
    found: Json = {}

    async def has_ended() -> bool:
        nonlocal found
        found = await workflow_of(up, name) or {}
        return found.get("state") in ENDED

    await up.until(has_ended, ENDS_WITHIN_S, LOOK_EVERY_S)
    return found
