"""Refusals of a participant as rich gRPC statuses: they name the field or say when to come again, never an outcome."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from participant_sdk.frames import BadFrameError
from participant_sdk.known_logs import ParticipantFailedError
from participant_sdk.wire import InvalidFieldError

# A context's messages do not matter to its errors, and its type is invariant in them.
AnyContext = grpc.aio.ServicerContext[Any, Any]  # pyright: ignore[reportExplicitAny]

DOMAIN: Final = "pincex.tx"
RETRY_AFTER_S: Final = 1
_DETAILS_KEY: Final = "grpc-status-details-bin"
_MESSAGE_MAX_CHARS: Final = 1_000


class Refusals:
    """Around a call: what it raises becomes the call's status."""

    __slots__ = ("_context",)

    def __init__(self, context: AnyContext) -> None:
        self._context = context

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case InvalidFieldError():
                violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
                await self._abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "INVALID_FIELD",
                    f"{error.field}: {error}",
                    error_details_pb2.BadRequest(field_violations=[violation]),
                )
            case BadFrameError():
                await self._abort(grpc.StatusCode.INVALID_ARGUMENT, "BAD_FRAME", str(error))
            case ParticipantFailedError():
                retry = error_details_pb2.RetryInfo()
                retry.retry_delay.seconds = RETRY_AFTER_S
                await self._abort(grpc.StatusCode.UNAVAILABLE, "PARTICIPANT_FAILED", str(error), retry)
            case _:
                pass

    async def _abort(self, code: grpc.StatusCode, reason: str, message: str, *details: Message) -> None:
        message = message[:_MESSAGE_MAX_CHARS]
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in (error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN), *details):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        await self._context.abort(code, message, ((_DETAILS_KEY, status.SerializeToString()),))
