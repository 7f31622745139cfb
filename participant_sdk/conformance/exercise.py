"""What the conformance kit needs to know of a participant: operations with a known answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from participant_sdk.exact_json import Exact, InvalidJsonError, canonical, loads_object
from participant_sdk.ids import check_participant
from participant_sdk.participant import Operation

SIDE_BY_SIDE: Final = 3

_OPTIONAL: Final = ("read", "observe", "slow")
_EXAMPLES: Final = files("participant_sdk.conformance") / "examples"


class InvalidExerciseError(ValueError):
    """The description of a participant is wrong. The message names the key."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """Operations with a known answer, at a participant set up for the purpose.

    ``yes``: three or more that can always be prepared, again and again, and side by side.
    ``no``: the business always says no to it. ``invalid``: its parameters are wrong.
    ``read``: changes nothing, and returns something. ``observe``: a read whose result changes when the first
    of ``yes`` is committed, and at no other time; without one, the kit cannot see effects. ``slow``: like the
    first of ``yes``, but it takes at least 300 ms until it is prepared. These three may be None.
    ``setup``: run once before all, each by itself; a "no" to one is taken as "done before".
    """

    participant: str
    yes: tuple[Operation, ...]
    no: Operation
    invalid: Operation
    read: Operation | None = None
    observe: Operation | None = None
    slow: Operation | None = None
    setup: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        if len(self.yes) < SIDE_BY_SIDE:
            raise InvalidExerciseError(f"yes: at least {SIDE_BY_SIDE} operations, not {len(self.yes)}")


def read_exercise(text: str) -> Exercise:
    """Read an exercise from a JSON object with the keys of ``Exercise``.

    An operation is an object ``{"operation": "credit", "parameters": {…}}``. InvalidExerciseError.
    """
    try:
        values = loads_object(text)
    except InvalidJsonError as error:
        raise InvalidExerciseError(f"the exercise: {error}") from error
    try:
        participant = check_participant(str(values.pop("participant", "")))
    except ValueError as error:
        raise InvalidExerciseError(f"participant: {error}") from error
    optional = {key: _operation(participant, values.pop(key), key) for key in _OPTIONAL if key in values}
    exercise = Exercise(
        participant,
        _several(participant, values.pop("yes", None), "yes"),
        _operation(participant, values.pop("no", None), "no"),
        _operation(participant, values.pop("invalid", None), "invalid"),
        optional.get("read"),
        optional.get("observe"),
        optional.get("slow"),
        _several(participant, values.pop("setup", ()), "setup"),
    )
    for key in values:
        raise InvalidExerciseError(f"{key}: no such key")
    return exercise


def example_names() -> tuple[str, ...]:
    """The participants that an exercise is shipped for."""
    return tuple(sorted(file.name.removesuffix(".json") for file in _EXAMPLES.iterdir() if file.name.endswith(".json")))


def example(participant: str) -> str:
    """The text of the exercise that is shipped for a participant. InvalidExerciseError where there is none."""
    if participant not in example_names():
        raise InvalidExerciseError(
            f"there is no example for {participant!r}; there are {', '.join(example_names())}: write an exercise"
        )
    return (_EXAMPLES / f"{participant}.json").read_text(encoding="utf-8")


def _several(participant: str, value: Exact, key: str) -> tuple[Operation, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidExerciseError(f"{key}: a list of operations")
    return tuple(_operation(participant, each, f"{key}[{at}]") for at, each in enumerate(value))


def _operation(participant: str, value: Exact, key: str) -> Operation:
    if not isinstance(value, Mapping) or not isinstance(value.get("operation"), str):
        raise InvalidExerciseError(f"{key}: an object with the keys operation and parameters")
    for name in value:
        if name not in {"operation", "parameters"}:
            raise InvalidExerciseError(f"{key}.{name}: no such key")
    parameters = value.get("parameters", {})
    # Numbers are read as decimals, and stay numbers.
    return Operation(participant, str(value["operation"]), canonical(parameters))
