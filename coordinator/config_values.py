"""The kinds of value that a configuration holds, each with its range and its own complaint.

A value of the wrong type and a value out of range get the same sentence, which tells what is
allowed: who edits a file at night must not guess.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import BeforeValidator

from coordinator.locks.redis_address import parse_address
from participant_sdk.ids import check_participant

_UNITS_S: Final = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_DURATION: Final = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d))+")
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_ADDRESS: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5})")
PORT_MAX: Final = 65535
MEMORY_STORE: Final = "memory"


def parse_duration(text: str) -> timedelta:
    """Read a duration such as ``30s``, ``1m30s`` or ``250ms``. ValueError for any other text."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"not a duration (such as 30s, 5m, 1m30s, 250ms): {text[:64]!r}")
    parts = (Decimal(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    try:
        return timedelta(seconds=float(sum(parts)))
    except OverflowError as error:
        raise ValueError(f"a duration of more days than can be counted: {text[:64]!r}") from error


def span(low: str, high: str) -> BeforeValidator:
    """A duration from ``low`` to ``high``, both allowed."""
    least, most = parse_duration(low), parse_duration(high)

    def read(value: object) -> timedelta:
        duration = parse_duration(value) if isinstance(value, str) else value
        if not isinstance(duration, timedelta) or not least <= duration <= most:
            raise ValueError(f"a duration from {low} to {high}, such as {low}; not {value!r}")
        return duration

    return BeforeValidator(read)


def whole(low: int, high: int) -> BeforeValidator:
    """A whole number from ``low`` to ``high``, both allowed."""

    def read(value: object) -> int:
        number = _decimal(value)
        # The range first: a number of a billion digits would be written out to be compared.
        if number is None or not low <= number <= high or number != int(number):
            raise ValueError(f"a whole number from {low} to {high}; not {value!r}")
        return int(number)

    return BeforeValidator(read)


def share() -> BeforeValidator:
    """A share from 0 to 1, both allowed."""

    def read(value: object) -> float:
        number = _decimal(value)
        if number is None or not 0 <= number <= 1:
            raise ValueError(f"a number from 0 to 1; not {value!r}")
        return float(number)

    return BeforeValidator(read)


def one_of(*words: str) -> BeforeValidator:
    """One of these words, in small or capital letters."""

    def read(value: object) -> str:
        word = value.lower() if isinstance(value, str) else ""
        if word not in words:
            raise ValueError(f"one of {', '.join(words)}; not {value!r}")
        return word

    return BeforeValidator(read)


def switch() -> BeforeValidator:
    """True or false; nothing else that might pass for one."""

    def read(value: object) -> bool:
        match value:
            case bool():
                return value
            case "true" | "false":
                return value == "true"
            case _:
                raise ValueError(f"true or false; not {value!r}")

    return BeforeValidator(read)


def text(*, longest: int = 512) -> BeforeValidator:
    """A text without line breaks, at most ``longest`` characters."""

    def read(value: object) -> str:
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            # The value may hold a password, so it is not shown.
            raise ValueError(f"a text of at most {longest} characters on one line")
        return value

    return BeforeValidator(read)


def connection_string() -> BeforeValidator:
    """A libpq connection string, as keywords or as a URL."""

    def read(value: object) -> str:
        try:
            conninfo_to_dict(value if isinstance(value, str) else "")
        except ProgrammingError as error:
            # The value, and libpq's words about it, may hold a password.
            raise ValueError("a connection string, such as postgresql://pincex@db:5432/txlog") from error
        if not isinstance(value, str) or not value:
            raise ValueError("a connection string, such as postgresql://pincex@db:5432/txlog")
        return value

    return BeforeValidator(read)


def host_port() -> BeforeValidator:
    """A ``host:port``; an IPv6 host stands in brackets."""

    def read(value: object) -> str:
        found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
        if found is None or int(found.group(1)) > PORT_MAX:
            raise ValueError(f"a host:port, port 0 to {PORT_MAX}; not {_shown(value)}")
        return found.group()

    return BeforeValidator(read)


def lock_store() -> BeforeValidator:
    """``memory``, or the address of a Redis."""

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{MEMORY_STORE}, or a Redis address such as redis://:password@redis:6379/0")  # noqa: TRY004 - the configuration's complaint
        if value != MEMORY_STORE:
            # Its complaints do not repeat the value, which may hold a password.
            parse_address(value)
        return value

    return BeforeValidator(read)


def participant_name() -> BeforeValidator:
    """A participant's name, as in the protocol."""

    def read(value: object) -> str:
        return check_participant(value if isinstance(value, str) else repr(value))

    return BeforeValidator(read)


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        number = Decimal(str(value))
    except (InvalidOperation, ValueError):
        # A text that is none, an exponent beyond Decimal's, an int too long for Python to write.
        return None
    return number if number.is_finite() else None


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}…"
