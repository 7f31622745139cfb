"""JSON read exactly: numbers as decimals, no duplicate keys, no NaN, bounded depth and size.

Parameters of operations are JSON objects as text. Python's own reader would round numbers
through a float, take 1e400 as infinity, and keep the last of two equal keys; money allows
none of the three. ``canonical`` writes the one text that equal requests share: keys sorted,
numbers as exact decimals without trailing zeros or exponents (RFC 8785's idea, with decimals
in place of its doubles).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final, NoReturn

PARAMETERS_MAX_BYTES: Final = 64 * 1024
# Of all operations of one transaction. Whoever reads them reads all at once, and everybody else waits meanwhile.
ALL_PARAMETERS_MAX_BYTES: Final = 256 * 1024
DEPTH_MAX: Final = 16
NUMBER_MAX_DIGITS: Final = 38
NUMBER_MAX_EXPONENT: Final = 38

Exact = None | bool | str | Decimal | Sequence["Exact"] | Mapping[str, "Exact"]


class InvalidJsonError(ValueError):
    """The text is not JSON that can be read exactly. The message says why and where."""


def loads_object(text: str) -> dict[str, Exact]:
    """Read one JSON object. InvalidJsonError for anything else, past 64 KiB, 16 levels or 38 digits."""
    value = loads(text)
    if not isinstance(value, dict):
        raise InvalidJsonError("not a JSON object")
    return value


def loads(text: str) -> Exact:
    """Read one JSON value exactly. InvalidJsonError as for ``loads_object``."""
    # As the decoder has it, a NUL is malformed anyway; where all is ASCII, there is nothing else to look for.
    if not text.isascii() or len(text) > PARAMETERS_MAX_BYTES or "\x00" in text:
        _check_text(text)
    value: Exact
    try:
        # The decoder's own ``decode`` looks for white space around the text, which few have.
        value, end = _DECODER.raw_decode(text) if text.startswith("{") else (None, -1)
        if end != len(text):
            value = _DECODER.decode(text)
    except InvalidJsonError:
        raise
    except RecursionError as error:
        raise InvalidJsonError(f"nested deeper than {DEPTH_MAX} levels") from error
    except ValueError as error:
        raise InvalidJsonError(f"malformed JSON: {error}") from error
    # Few texts have escapes, or brackets enough to nest too deeply; the others need no second look.
    if "\\u" in text or text.count("{") + text.count("[") > DEPTH_MAX:
        _check(value, DEPTH_MAX)
    return value


def canonical(value: Exact) -> str:
    """Write the value's canonical text: the same for equal values, however they were written."""
    match value:
        case Decimal():
            return _canonical_number(value)
        case Mapping():
            members = (f"{json.dumps(key)}:{canonical(value[key])}" for key in sorted(value))
            return "{" + ",".join(members) + "}"
        case str() | bool() | None:
            return json.dumps(value)
        case _:
            return "[" + ",".join(canonical(item) for item in value) + "]"


def _canonical_number(number: Decimal) -> str:
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def read_number(text: str) -> Decimal:
    """Read a number as JSON writes it. InvalidJsonError past 38 digits or exponents of 38."""
    if len(text) <= NUMBER_MAX_DIGITS and "e" not in text and "E" not in text:
        # So short and without an exponent, it is in range.
        return Decimal(text)
    if len(text) > 2 * NUMBER_MAX_DIGITS:
        raise InvalidJsonError(f"a number of more than {NUMBER_MAX_DIGITS} digits: {text[:NUMBER_MAX_DIGITS]}…")
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        # An exponent of so many digits that Decimal has no place for it.
        raise InvalidJsonError(f"a number out of range (38 digits, exponents from -38 to 38): {text}") from error
    if len(number.as_tuple().digits) > NUMBER_MAX_DIGITS or abs(number.adjusted()) > NUMBER_MAX_EXPONENT:
        raise InvalidJsonError(f"a number out of range (38 digits, exponents from -38 to 38): {text}")
    return number


def _read_object(members: list[tuple[str, Exact]]) -> dict[str, Exact]:
    value = dict(members)
    if len(value) != len(members):
        _refuse_twice(members)
    return value


def _refuse_twice(members: list[tuple[str, Exact]]) -> NoReturn:
    seen: set[str] = set()
    twice = next(key for key, _ in members if key in seen or seen.add(key))
    raise InvalidJsonError(f"the key {twice!r} stands twice")


def _refuse_constant(text: str) -> NoReturn:
    raise InvalidJsonError(f"{text} is not a JSON number")


def _check_text(text: str) -> None:
    """Check that the text can be kept, and its size. InvalidJsonError."""
    if _size_bytes(text) > PARAMETERS_MAX_BYTES:
        raise InvalidJsonError(f"larger than {PARAMETERS_MAX_BYTES} bytes")


def _size_bytes(text: str) -> int:
    """The text's size in UTF-8. InvalidJsonError for half a surrogate pair or a NUL, which no database keeps."""
    if "\x00" in text:
        raise InvalidJsonError("a NUL character, which PostgreSQL cannot keep")
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidJsonError("a lone surrogate, which is no character") from error


def _check(value: Exact, levels: int) -> None:
    """Check that every string can be kept, and that nothing nests deeper than ``levels``."""
    if isinstance(value, str):
        _size_bytes(value)
        return
    if isinstance(value, Mapping):
        children: list[Exact] = [*value.keys(), *value.values()]
    elif isinstance(value, Sequence):
        children = [*value]
    else:
        return
    if levels == 0:
        raise InvalidJsonError(f"nested deeper than {DEPTH_MAX} levels")
    for child in children:
        _check(child, levels - 1)


_DECODER: Final = json.JSONDecoder(
    parse_float=read_number,
    parse_int=read_number,
    parse_constant=_refuse_constant,
    object_pairs_hook=_read_object,
)
