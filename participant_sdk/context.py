"""What travels along a chain of calls: the branch that a service works for, and the trace.

Both are context variables, so that they belong to one task and those it starts. On the wire
they are headers: gRPC metadata, and HTTP headers by the same names. ``interceptors`` carries
them for gRPC.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from participant_sdk.client_results import Enlisted
from participant_sdk.ids import InvalidIdentifierError, Xid, check_log_id, check_participant

XID_KEY: Final = "pincex-xid"
LOG_ID_KEY: Final = "pincex-log-id"
PARTICIPANT_KEY: Final = "pincex-participant"
BRANCH_KEY: Final = "pincex-branch"
REMAINING_KEY: Final = "pincex-remaining-ms"
TRACE_KEY: Final = "traceparent"

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}")

_branch: ContextVar[Enlisted | None] = ContextVar("pincex_branch", default=None)
_traceparent: ContextVar[str] = ContextVar("pincex_traceparent", default="")


def current_branch() -> Enlisted | None:
    """The branch that this task works for; None outside of any transaction."""
    return _branch.get()


def current_traceparent() -> str:
    """The W3C traceparent of the call being served; empty without one."""
    return _traceparent.get()


@contextmanager
def working_for(branch: Enlisted) -> Generator[Enlisted]:
    """Work under a branch for the time of the block: calls made inside carry it."""
    token = _branch.set(branch)
    try:
        yield branch
    finally:
        _branch.reset(token)


@contextmanager
def traced(traceparent: str) -> Generator[None]:
    """Pass this traceparent on for the time of the block; one that is not of W3C's form is dropped."""
    token = _traceparent.set(traceparent if _TRACEPARENT.fullmatch(traceparent) else "")
    try:
        yield
    finally:
        _traceparent.reset(token)


def branch_headers(branch: Enlisted) -> tuple[tuple[str, str], ...]:
    """The headers that name a branch to the service that works under it."""
    return (
        (XID_KEY, str(branch.xid)),
        (LOG_ID_KEY, branch.log_id),
        (PARTICIPANT_KEY, branch.participant),
        (BRANCH_KEY, str(branch.branch_number)),
        (REMAINING_KEY, str(max(int(branch.remaining_s * 1000), 1))),
    )


def trace_headers() -> tuple[tuple[str, str], ...]:
    """The headers that carry the trace on; none without one."""
    traceparent = _traceparent.get()
    return ((TRACE_KEY, traceparent),) if traceparent else ()


def read_branch(headers: Mapping[str, str]) -> Enlisted | None:
    """Read the branch that a caller named; None where it named none.

    InvalidIdentifierError where the headers are there and do not have their form: working outside of the
    transaction that the caller meant would be worse than refusing.
    """
    if XID_KEY not in headers:
        return None
    numbers = (headers.get(BRANCH_KEY, ""), headers.get(REMAINING_KEY, ""))
    if not all(_NUMBER.fullmatch(number) for number in numbers):
        raise InvalidIdentifierError(f"{BRANCH_KEY} and {REMAINING_KEY} are whole numbers, not {numbers}")
    return Enlisted(
        Xid.parse(headers[XID_KEY]),
        check_log_id(headers.get(LOG_ID_KEY, "")),
        check_participant(headers.get(PARTICIPANT_KEY, "")),
        int(numbers[0]),
        int(numbers[1]) / 1000,
    )


def enter_branch(branch: Enlisted | None) -> None:
    """Set the branch for the rest of this task, as a server's interceptor does for one call."""
    _branch.set(branch)


def enter_trace(traceparent: str) -> None:
    """Set the trace for the rest of this task, as a server's interceptor does for one call."""
    _traceparent.set(traceparent if _TRACEPARENT.fullmatch(traceparent) else "")
