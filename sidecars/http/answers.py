"""What a service's answer to a try means: a vote, and whether a cancel is owed.

Three answers are certain: 200 is a yes, 409 and 422 are the business's "no", 400 is a mistake in the
request; each with a body that can be read. After any other nobody knows what the service holds, so
the vote is transient and a cancel is owed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from participant_sdk.exact_json import PARAMETERS_MAX_BYTES, Exact, InvalidJsonError, canonical, loads_object
from participant_sdk.wire import MESSAGE_MAX_CHARS, REASON_MAX_CHARS, results_fault
from participant_sdk.xa import PREPARED, READ_ONLY, Vote, XaCode, business_no, invalid, transient_no

ANSWER_MAX_BYTES: Final = PARAMETERS_MAX_BYTES
FIELD_MAX_CHARS: Final = 256

_REASON: Final = re.compile(rf"[A-Z][A-Z0-9_]{{0,{REASON_MAX_CHARS - 1}}}", re.ASCII)


class Tried(NamedTuple):
    """What came of a try. With ``owes_cancel`` the service may hold something for a branch that votes no."""

    vote: Vote
    owes_cancel: bool = False


class _UnreadableError(ValueError):
    """The body is not what the contract says. The message says why."""


def unknown(reason: str, message: str, *, xa_code: int = XaCode.RBCOMMFAIL) -> Tried:
    """Make the answer to a try that may or may not have taken effect: no answer is no, and nothing is certain."""
    return Tried(transient_no(reason, message[:MESSAGE_MAX_CHARS], xa_code=xa_code), owes_cancel=True)


def read_try(status: int, body: bytes, operation_count: int) -> Tried:
    """Read what the service answered to a try of so many operations."""
    try:
        match status:
            case 200:
                return _read_yes(_object(body), operation_count)
            case 409 | 422:
                reason, message, field = _read_no(_object(body))
                return Tried(business_no(reason, message, field=field))
            case 400:
                reason, message, field = _read_no(_object(body))
                return Tried(invalid(reason, message, field or "operations"))
            case _:
                return unknown("SERVICE_FAILED", f"the service answered {status} to try")
    except (_UnreadableError, InvalidJsonError) as error:
        return unknown("SERVICE_UNREADABLE", f"the service answered {status} to try: {error}", xa_code=XaCode.RBPROTO)


def is_done(status: int) -> bool:
    """Whether this answer to confirm or cancel says that it is done; 202 says that it is not yet."""
    return 200 <= status < 300 and status != 202


def _object(body: bytes) -> Mapping[str, Exact]:
    if len(body) > ANSWER_MAX_BYTES:
        raise _UnreadableError(f"a body of more than {ANSWER_MAX_BYTES} bytes")
    try:
        return loads_object(body.decode())
    except UnicodeDecodeError as error:
        raise _UnreadableError("the body is not UTF-8") from error


def _read_yes(said: Mapping[str, Exact], operation_count: int) -> Tried:
    listed, is_read_only = said.get("results", ()), said.get("read_only", False)
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        raise _UnreadableError("results is not a list")
    if listed and len(listed) != operation_count:
        raise _UnreadableError(f"{len(listed)} results for {operation_count} operations")
    if not isinstance(is_read_only, bool):
        raise _UnreadableError("read_only is not true or false")
    vote = (READ_ONLY if is_read_only else PREPARED)._replace(results=tuple(map(canonical, listed)))
    fault = results_fault(vote)
    if fault:
        raise _UnreadableError(fault)
    return Tried(vote)


def _read_no(said: Mapping[str, Exact]) -> tuple[str, str, str]:
    """Read reason, message and field. A "no" that binds the request must say why."""
    reason, message, field = said.get("reason"), said.get("message", ""), said.get("field", "")
    if not isinstance(reason, str) or not _REASON.fullmatch(reason):
        raise _UnreadableError(f"reason is not a word in capitals of at most {REASON_MAX_CHARS} characters")
    if not isinstance(message, str) or not isinstance(field, str):
        raise _UnreadableError("message or field is not text")
    return reason, message[:MESSAGE_MAX_CHARS], field[:FIELD_MAX_CHARS]
