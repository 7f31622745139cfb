"""What every door asks of a request before the engine sees it. Each refusal names the field."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final

from coordinator import canonical
from coordinator.api import json_faults
from coordinator.errors import InvalidRequestError
from coordinator.locks.claims import KEY_MAX_CHARS, KEYS_MAX, sorted_keys
from coordinator.passes import Scope
from coordinator.requests import TENANT_DEFAULT, ExecuteCall
from participant_sdk import exact_json, ids
from participant_sdk.exact_json import Exact
from participant_sdk.ids import InvalidIdentifierError, Xid
from participant_sdk.operations import parameters_fault
from participant_sdk.participant import OPERATIONS_MAX, Operation

TIMEOUT_MAX_S: Final = 55 * 60
REASON_MAX_CHARS: Final = 200
PAGE_SIZE_MAX: Final = 1000
NAMES_KEPT_MAX: Final = 4096

_OPERATION_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")


def execute_call(
    operations: Sequence[Operation],
    timeout_s: float,
    request_id: str,
    *,
    wait_applied: bool,
    lock_keys: Sequence[str] = (),
) -> ExecuteCall:
    """A transaction that may be run. InvalidRequestError names the first field that is wrong."""
    parameters = check_operations(operations)
    check_request_id(request_id)
    digest = canonical.digest_of_read(operations, parameters) if request_id else b""
    keys = check_lock_keys(lock_keys, "lock_keys", least=0) if lock_keys else ()
    return ExecuteCall(tuple(operations), timeout_s, TENANT_DEFAULT, request_id, digest, wait_applied, keys)


def check_page_size(size: int) -> int:
    """Return how many a page has, 1 to 1,000."""
    if not 1 <= size <= PAGE_SIZE_MAX:
        raise InvalidRequestError(f"1 to {PAGE_SIZE_MAX}, not {size}", field="page_size", code="PAGE_SIZE_OUT_OF_RANGE")
    return size


def check_lock_keys(keys: Sequence[str], field: str = "keys", *, least: int = 1) -> tuple[str, ...]:
    """Return the keys to lock, sorted and without repetition."""
    if not least <= len(keys) <= KEYS_MAX:
        raise InvalidRequestError(f"{least} to {KEYS_MAX} keys, not {len(keys)}", field=field, code="LOCK_KEY_COUNT")
    for index, key in enumerate(keys):
        check_lock_key(key, f"{field}[{index}]")
    return sorted_keys(keys)


def check_lock_key(key: str, field: str = "key") -> str:
    """Return a key to lock."""
    if not 0 < len(key) <= KEY_MAX_CHARS or not key.isprintable() or key != key.strip():
        raise InvalidRequestError(
            f"not a lock's key (1 to {KEY_MAX_CHARS} printable characters, no space at its ends): {key[:64]!r}",
            field=field,
            code="LOCK_KEY_MALFORMED",
        )
    return key


def check_operations(operations: Sequence[Operation], *, least: int = 1) -> list[Mapping[str, Exact]]:
    """Read ``least`` to 100 operations' parameters; each has good names and one exact JSON object, 64 KiB at most.

    All together have 256 KiB at most.
    """
    check_count(len(operations), least=least)
    if fault := parameters_fault(operations):
        raise InvalidRequestError(fault, field="operations", code="OPERATIONS_TOO_LARGE")
    read: list[Mapping[str, Exact]] = []
    for index, (service, name, parameters) in enumerate(operations):
        _check_names(service, name, index)
        try:
            read.append(exact_json.loads_object(parameters))
        except exact_json.InvalidJsonError as error:
            raise _bad_json(parameters, f"operations[{index}].parameters", error) from error
    return read


def check_count(operations: int, *, least: int = 1) -> None:
    """Check how many operations there are; before they are read, where there may be a million."""
    if not least <= operations <= OPERATIONS_MAX:
        raise InvalidRequestError(
            f"{least} to {OPERATIONS_MAX} operations, not {operations}", field="operations", code="OPERATION_COUNT"
        )


def check_parameters(text: str, field: str) -> Mapping[str, Exact]:
    """Read parameters, which are one exact JSON object of 64 KiB at most; the error names what in it is at fault."""
    try:
        return exact_json.loads_object(text)
    except exact_json.InvalidJsonError as error:
        raise _bad_json(text, field, error) from error


def check_timeout(seconds: Decimal, field: str = "timeout") -> float:
    """Return a time-out in seconds, above 0 and at most 55 minutes."""
    if not 0 < seconds <= TIMEOUT_MAX_S:
        raise InvalidRequestError(
            f"a time-out is above 0 and at most {TIMEOUT_MAX_S} seconds (55 minutes), not {seconds:f}",
            field=field,
            code="TIMEOUT_OUT_OF_RANGE",
        )
    return float(seconds)


def check_request_id(name: str, field: str = "request_id") -> str:
    """Return a request_id, or nothing for none."""
    try:
        return ids.check_request_id(name) if name else ""
    except InvalidIdentifierError as error:
        raise InvalidRequestError(str(error), field=field, code="REQUEST_ID_MALFORMED") from error


def check_xid(text: str, field: str = "xid") -> Xid:
    """Read a transaction's identifier."""
    try:
        return Xid.parse(text)
    except InvalidIdentifierError as error:
        raise InvalidRequestError(str(error), field=field, code="XID_MALFORMED") from error


def check_participant(name: str, field: str = "participant") -> str:
    """Return a participant's name."""
    try:
        return ids.check_participant(name)
    except InvalidIdentifierError as error:
        raise InvalidRequestError(str(error), field=field, code="NAME_MALFORMED") from error


def check_reason(text: str) -> str:
    """Return a reason for people: at most 200 characters on one line."""
    if len(text) > REASON_MAX_CHARS or not text.isprintable():
        raise InvalidRequestError(
            f"a reason has at most {REASON_MAX_CHARS} printable characters", field="reason", code="REASON_MALFORMED"
        )
    return text


def check_given_reason(text: str) -> str:
    """Return an operator's reason, which has to be given and is kept for good."""
    if not text.strip():
        raise InvalidRequestError(
            "required: say why, for whoever reads the record of it", field="reason", code="REQUIRED"
        )
    return check_reason(text)


def check_pass(scope: Scope, xid: str, participant: str, *, xid_field: str = "xid") -> tuple[Xid | None, str]:
    """Read what a pass is about: a transaction, a participant, or neither; what another scope needs is refused."""
    for field, given, wanted in (
        (xid_field, xid, Scope.TRANSACTION),
        ("participant", participant, Scope.PARTICIPANT),
    ):
        if given and scope is not wanted:
            raise InvalidRequestError(
                f"a pass over {scope.name} has none; leave it out, or ask for {wanted.name}",
                field=field,
                code="FIELD_UNEXPECTED",
            )
        if not given and scope is wanted:
            raise InvalidRequestError(f"required for a pass over {scope.name}", field=field, code="REQUIRED")
    return check_xid(xid, xid_field) if xid else None, check_participant(participant) if participant else ""


def _bad_json(text: str, field: str, error: exact_json.InvalidJsonError) -> InvalidRequestError:
    return InvalidRequestError(str(error), field=f"{field}{json_faults.locate(text)}", code="JSON_INVALID")


# The same few come all the time. What raises is not kept, so nothing kept is longer than a good name.
@lru_cache(maxsize=NAMES_KEPT_MAX)
def _check_names(service: str, name: str, index: int) -> None:
    check_participant(service, f"operations[{index}].service")
    if not _OPERATION_NAME.fullmatch(name):
        raise InvalidRequestError(
            f"not an operation's name (a-z first, then a-z 0-9 _, at most 64): {name[:64]!r}",
            field=f"operations[{index}].operation",
            code="NAME_MALFORMED",
        )
