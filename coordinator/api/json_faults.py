"""Where in a JSON text the thing stands that exact JSON refuses, so that an error can name the field.

Reading exactly stops at the first fault and knows no path. So, for the error's sake only, the
text is read once more with marks in the places of faults, and the first mark is looked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, cast

from participant_sdk import exact_json


class _Fault:
    """Stands where something cannot be read exactly."""


_FAULT: Final = _Fault()


def locate(text: str, levels: int = exact_json.DEPTH_MAX) -> str:
    """The path to the first fault, such as ``.amount`` or ``.legs[2].price``; empty where all of it is at fault."""
    try:
        marked: object = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return ""
    return _find(marked, levels) or ""


def _find(value: object, levels: int) -> str | None:
    if value is _FAULT or (isinstance(value, str) and not _is_kept(value)):
        return ""
    if levels == 0:
        return None
    for step, child in _children(value):
        if not _is_kept(step):
            return ""
        below = _find(child, levels - 1)
        if below is not None:
            return step + below
    return None


def _is_kept(text: str) -> bool:
    """Whether a database keeps it: no NUL, no half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _children(value: object) -> Iterable[tuple[str, object]]:
    # The decoder makes dicts with text for keys, and lists, and nothing else that has members.
    if isinstance(value, dict):
        return [(f".{key}", child) for key, child in cast("dict[str, object]", value).items()]
    if isinstance(value, list):
        return [(f"[{at}]", child) for at, child in enumerate(cast("list[object]", value))]
    return ()


def _mark_number(text: str) -> object:
    try:
        return exact_json.loads(text)
    except exact_json.InvalidJsonError:
        return _FAULT


def _mark_constant(_text: str) -> object:
    return _FAULT


def _mark_repeated(members: list[tuple[str, object]]) -> object:
    value: dict[str, object] = {}
    for key, child in members:
        value[key] = _FAULT if key in value else child
    return value


_DECODER: Final = json.JSONDecoder(
    parse_float=_mark_number,
    parse_int=_mark_number,
    parse_constant=_mark_constant,
    object_pairs_hook=_mark_repeated,
)
