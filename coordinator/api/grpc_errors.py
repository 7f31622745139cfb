"""Errors as gRPC tells them: rich status with google.rpc details, and a stream's ``Failure``.

    InvalidRequestError      INVALID_ARGUMENT      BadRequest
    UnknownTransactionError  NOT_FOUND             ResourceInfo
    UnknownWorkflowError     NOT_FOUND             ResourceInfo
    WrongPhaseError          FAILED_PRECONDITION   PreconditionFailure
    RefusedError             FAILED_PRECONDITION   PreconditionFailure
    RequestInUseError        ABORTED               RetryInfo
    LockTimeoutError         ABORTED               RetryInfo
    DeadlockError            ABORTED
    BusyError                RESOURCE_EXHAUSTED    RetryInfo
    UnavailableError         UNAVAILABLE           RetryInfo
    OutcomeUnknownError      UNKNOWN

Every one has ErrorInfo with domain, reason and, where there is one, the transaction. None tells
an outcome (R19).
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from pincex.tx.v1 import transaction_pb2

from coordinator.api.rejection import RejectedError
from coordinator.errors import (
    BusyError,
    DeadlockError,
    InvalidRequestError,
    LockTimeoutError,
    OutcomeUnknownError,
    RefusedError,
    RequestInUseError,
    TransactionError,
    UnavailableError,
    UnknownTransactionError,
    UnknownWorkflowError,
    WrongPhaseError,
)
from coordinator.telemetry import Telemetry
from participant_sdk.xa import XaCode

# A context's messages do not matter to its errors, and its type is invariant in them.
AnyContext = grpc.aio.ServicerContext[Any, Any]  # pyright: ignore[reportExplicitAny]

DOMAIN: Final = "pincex.tx"
UNAVAILABLE_RETRY_AFTER_S: Final = 1.0
DETAILS_KEY: Final = "grpc-status-details-bin"
_MESSAGE_MAX_CHARS: Final = 1000
_NANOS: Final = 1_000_000_000
_SUBJECTS: Final = {"LOCK_NOT_HELD": "a lock"}
_CODES: Final[tuple[tuple[type[TransactionError], grpc.StatusCode], ...]] = (
    (InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (UnknownTransactionError, grpc.StatusCode.NOT_FOUND),
    (UnknownWorkflowError, grpc.StatusCode.NOT_FOUND),
    (WrongPhaseError, grpc.StatusCode.FAILED_PRECONDITION),
    (RefusedError, grpc.StatusCode.FAILED_PRECONDITION),
    (RequestInUseError, grpc.StatusCode.ABORTED),
    (LockTimeoutError, grpc.StatusCode.ABORTED),
    (DeadlockError, grpc.StatusCode.ABORTED),
    (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (OutcomeUnknownError, grpc.StatusCode.UNKNOWN),
)


def code_of(error: TransactionError) -> grpc.StatusCode:
    """The status code for an error; INTERNAL for one that no rule foresees."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def reason_of(error: TransactionError) -> str:
    """The stable reason in capitals, which gRPC and HTTP share."""
    match error:
        case InvalidRequestError() | WrongPhaseError() | RefusedError():
            return error.code
        case _:
            return error.reason


def retry_after_s_of(error: TransactionError) -> float:
    """How long to wait before another try; 0 where none makes sense as it stands."""
    match error:
        case BusyError():
            return error.retry_after_s
        case UnavailableError() | RequestInUseError() | LockTimeoutError():
            return UNAVAILABLE_RETRY_AFTER_S
        case _:
            return 0.0


def status_of(error: TransactionError) -> status_pb2.Status:
    """The rich status for an error."""
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message[:_MESSAGE_MAX_CHARS])
    status.details.append(
        packed(error_details_pb2.ErrorInfo(reason=reason_of(error), domain=DOMAIN, metadata=_metadata_of(error)))
    )
    match error:
        case InvalidRequestError():
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=error.field, description=error.message[:_MESSAGE_MAX_CHARS], reason=error.code
            )
            status.details.append(packed(error_details_pb2.BadRequest(field_violations=[violation])))
        case UnknownTransactionError():
            resource = error_details_pb2.ResourceInfo(
                resource_type="transaction", resource_name=str(error.xid or ""), description=error.message
            )
            status.details.append(packed(resource))
        case UnknownWorkflowError():
            unknown = error_details_pb2.ResourceInfo(resource_type="workflow", description=error.message)
            status.details.append(packed(unknown))
        case WrongPhaseError() | RefusedError():
            subject = (
                f"transaction {error.xid}" if error.xid is not None else _SUBJECTS.get(error.code, "the decision log")
            )
            unmet = error_details_pb2.PreconditionFailure.Violation(
                type=error.code, subject=subject, description=error.message
            )
            status.details.append(packed(error_details_pb2.PreconditionFailure(violations=[unmet])))
        case _:
            pass
    if retry_after_s := retry_after_s_of(error):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(retry_after_s * _NANOS))
        status.details.append(packed(retry))
    return status


def failure_of(error: TransactionError) -> transaction_pb2.Failure:
    """The same error as an answer of a stream."""
    failure = transaction_pb2.Failure(
        code=code_of(error).value[0],
        message=error.message[:_MESSAGE_MAX_CHARS],
        reason=reason_of(error),
        field=_field_of(error),
        xid=str(error.xid) if error.xid is not None else "",
    )
    if retry_after_s := retry_after_s_of(error):
        failure.retry_after.FromNanoseconds(int(retry_after_s * _NANOS))
    return failure


def unforeseen(telemetry: Telemetry, error: Exception) -> TransactionError:
    """Count and log an error that no rule foresees; return INTERNAL, which has nothing of its text."""
    telemetry.fault("grpc", error)
    return TransactionError("an error inside the coordinator; it is in its log")


class Refusals:
    """``async with`` it around a call: what is raised inside ends the call with a rich status.

    An error that no rule foresees is told as INTERNAL without its text, counted and logged.
    """

    __slots__ = ("_context", "_telemetry")

    def __init__(self, context: AnyContext, telemetry: Telemetry) -> None:
        self._context = context
        self._telemetry = telemetry

    async def __aenter__(self) -> None:
        """Nothing to do before."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Abort the call for an error; cancellation passes."""
        if not isinstance(error, Exception) or isinstance(error, grpc.aio.AbortError):
            return
        if not isinstance(error, TransactionError):
            error = unforeseen(self._telemetry, error)
        self._telemetry.refused("grpc", error.reason)
        status = status_of(error)
        await self._context.abort(code_of(error), status.message, ((DETAILS_KEY, status.SerializeToString()),))


def _field_of(error: TransactionError) -> str:
    """What is wrong, as the messages name it; empty where it is no part of the request."""
    match error:
        case InvalidRequestError():
            return error.field
        case UnknownTransactionError():
            return "xid"
        case UnknownWorkflowError():
            return "workflow_id"
        case RequestInUseError():
            return "request_id"
        case _:
            return ""


def _metadata_of(error: TransactionError) -> dict[str, str]:
    metadata: dict[str, str] = {}
    if error.xid is not None:
        metadata["transaction_id"] = str(error.xid)
    if isinstance(error, RejectedError):
        metadata["state"] = error.state
    if isinstance(error, DeadlockError):
        metadata["xa_code"] = str(XaCode.RBDEADLOCK.value)
    if field := _field_of(error):
        metadata["field"] = field
    return metadata


def packed(message: Message) -> any_pb2.Any:
    """A detail, as a status carries it."""
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
