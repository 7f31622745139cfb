"""A JSON text taken apart without reading its values, so that parameters stay the text that was sent.

Money must not pass through floats, and what a client wrote is what its participant gets: the
body is cut into members and items, and each value is read where its type is known.
"""

from __future__ import annotations

import json
import re
from typing import Final

from participant_sdk.exact_json import InvalidJsonError

_SPACE: Final = re.compile(r"[ \t\n\r]*")


class RepeatedKeyError(InvalidJsonError):
    """An object has this key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key[:64]!r} stands twice")
        self.key = key


def check_syntax(text: str) -> None:
    """InvalidJsonError with line and column unless the text is one JSON value."""
    try:
        _DECODER.decode(text)
    except RecursionError as error:
        raise InvalidJsonError("nested far too deeply") from error
    except ValueError as error:
        raise InvalidJsonError(f"malformed JSON: {error}") from error


def members(text: str) -> dict[str, str]:
    """The members of an object by key, each value as its text. The syntax must be checked.

    InvalidJsonError for no object, RepeatedKeyError for a key that stands twice.
    """
    at = _start(text, "{", "an object")
    found: dict[str, str] = {}
    while text[at] != "}":
        key, end = _DECODER.raw_decode(text, at)
        if key in found:
            raise RepeatedKeyError(key)
        at = _skip(text, _skip(text, end) + 1)
        _, end = _DECODER.raw_decode(text, at)
        found[str(key)] = text[at:end]
        at = _next(text, end)
    return found


def items(text: str, most: int) -> list[str]:
    """The items of a list, each as its text, but no more than ``most`` and one: there may be a million.

    The syntax must be checked. InvalidJsonError for no list.
    """
    at = _start(text, "[", "a list")
    found: list[str] = []
    while text[at] != "]" and len(found) <= most:
        _, end = _DECODER.raw_decode(text, at)
        found.append(text[at:end])
        at = _next(text, end)
    return found


def _start(text: str, bracket: str, what: str) -> int:
    at = _skip(text, 0)
    if text[at : at + 1] != bracket:
        raise InvalidJsonError(f"not {what}")
    return _skip(text, at + 1)


def _next(text: str, end: int) -> int:
    """Where the next key or item begins, or the closing bracket stands."""
    at = _skip(text, end)
    return _skip(text, at + 1) if text[at] == "," else at


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


# Values are only measured here; numbers stay text, since Python would read huge ones slowly.
_DECODER: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)
