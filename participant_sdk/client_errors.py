"""What a client is told instead of an outcome.

    ClientError
    ├── InvalidRequestError        the request must change; ``field`` names what is wrong
    │   └── RequestReusedError     the request_id is bound to other operations
    ├── RequestInUseError          another transaction of the request_id has not ended; try later
    ├── UnknownTransactionError    no such transaction
    ├── WrongPhaseError            the transaction is past the point where this is possible
    ├── DeadlockError              an interactive transaction waited in a circle for locks, and was rolled back
    ├── LockTimeoutError           the keys were not let go in time; the transaction is as it was
    ├── RefusedError               the coordinator does not serve this caller, or this call
    ├── UnavailableError           no coordinator answered; for calls that decide nothing
    ├── RolledBackError            a ``transaction()`` block ended in rollback; ``result`` says why
    └── OutcomeUnknown             it may have committed; ask again by ``request_id`` or ``xid``

None of them but ``RolledBackError`` tells an outcome: no status of gRPC ever does (R19).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from grpc import StatusCode

from participant_sdk.client_results import RolledBack

REQUEST_REUSED: Final = "REQUEST_ID_REUSED"
REQUEST_IN_USE: Final = "REQUEST_ID_IN_USE"
OUTCOME_UNKNOWN: Final = "OUTCOME_UNKNOWN"
DEADLOCK: Final = "DEADLOCK"
LOCK_TIMEOUT: Final = "LOCK_TIMEOUT"
NOT_SENT: Final = "NOT_SENT"
_NOTHING_BEGUN: Final = frozenset({"TOO_MANY_TRANSACTIONS", REQUEST_IN_USE, NOT_SENT})


class Failed(NamedTuple):
    """One try that brought no outcome, as a status or a stream's ``Failure`` tells it."""

    code: StatusCode
    message: str
    reason: str = ""
    field: str = ""
    retry_after_s: float = 0.0
    xid: str = ""

    @property
    def nothing_begun(self) -> bool:
        """This try certainly began nothing: the coordinator says so, or it never left."""
        return self.reason in _NOTHING_BEGUN

    @property
    def is_silence(self) -> bool:
        """Nothing came in the time that the try was given."""
        return self.code is StatusCode.DEADLINE_EXCEEDED

    @property
    def in_use(self) -> bool:
        """The request_id is another transaction's, which has to end first."""
        return self.reason == REQUEST_IN_USE

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


class ClientError(Exception):
    """The root. ``reason`` is the stable word that gRPC's ErrorInfo and HTTP's problem details share."""

    def __init__(self, message: str, *, reason: str = "", xid: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.xid = xid


class InvalidRequestError(ClientError):
    """The request is wrong in itself, and nothing was kept of it.

    ``field`` is the path to what is wrong, such as ``operations[1].parameters.amount``.
    """

    def __init__(self, message: str, *, field: str, reason: str = "INVALID_REQUEST", xid: str = "") -> None:
        super().__init__(f"{field}: {message}" if field and not message.startswith(field) else message)
        self.reason = reason
        self.field = field
        self.xid = xid


class RequestReusedError(InvalidRequestError):
    """The request_id was sent before with other operations, and is bound to them."""


class RequestInUseError(ClientError):
    """Another transaction of the request_id, ``xid``, has not ended, and nothing was begun. It may be sent again."""


class UnknownTransactionError(ClientError):
    """Neither the coordinator nor the log knows the transaction."""


class WrongPhaseError(ClientError):
    """The transaction is in another phase than the call needs."""


class DeadlockError(ClientError):
    """The transaction waited in a circle with others, was the youngest, and is rolled back: begin it anew."""


class LockTimeoutError(ClientError):
    """Nobody let go of the keys in time; the message says who held them. The transaction is as it was."""


class RefusedError(ClientError):
    """The coordinator does not serve this caller, or this call."""


class UnavailableError(ClientError):
    """No coordinator answered in time a call that decides nothing. It may be made again."""


class RolledBackError(ClientError):
    """A transaction's block ended in rollback. ``result`` says why, and whether trying again makes sense."""

    def __init__(self, result: RolledBack) -> None:
        super().__init__(f"rolled back: {result.reason}: {result.message}", reason=result.reason, xid=str(result.xid))
        self.result = result


class OutcomeUnknown(ClientError):  # noqa: N818  The product's word for the third ending.
    """The transaction may have committed or not.

    Execute again with the same operations and ``request_id`` to learn which, or close the intent
    with ``TransactionClient.close_request``. An interactive transaction has an ``xid`` to ask by.
    """

    def __init__(self, message: str, *, request_id: str = "", xid: str = "") -> None:
        super().__init__(message, reason=OUTCOME_UNKNOWN, xid=xid)
        self.request_id = request_id


def error_of(failed: Failed) -> ClientError | None:
    """The error for which trying again is no use; None where it is."""
    if failed.reason == REQUEST_REUSED:
        return RequestReusedError(
            failed.message, field=failed.field or "request_id", reason=failed.reason, xid=failed.xid
        )
    if failed.reason == DEADLOCK:
        return DeadlockError(failed.message, reason=failed.reason, xid=failed.xid)
    if failed.code in _ABOUT_FIELDS:
        reason = failed.reason or "INVALID_REQUEST"
        return InvalidRequestError(failed.message, field=failed.field, reason=reason, xid=failed.xid)
    kind = _KINDS.get(failed.code)
    return None if kind is None else kind(failed.message, reason=failed.reason, xid=failed.xid)


_ABOUT_FIELDS: Final = frozenset({StatusCode.INVALID_ARGUMENT, StatusCode.OUT_OF_RANGE})
_KINDS: Final[dict[StatusCode, type[ClientError]]] = {
    StatusCode.NOT_FOUND: UnknownTransactionError,
    StatusCode.FAILED_PRECONDITION: WrongPhaseError,
    StatusCode.PERMISSION_DENIED: RefusedError,
    StatusCode.UNAUTHENTICATED: RefusedError,
    StatusCode.UNIMPLEMENTED: RefusedError,
}


def late_error_of(failed: Failed, message: str) -> ClientError:
    """The error for a call that decides nothing, once there is no time for another try."""
    if failed.in_use:
        return RequestInUseError(message, reason=failed.reason, xid=failed.xid)
    return UnavailableError(message, reason=failed.reason)
