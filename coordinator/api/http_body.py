"""The body of ``execute``, made a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.requests import Request

from coordinator.api import checks, http_json, json_spans
from coordinator.api.http_json import invalid
from coordinator.api.http_problems import KEY_HEADER
from coordinator.locks.claims import KEYS_MAX
from coordinator.requests import ExecuteCall
from participant_sdk.exact_json import InvalidJsonError
from participant_sdk.participant import OPERATIONS_MAX, Operation

_BODY_KEYS: Final = ("operations", "timeout_seconds", "request_id", "wait", "lock_keys")
_OPERATION_KEYS: Final = ("service", "operation", "parameters")
_WAITS: Final = {"applied": True, "decided": False}


async def read_call(request: Request, timeout_default_s: float) -> ExecuteCall:
    """Read the request into a call. InvalidRequestError names the field that is wrong."""
    body = await http_json.read_members(request, _BODY_KEYS)
    if "operations" not in body:
        raise invalid("required: a list of operations", "operations", "REQUIRED")
    timeout_s = timeout_default_s
    if "timeout_seconds" in body:
        timeout_s = checks.check_timeout(
            http_json.number(body["timeout_seconds"], "timeout_seconds"), "timeout_seconds"
        )
    return checks.execute_call(
        _operations(body["operations"]),
        timeout_s,
        read_request_id(request, body),
        wait_applied=_wait(body),
        lock_keys=read_lock_keys(body),
    )


def read_lock_keys(body: Mapping[str, str]) -> list[str]:
    """Read the member ``lock_keys``, a list of texts; none where it is left out. InvalidRequestError."""
    if "lock_keys" not in body:
        return []
    try:
        written = json_spans.items(body["lock_keys"], KEYS_MAX)
    except InvalidJsonError as error:
        raise invalid(str(error), "lock_keys", "TYPE") from error
    if len(written) > KEYS_MAX:
        raise invalid(f"0 to {KEYS_MAX} keys, not more", "lock_keys", "LOCK_KEY_COUNT")
    return [http_json.text(each, f"lock_keys[{index}]") for index, each in enumerate(written)]


def _operations(text: str) -> list[Operation]:
    try:
        written = json_spans.items(text, OPERATIONS_MAX)
    except InvalidJsonError as error:
        raise invalid(str(error), "operations", "TYPE") from error
    if len(written) > OPERATIONS_MAX:
        raise invalid(f"1 to {OPERATIONS_MAX} operations, not more", "operations", "OPERATION_COUNT")
    return [_operation(each, f"operations[{index}]") for index, each in enumerate(written)]


def _operation(text: str, field: str) -> Operation:
    members = http_json.members(text, _OPERATION_KEYS, field, f"{field}.")
    for key in _OPERATION_KEYS:
        if key not in members:
            raise invalid("required", f"{field}.{key}", "REQUIRED")
    return Operation(
        http_json.text(members["service"], f"{field}.service"),
        http_json.text(members["operation"], f"{field}.operation"),
        members["parameters"],
    )


def read_request_id(request: Request, body: dict[str, str]) -> str:
    """Read the name of the caller's intent, from the body or the header; empty for none. InvalidRequestError."""
    written = http_json.text(body["request_id"], "request_id") if "request_id" in body else ""
    if "request_id" in body and not written:
        raise invalid(
            "1 to 128 printable ASCII characters; leave it out for none", "request_id", "REQUEST_ID_MALFORMED"
        )
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return written
    # A structured header's string stands in quotes; many clients send it bare.
    bare = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not bare:
        raise invalid("empty; leave it out for none", KEY_HEADER, "REQUEST_ID_MALFORMED")
    checks.check_request_id(bare, KEY_HEADER)
    if written and written != bare:
        raise invalid("Idempotency-Key and request_id differ; send one of them", KEY_HEADER, "REQUEST_ID_TWICE")
    return bare


def _wait(body: dict[str, str]) -> bool:
    if "wait" not in body:
        return True
    wait = _WAITS.get(http_json.text(body["wait"], "wait").lower())
    if wait is None:
        raise invalid(f"must be one of: {', '.join(_WAITS)}", "wait", "WAIT_UNKNOWN")
    return wait
