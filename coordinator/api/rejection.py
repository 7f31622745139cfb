"""A participant's "no" to parameters that are wrong in themselves, told as an error of the request.

Such a vote is no result of business: the caller must change the request. The transaction was
begun, is rolled back, and has an xid, which the error carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coordinator.errors import InvalidRequestError
from coordinator.protocol.outcome import BranchOutcome, Outcome
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, Vote, XaCode

_OPERATIONS: Final = "operations["
_COMMIT: Final = Decision.COMMIT


class RejectedError(InvalidRequestError):
    """A participant refused the request's parameters; ``xid`` is rolled back."""

    def __init__(self, message: str, *, field: str, code: str, xid: Xid) -> None:
        super().__init__(message, field=field, code=code, xid=xid)
        self.state = "ROLLED_BACK"


def rejection(outcome: Outcome, services: Sequence[str], request_id: str) -> RejectedError | None:
    """The error for the first branch that voted so; None where none did. ``services``: of the request's operations."""
    if outcome.decision is _COMMIT:
        return None
    for branch in outcome.branches:
        vote = branch.vote
        if vote is not None and vote.is_business_no and vote.xa_code == XaCode.XAER_INVAL:
            return _rejected(outcome, branch, vote, services, request_id)
    return None


def _rejected(
    outcome: Outcome, branch: BranchOutcome, vote: Vote, services: Sequence[str], request_id: str
) -> RejectedError:
    field = request_field(vote.field, branch.participant, services)
    message = vote.message or vote.reason
    # A request_id is bound to this "no" (R3).
    again = "send it under another request_id" if request_id else "send it again"
    return RejectedError(
        f"{branch.participant}: {message.replace(vote.field, field) if vote.field else message} "
        f"(transaction {outcome.xid} is ROLLED_BACK; change the request and {again})",
        field=field,
        code=vote.reason or "INVALID_REQUEST",
        xid=outcome.xid,
    )


def request_field(field: str, participant: str, services: Sequence[str]) -> str:
    """Turn a path from the branch down into one from the request down.

    A branch holds the operations of its service in the request's order, so its n-th is the
    request's n-th of that service. What cannot be turned stays as the participant wrote it.
    """
    number, bracket, rest = field.removeprefix(_OPERATIONS).partition("]")
    if not field.startswith(_OPERATIONS) or not bracket or not number.isascii() or not number.isdecimal():
        return field or "operations"
    places = [index for index, service in enumerate(services) if service == participant]
    index = int(number[:4])
    return f"operations[{places[index]}]{rest}" if index < len(places) else field
