"""Where in a JSON text the thing stands that exact JSON refuses, so that an error can name the field.

Reading exactly stops at the first fault and knows no path. So, for the error's sake only, the
text is read once more with marks in the places of faults, and the first mark is looked for.
"""

from __future__ import annotations

import json
from typing import Final, cast

from participant_sdk import exact_json

# A path is sent in metadata, and a key may be as long as a text.
PATH_MAX_CHARS: Final = 200


class _Fault:
    """Stands where something cannot be read exactly."""


_FAULT: Final = _Fault()


def locate(text: str, levels: int = exact_json.DEPTH_MAX) -> str:
    """The path to the first fault, such as ``.amount`` or ``.legs[2].price``; empty where all of it is at fault.

    So it is where the text is too large, which is not read for that.
    """
    if len(text) > exact_json.PARAMETERS_MAX_BYTES:
        return ""
    try:
        marked: object = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return ""
    return (_find(marked, levels) or "")[:PATH_MAX_CHARS]


def _find(value: object, levels: int) -> str | None:
    if value is _FAULT or (isinstance(value, str) and not _is_kept(value)):
        return ""
    if levels == 0:
        return None
    # The decoder makes dicts with text for keys, and lists, and nothing else that has members.
    if isinstance(value, dict):
        for key, child in cast("dict[str, object]", value).items():
            if not _is_kept(key):
                return ""
            if (below := _find(child, levels - 1)) is not None:
                return f".{key}{below}"
    elif isinstance(value, list):
        for at, child in enumerate(cast("list[object]", value)):
            if (below := _find(child, levels - 1)) is not None:
                return f"[{at}]{below}"
    return None


def _is_kept(text: str) -> bool:
    """Whether a database keeps it: no NUL, no half of a surrogate pair."""
    return "\x00" not in text and (text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text))


def _mark_number(text: str) -> object:
    try:
        return exact_json.read_number(text)
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
