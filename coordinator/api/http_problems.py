"""Errors as HTTP tells them: problem details (RFC 9457) with stable codes, shared with gRPC's ErrorInfo.

InvalidRequestError      400 (RequestReusedError: 422)
UnknownTransactionError  404
WrongPhaseError          409
RefusedError             409
RequestInUseError        409, Retry-After
LockTimeoutError         409, Retry-After
DeadlockError            409
BusyError                429, Retry-After
UnavailableError         503, Retry-After
OutcomeUnknownError      503: ask again by request_id; the code says that it may have committed
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from coordinator.api.grpc_errors import reason_of, retry_after_s_of
from coordinator.api.rejection import RejectedError
from coordinator.errors import (
    BusyError,
    DeadlockError,
    InvalidRequestError,
    LockTimeoutError,
    OutcomeUnknownError,
    RefusedError,
    RequestInUseError,
    RequestReusedError,
    TransactionError,
    UnavailableError,
    UnknownTransactionError,
    UnknownWorkflowError,
    WrongPhaseError,
)

MEDIA_TYPE: Final = "application/problem+json"
KEY_HEADER: Final = "Idempotency-Key"
_STATUSES: Final[tuple[tuple[type[TransactionError], HTTPStatus], ...]] = (
    (RequestReusedError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (InvalidRequestError, HTTPStatus.BAD_REQUEST),
    (UnknownTransactionError, HTTPStatus.NOT_FOUND),
    (UnknownWorkflowError, HTTPStatus.NOT_FOUND),
    (WrongPhaseError, HTTPStatus.CONFLICT),
    (RefusedError, HTTPStatus.CONFLICT),
    (RequestInUseError, HTTPStatus.CONFLICT),
    (LockTimeoutError, HTTPStatus.CONFLICT),
    (DeadlockError, HTTPStatus.CONFLICT),
    (BusyError, HTTPStatus.TOO_MANY_REQUESTS),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE),
    (OutcomeUnknownError, HTTPStatus.SERVICE_UNAVAILABLE),
)


class UnacceptableError(InvalidRequestError):
    """What HTTP itself has a status for: the body is too large, too slow, or of another type."""

    def __init__(self, status: HTTPStatus, message: str, *, field: str, code: str) -> None:
        super().__init__(message, field=field, code=code)
        self.status = status


def status_of(error: TransactionError) -> HTTPStatus:
    """The status for an error; 500 for one that no rule foresees."""
    if isinstance(error, UnacceptableError):
        return error.status
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def problem(
    status: HTTPStatus,
    code: str,
    detail: str,
    *,
    more: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document: type, title, status, detail, code, and what more there is."""
    document = {
        "type": f"urn:pincex:problem:{code.lower().replace('_', '-')}",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
        **(more or {}),
    }
    return Response(json.dumps(document), status.value, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def problem_of(error: TransactionError, request: Request) -> Response:
    """The problem document for an error."""
    more: dict[str, str] = {}
    if field := _field_of(error, request):
        more["field"] = field
    if error.xid is not None:
        more["transaction_id"] = str(error.xid)
    if isinstance(error, RejectedError):
        more["state"] = error.state
    retry_after_s = retry_after_s_of(error)
    headers = {"Retry-After": str(math.ceil(retry_after_s))} if retry_after_s else {}
    return problem(status_of(error), reason_of(error), error.message, more=more, headers=headers)


def _field_of(error: TransactionError, request: Request) -> str:
    """What is wrong, as HTTP names it; empty where it is no part of the request."""
    match error:
        case RequestReusedError() | RequestInUseError():
            return KEY_HEADER if KEY_HEADER in request.headers else "request_id"
        case InvalidRequestError():
            return error.field
        case UnknownTransactionError():
            return "transaction_id"
        case UnknownWorkflowError():
            return "workflow_id"
        case _:
            return ""


def problem_of_routing(request: Request, error: HTTPException) -> Response:
    """The problem document for an unknown path or method."""
    status = HTTPStatus(error.status_code)
    path = request.url.path[:200]
    match status:
        case HTTPStatus.NOT_FOUND:
            return problem(status, "PATH_UNKNOWN", f"nothing is served at {path}")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "")
            detail = f"{request.method} is not allowed at {path}; allowed: {allowed}"
            return problem(status, "METHOD_NOT_ALLOWED", detail, headers=error.headers)
        case _:
            return problem(status, "HTTP_ERROR", str(error.detail), headers=error.headers)
