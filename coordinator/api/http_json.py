"""JSON bodies: read within bounds, taken apart exactly. What is wrong is named by its field.

A body never passes through a model or a float: pydantic's models round JSON numbers and take 1e400
for infinity, even in Decimal fields.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from email.message import Message
from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from coordinator.api import json_spans
from coordinator.api.http_problems import KEY_HEADER, UnacceptableError
from coordinator.api.json_spans import RepeatedKeyError
from coordinator.errors import InvalidRequestError
from participant_sdk import exact_json
from participant_sdk.exact_json import InvalidJsonError

BODY_MAX_BYTES: Final = 1024 * 1024
BODY_WITHIN_S: Final = 30.0


async def read_members(
    request: Request, known: Sequence[str], required: Sequence[str] = (), *, may_be_absent: bool = False
) -> dict[str, str]:
    """Read a body that is an object of these members, each as its JSON text. InvalidRequestError.

    With ``may_be_absent``, a request without a body has no members.
    """
    _check_head(request)
    if may_be_absent and "Content-Type" not in request.headers and not await _read(request):
        return {}
    _check_type(request)
    body = await _read(request)
    try:
        json_spans.check_syntax(body)
    except InvalidJsonError as error:
        raise invalid(str(error), "body", "JSON_INVALID") from error
    found = members(body, known, "body", "")
    for key in required:
        if key not in found:
            raise invalid("required", key, "REQUIRED")
    return found


def members(value: str, known: Sequence[str], field: str, prefix: str) -> dict[str, str]:
    """Cut an object into its members. ``field`` names it, ``prefix`` stands before their names."""
    try:
        found = json_spans.members(value)
    except RepeatedKeyError as error:
        raise invalid(str(error), f"{prefix}{error.key[:64]}", "JSON_INVALID") from error
    except InvalidJsonError as error:
        raise invalid(str(error), field, "JSON_INVALID") from error
    for key in found:
        if key not in known:
            raise invalid(f"unknown; known here: {', '.join(known)}", f"{prefix}{key[:64]}", "FIELD_UNKNOWN")
    return found


def text(value: str, field: str) -> str:
    """Read a member that is text."""
    read = _exact(value, field)
    if not isinstance(read, str):
        raise invalid("must be text", field, "TYPE")
    return read


def number(value: str, field: str) -> Decimal:
    """Read a member that is a number, exactly."""
    read = _exact(value, field)
    if not isinstance(read, Decimal):
        raise invalid("must be a number", field, "TYPE")
    return read


def flag(value: str, field: str) -> bool:
    """Read a member that is true or false."""
    read = _exact(value, field)
    if not isinstance(read, bool):
        raise invalid("must be true or false", field, "TYPE")
    return read


def invalid(message: str, field: str, code: str) -> InvalidRequestError:
    """Make the refusal of one field."""
    return InvalidRequestError(message, field=field, code=code)


def _check_head(request: Request) -> None:
    for name in request.query_params:
        raise invalid("everything stands in the body: no query parameter is known", name[:64], "FIELD_UNKNOWN")
    for name in ("Content-Type", KEY_HEADER):
        if len(request.headers.getlist(name)) > 1:
            raise invalid("the header stands twice", name, "HEADER_TWICE")


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


async def _read(request: Request) -> str:
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
        raise invalid(f"not UTF-8, at byte {error.start}", "body", "NOT_UTF8") from error


def _exact(value: str, field: str) -> exact_json.Exact:
    try:
        return exact_json.loads(value)
    except InvalidJsonError as error:
        raise invalid(str(error), field, "JSON_INVALID") from error
