"""What the conformance kit needs to know of a participant: operations with a known answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from participant_sdk.exact_json import Exact, InvalidJsonError, loads_object
from participant_sdk.ids import check_participant
from participant_sdk.participant import Operation

SIDE_BY_SIDE: Final = 3


class InvalidExerciseError(ValueError):
    """The description of a participant is wrong. The message names the key."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """Operations with a known answer, at a participant set up for the purpose.

    ``yes``: three or more that can always be prepared, again and again, and side by side.
    ``no``: the business always says no to it. ``invalid``: its parameters are wrong.
    ``read``: changes nothing, and returns something. ``observe``: a read whose result changes when the first
    of ``yes`` is committed, and at no other time; without one, the kit cannot see effects. Both may be None.
    """

    participant: str
    yes: tuple[Operation, ...]
    no: Operation
    invalid: Operation
    read: Operation | None = None
    observe: Operation | None = None

    def __post_init__(self) -> None:
        if len(self.yes) < SIDE_BY_SIDE:
            raise InvalidExerciseError(f"yes: at least {SIDE_BY_SIDE} operations, not {len(self.yes)}")


def read_exercise(text: str) -> Exercise:
    """Read an exercise from a JSON object with the keys of ``Exercise``.

    An operation is an object ``{"operation": "credit", "parameters": {…}}``. InvalidExerciseError.
    """
    try:
        values = loads_object(text)
        participant = check_participant(str(values.pop("participant", "")))
    except (InvalidJsonError, ValueError) as error:
        raise InvalidExerciseError(f"participant: {error}") from error
    several = values.pop("yes", None)
    if not isinstance(several, list):
        raise InvalidExerciseError("yes: a list of operations")
    yes = tuple(_operation(participant, value, f"yes[{at}]") for at, value in enumerate(several))
    exercise = Exercise(
        participant,
        yes,
        _operation(participant, values.pop("no", None), "no"),
        _operation(participant, values.pop("invalid", None), "invalid"),
        _operation(participant, values.pop("read"), "read") if "read" in values else None,
        _operation(participant, values.pop("observe"), "observe") if "observe" in values else None,
    )
    for key in values:
        raise InvalidExerciseError(f"{key}: no such key")
    return exercise


def _operation(participant: str, value: Exact, key: str) -> Operation:
    if not isinstance(value, Mapping) or not isinstance(value.get("operation"), str):
        raise InvalidExerciseError(f"{key}: an object with the keys operation and parameters")
    parameters = value.get("parameters", {})
    # Numbers are read as decimals; as text they come out as they went in.
    return Operation(participant, str(value["operation"]), json.dumps(parameters, default=str))
