"""JSON put together from texts, so that participants' results go into an answer as they are, unrounded."""

from __future__ import annotations

import json
from collections.abc import Iterable

from participant_sdk import exact_json


def object_text(members: Iterable[tuple[str, str]]) -> str:
    """An object of these keys and JSON texts, in order."""
    return "{" + ",".join([f"{json.dumps(key)}:{value}" for key, value in members]) + "}"


def list_text(items: Iterable[str]) -> str:
    """A list of these JSON texts."""
    return "[" + ",".join(items) + "]"


def result_text(text: str) -> str:
    """A participant's result as it is; as a JSON string where it is no JSON, and null where it is nothing."""
    if not text:
        return "null"
    try:
        exact_json.loads(text)
    except exact_json.InvalidJsonError:
        return json.dumps(text)
    return text
