"""What another coordinator said, as this one tells it over HTTP."""

from __future__ import annotations

import grpc
import pytest

from coordinator.api.grpc_errors import reason_of
from coordinator.errors import (
    BusyError,
    InvalidRequestError,
    OutcomeUnknownError,
    RefusedError,
    TransactionError,
    UnavailableError,
    UnknownTransactionError,
    WrongPhaseError,
)
from coordinator.peer_answers import PeerRefusedError
from participant_sdk.client_errors import Failed
from participant_sdk.ids import Xid


def test_a_refusal_that_names_no_transaction_keeps_its_code() -> None:
    """Such as PASS_RUNNING, which is about the coordinator: over HTTP a conflict too, not silence."""
    failed = Failed(grpc.StatusCode.FAILED_PRECONDITION, "too many wait", "PASS_RUNNING")
    told = PeerRefusedError(failed, ()).as_told_here()
    assert (type(told), reason_of(told), told.xid) == (RefusedError, "PASS_RUNNING", None)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "XID_MALFORMED", InvalidRequestError),
        (grpc.StatusCode.NOT_FOUND, "TRANSACTION_UNKNOWN", UnknownTransactionError),
        (grpc.StatusCode.FAILED_PRECONDITION, "NOT_DECIDED", WrongPhaseError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TRANSACTIONS", BusyError),
        (grpc.StatusCode.UNKNOWN, "OUTCOME_UNKNOWN", OutcomeUnknownError),
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", UnavailableError),
        (grpc.StatusCode.INTERNAL, "INTERNAL", UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", UnavailableError),
    ],
)
def test_an_owners_error_keeps_its_kind_and_reason_over_http(
    code: grpc.StatusCode, reason: str, kind: type[TransactionError]
) -> None:
    """What is of no known kind tells nothing, least of all an outcome (R19)."""
    xid = Xid.make(1, 2, 3)
    told = PeerRefusedError(Failed(code, "as it is", reason, "field", 0.0, str(xid)), ()).as_told_here()
    assert type(told) is kind
    assert reason_of(told) == (reason if kind is not UnavailableError else "UNAVAILABLE")
    assert told.xid in {xid, None}
