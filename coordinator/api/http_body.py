"""The body of ``execute``: read within bounds, taken apart exactly, made a call.

It never passes through a model or a float: pydantic's models round JSON numbers and take 1e400
for infinity, even in Decimal fields.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from email.message import Message
from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from coordinator.api import checks, json_spans
from coordinator.api.http_problems import KEY_HEADER, UnacceptableError
from coordinator.api.json_spans import RepeatedKeyError
from coordinator.errors import InvalidRequestError
from coordinator.requests import ExecuteCall
from participant_sdk import exact_json
from participant_sdk.exact_json import InvalidJsonError
from participant_sdk.participant import Operation

BODY_MAX_BYTES: Final = 8 * 1024 * 1024
BODY_WITHIN_S: Final = 30.0
_BODY_KEYS: Final = ("operations", "timeout_seconds", "request_id", "wait")
_OPERATION_KEYS: Final = ("service", "operation", "parameters")
_WAITS: Final = {"applied": True, "decided": False}


async def read_call(request: Request, timeout_default_s: float) -> ExecuteCall:
    """Read the request into a call. InvalidRequestError names the field that is wrong."""
    _check_head(request)
    text = await _read_text(request)
    try:
        json_spans.check_syntax(text)
    except InvalidJsonError as error:
        raise _invalid(str(error), "body", "JSON_INVALID") from error
    body = _members(text, _BODY_KEYS, "body", "")
    if "operations" not in body:
        raise _invalid("required: a list of operations", "operations", "REQUIRED")
    timeout_s = timeout_default_s
    if "timeout_seconds" in body:
        timeout_s = checks.check_timeout(_number(body["timeout_seconds"], "timeout_seconds"), "timeout_seconds")
    return checks.execute_call(
        _operations(body["operations"]),
        timeout_s,
        _request_id(request, body),
        wait_applied=_wait(body),
    )


def _check_head(request: Request) -> None:
    for name in request.query_params:
        raise _invalid("everything stands in the body: no query parameter is known", name[:64], "FIELD_UNKNOWN")
    for name in ("Content-Type", KEY_HEADER):
        if len(request.headers.getlist(name)) > 1:
            raise _invalid("the header stands twice", name, "HEADER_TWICE")
    _check_type(request)


async def _read_text(request: Request) -> str:
    chunks: list[bytes] = []
    size_bytes = 0
    try:
        async with asyncio.timeout(BODY_WITHIN_S):
            async for chunk in request.stream():
                size_bytes += len(chunk)
                if size_bytes > BODY_MAX_BYTES:
                    raise UnacceptableError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"the body is larger than {BODY_MAX_BYTES} bytes",
                        field="body",
                        code="BODY_TOO_LARGE",
                    )
                chunks.append(chunk)
    except TimeoutError as error:
        raise UnacceptableError(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the body did not come within {BODY_WITHIN_S:.0f} seconds",
            field="body",
            code="BODY_TOO_SLOW",
        ) from error
    try:
        return b"".join(chunks).decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"not UTF-8, at byte {error.start}", "body", "NOT_UTF8") from error


def _check_type(request: Request) -> None:
    header = Message()
    header["Content-Type"] = request.headers.get("content-type", "")
    charset = header.get_content_charset("utf-8")
    if header.get_content_type() != "application/json" or charset not in {"utf-8", "us-ascii"}:
        raise UnacceptableError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "send JSON in UTF-8, with the header Content-Type: application/json",
            field="Content-Type",
            code="CONTENT_TYPE_UNSUPPORTED",
        )
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnacceptableError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "send the body without Content-Encoding",
            field="Content-Encoding",
            code="CONTENT_ENCODING_UNSUPPORTED",
        )


def _operations(text: str) -> list[Operation]:
    try:
        written = json_spans.items(text)
    except InvalidJsonError as error:
        raise _invalid(str(error), "operations", "TYPE") from error
    if len(written) > checks.OPERATIONS_MAX:
        # Not taken further apart: there may be a million.
        raise _invalid(f"1 to {checks.OPERATIONS_MAX} operations, not {len(written)}", "operations", "OPERATION_COUNT")
    return [_operation(each, f"operations[{index}]") for index, each in enumerate(written)]


def _operation(text: str, field: str) -> Operation:
    members = _members(text, _OPERATION_KEYS, field, f"{field}.")
    for key in _OPERATION_KEYS:
        if key not in members:
            raise _invalid("required", f"{field}.{key}", "REQUIRED")
    return Operation(
        _text(members["service"], f"{field}.service"),
        _text(members["operation"], f"{field}.operation"),
        members["parameters"],
    )


def _members(text: str, known: tuple[str, ...], field: str, prefix: str) -> dict[str, str]:
    try:
        members = json_spans.members(text)
    except RepeatedKeyError as error:
        raise _invalid(str(error), f"{prefix}{error.key[:64]}", "JSON_INVALID") from error
    except InvalidJsonError as error:
        raise _invalid(str(error), field, "JSON_INVALID") from error
    for key in members:
        if key not in known:
            raise _invalid(f"unknown; known here: {', '.join(known)}", f"{prefix}{key[:64]}", "FIELD_UNKNOWN")
    return members


def _request_id(request: Request, body: dict[str, str]) -> str:
    written = _text(body["request_id"], "request_id") if "request_id" in body else ""
    if "request_id" in body and not written:
        raise _invalid(
            "1 to 128 printable ASCII characters; leave it out for none", "request_id", "REQUEST_ID_MALFORMED"
        )
    key = request.headers.get(KEY_HEADER)
    if key is None:
        return written
    # A structured header's string stands in quotes; many clients send it bare.
    bare = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not bare:
        raise _invalid("empty; leave it out for none", KEY_HEADER, "REQUEST_ID_MALFORMED")
    checks.check_request_id(bare, KEY_HEADER)
    if written and written != bare:
        raise _invalid("Idempotency-Key and request_id differ; send one of them", KEY_HEADER, "REQUEST_ID_TWICE")
    return bare


def _wait(body: dict[str, str]) -> bool:
    if "wait" not in body:
        return True
    wait = _WAITS.get(_text(body["wait"], "wait").lower())
    if wait is None:
        raise _invalid(f"must be one of: {', '.join(_WAITS)}", "wait", "WAIT_UNKNOWN")
    return wait


def _text(value: str, field: str) -> str:
    read = _exact(value, field)
    if not isinstance(read, str):
        raise _invalid("must be text", field, "TYPE")
    return read


def _number(value: str, field: str) -> Decimal:
    read = _exact(value, field)
    if not isinstance(read, Decimal):
        raise _invalid("must be a number", field, "TYPE")
    return read


def _exact(value: str, field: str) -> exact_json.Exact:
    try:
        return exact_json.loads(value)
    except InvalidJsonError as error:
        raise _invalid(str(error), field, "JSON_INVALID") from error


def _invalid(message: str, field: str, code: str) -> InvalidRequestError:
    return InvalidRequestError(message, field=field, code=code)
