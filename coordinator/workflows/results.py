"""What steps come to, as a workflow's function sees it; and compensations that speak of a step's results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, cast

from coordinator.json_text import list_text, result_text
from coordinator.protocol.outcome import BranchOutcome
from participant_sdk import exact_json
from participant_sdk.exact_json import Exact
from participant_sdk.operations import Parameter, operations_of
from participant_sdk.participant import Operation

# In a compensation's parameters, an object of this key alone stands for a member of the step's results.
RESULT_KEY: Final = "$result"


class WorkflowFailed(Exception):  # noqa: N818 - it ends a workflow as planned, and is no error of its code
    """Raised by a workflow's function to end it: what was done is compensated. ``code`` is in capitals."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class StepRefused(Exception):  # noqa: N818 - a participant's "no" is a result; a function may catch it and go on
    """A step's transaction was refused, for good; ``reason`` is the participant's. It left nothing behind."""

    def __init__(self, step: str, reason: str, message: str) -> None:
        super().__init__(f"{step}: {reason}: {message}")
        self.step = step
        self.reason = reason
        self.message = message


class ResultMissingError(Exception):
    """A step's results have no such member."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step's operations returned: one value for each, read exactly, None where there is none.

    ``is_skipped``: an operator let the step count as done, so there are no results.
    """

    values: tuple[Exact, ...] = ()
    is_skipped: bool = False

    def member(self, index: int, key: str) -> Exact:
        """A member of the result of the operation at ``index``. WorkflowFailed where it is not there."""
        try:
            return member_of(self.values, index, key)
        except ResultMissingError as error:
            raise WorkflowFailed("RESULT_MISSING", str(error)) from error

    def text(self, index: int, key: str) -> str:
        """A member that is text. WorkflowFailed."""
        value = self.member(index, key)
        if not isinstance(value, str):
            raise WorkflowFailed("RESULT_MISSING", f"the result of operation {index} has no text {key!r}")
        return value

    def amount(self, index: int, key: str) -> Decimal:
        """A member that is a number, or a decimal in text. WorkflowFailed."""
        return decimal_of(self.member(index, key), key)

    def items(self, index: int, key: str) -> Sequence[Mapping[str, Exact]]:
        """A member that is a list of objects. WorkflowFailed."""
        value = self.member(index, key)
        if isinstance(value, list):
            listed = cast("list[object]", value)
            objects = [cast("Mapping[str, Exact]", each) for each in listed if isinstance(each, Mapping)]
            if len(objects) == len(listed):
                return objects
        raise WorkflowFailed("RESULT_MISSING", f"the result of operation {index} has no list of objects {key!r}")


def decimal_of(value: Exact, key: str) -> Decimal:
    """A number, or a decimal in text. WorkflowFailed."""
    try:
        read = exact_json.loads(value) if isinstance(value, str) else value
    except exact_json.InvalidJsonError:
        read = None
    if not isinstance(read, Decimal):
        raise WorkflowFailed("RESULT_MISSING", f"a result has no amount {key!r}")
    return read


def result_of(index: int, key: str) -> Parameter:
    """Stand, in a compensation's parameters, for a member of what the step's operation at ``index`` returns."""
    return {RESULT_KEY: [index, key]}


def member_of(values: Sequence[Exact], index: int, key: str) -> Exact:
    """A member of one of several results. ResultMissingError."""
    value = values[index] if index < len(values) else None
    if not isinstance(value, Mapping) or key not in value:
        raise ResultMissingError(f"the result of operation {index} has no {key!r}")
    return value[key]


def texts_of(services: Sequence[str], branches: Sequence[BranchOutcome]) -> tuple[str, ...]:
    """Each operation's result as its participant wrote it, empty where there is none; ``services`` are theirs."""
    told = {branch.participant: list(branch.vote.results) for branch in branches if branch.vote and branch.vote.results}
    texts: list[str] = []
    for service in services:
        left = told.get(service)
        texts.append(left.pop(0) if left else "")
    return tuple(texts)


def kept_text(texts: Sequence[str]) -> str:
    """Results as one JSON list, to be kept."""
    return list_text(result_text(text) for text in texts)


def values_of(texts: Sequence[str]) -> tuple[Exact, ...]:
    """Results, read exactly; one that is no JSON is text."""
    return tuple(exact_json.loads(result_text(text)) for text in texts)


def kept_values(text: str) -> tuple[Exact, ...]:
    """What ``kept_text`` wrote, read again."""
    # Each result is bounded by its participant's answer, and all of them together are not: so one by one.
    items = cast("list[object]", json.loads(text, parse_float=Decimal, parse_int=Decimal))
    return cast("tuple[Exact, ...]", tuple(items))


def compensation_text(work: Sequence[Operation], undo: Sequence[Operation]) -> str:
    """A compensation as it is stored with its step, beside the services whose results it may name; empty for none."""
    if not undo:
        return ""
    return json.dumps([[each.service for each in work], [[each.service, each.name, each.parameters] for each in undo]])


def compensation_of(text: str, branches: Sequence[BranchOutcome]) -> tuple[Operation, ...]:
    """A stored compensation, with what the step's branches returned in its places.

    ResultMissingError; the client's InvalidRequestError where that makes it more than a transaction may have.
    """
    services, stored = cast("tuple[list[str], list[tuple[str, str, str]]]", json.loads(text))
    values = values_of(texts_of(services, branches))
    return operations_of([(service, name, _filled(parameters, values)) for service, name, parameters in stored])


def _filled(parameters: str, values: Sequence[Exact]) -> str:
    if RESULT_KEY not in parameters:
        return parameters
    return exact_json.canonical(_replaced(exact_json.loads(parameters), values))


def _replaced(value: Exact, values: Sequence[Exact]) -> Exact:
    if isinstance(value, Mapping):
        if list(value) == [RESULT_KEY]:
            return _member(value[RESULT_KEY], values)
        return {key: _replaced(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_replaced(each, values) for each in value]
    return value


def _member(place: Exact, values: Sequence[Exact]) -> Exact:
    if isinstance(place, list):
        match place:
            case [Decimal() as index, str() as key]:
                return member_of(values, int(index), key)
            case _:
                pass
    raise ResultMissingError(f"{RESULT_KEY} names no result: {place!r}")
