"""What a caller can be told instead of an outcome.

    TransactionError
    ├── InvalidRequestError        the caller must change the request; names the field
    │   └── RequestReusedError     the request_id is bound to other operations
    ├── RequestInUseError          the request_id is another transaction's that has not ended; come again
    ├── UnknownTransactionError    no such transaction, here or in the log
    ├── UnknownWorkflowError       no such workflow
    ├── WrongPhaseError            the transaction is past the point where this is possible
    ├── RefusedError               an operator's wish that the state of things forbids; says why and what instead
    ├── LockTimeoutError           nobody let go of the keys in time; nothing is held of this call
    ├── DeadlockError              it waited in a circle of transactions, and is the one that was rolled back
    ├── LockLostError              it held keys, and does not any more
    ├── BusyError                  come again after ``retry_after_s``; nothing was begun
    ├── UnavailableError           the log, or a participant, cannot be reached; nothing was begun
    └── OutcomeUnknownError        it may have committed; ask again by request_id or xid

Every error has a stable ``reason`` in capitals, which gRPC's ErrorInfo and HTTP's problem
details share, and names the transaction if there is one. None of them tells an outcome (R19).
"""

from __future__ import annotations

from typing import ClassVar

from participant_sdk.ids import Xid


class TransactionError(Exception):
    """The root. The message names the transaction, its phase where it matters, and what to do next."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, *, xid: Xid | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.xid = xid


class InvalidRequestError(TransactionError):
    """The request is wrong in itself. ``field`` is the path to what is wrong, such as ``operations[1].service``.

    ``code`` is the stable reason, for the few that have one more telling than INVALID_REQUEST.
    """

    reason = "INVALID_REQUEST"

    def __init__(self, message: str, *, field: str, code: str = "INVALID_REQUEST", xid: Xid | None = None) -> None:
        super().__init__(message, xid=xid)
        self.field = field
        self.code = code


class RequestReusedError(InvalidRequestError):
    """The request_id was sent before with other operations, and is bound to them."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, message: str, *, xid: Xid | None = None) -> None:
        super().__init__(message, field="request_id", code=self.reason, xid=xid)


class RequestInUseError(TransactionError):
    """Another transaction of this request_id has not ended. Nothing was begun; its end decides what this one gets."""

    reason = "REQUEST_ID_IN_USE"


class UnknownTransactionError(TransactionError):
    """Neither this coordinator nor the log knows the transaction."""

    reason = "TRANSACTION_UNKNOWN"


class UnknownWorkflowError(TransactionError):
    """The log does not know the workflow."""

    reason = "WORKFLOW_UNKNOWN"


class WrongPhaseError(TransactionError):
    """The transaction is in another phase than the call needs. ``code`` says which need failed."""

    reason = "WRONG_PHASE"

    def __init__(self, message: str, *, code: str, xid: Xid) -> None:
        super().__init__(message, xid=xid)
        self.code = code


class RefusedError(TransactionError):
    """What an operator asks for would be unsafe or is not so. Nothing was changed.

    ``code`` is the stable reason: DECISION_KNOWN, TRANSACTION_LIVE, ALREADY_FINISHED, NOT_IN_DOUBT, NOT_HEURISTIC,
    NOT_HELD, LOCK_NOT_HELD, PARTICIPANTS_MISSING, STILL_APPLYING, BRANCHES_DISAGREE, BINDING_CONFLICT, RELEASE_REFUSED,
    PASS_RUNNING; of workflows ALREADY_FINISHED, PAST_PIVOT, STEP_COMMITTED, STEP_UNDONE, STEP_NOT_WAITED_FOR,
    STEP_NOT_LAST.
    """

    reason = "REFUSED"

    def __init__(self, message: str, *, code: str, xid: Xid | None = None) -> None:
        super().__init__(message, xid=xid)
        self.code = code


class LockTimeoutError(TransactionError):
    """The keys were not let go in time. Nothing is held of this call; it may be sent again."""

    reason = "LOCK_TIMEOUT"


class DeadlockError(TransactionError):
    """It waited in a circle, and is the one to give way. The message says who waited for whom."""

    reason = "DEADLOCK"


class LockLostError(TransactionError):
    """It held the keys and lost them; somebody else may hold them by now."""

    reason = "LOCK_LOST"


class BusyError(TransactionError):
    """As many transactions are in flight as ``max_concurrent_txns`` allows. Nothing was begun."""

    reason = "TOO_MANY_TRANSACTIONS"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(TransactionError):
    """What the call needs cannot be reached now. Nothing was begun."""

    reason = "UNAVAILABLE"


class OutcomeUnknownError(TransactionError):
    """The transaction may have committed or not; only the log knows, or will know."""

    reason = "OUTCOME_UNKNOWN"
