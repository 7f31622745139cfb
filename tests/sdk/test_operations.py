"""Parameters as a client writes them travel as exact JSON."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.client_errors import InvalidRequestError
from participant_sdk.exact_json import ALL_PARAMETERS_MAX_BYTES, PARAMETERS_MAX_BYTES, loads_object
from participant_sdk.operations import OperationLike, Parameter, operations_of
from participant_sdk.participant import OPERATIONS_MAX, Operation

_NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=18)
_TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
_LEAVES = st.none() | st.booleans() | _TEXTS | _NUMBERS | st.integers(-(10**18), 10**18)
_VALUES = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=5
)


@given(st.dictionaries(_TEXTS, _VALUES, max_size=4))
def test_what_is_written_reads_back_exactly(parameters: dict[str, Parameter]) -> None:
    (operation,) = operations_of([("service", "operation", parameters)])
    assert loads_object(operation.parameters) == parameters


def test_text_passes_as_it_is() -> None:
    assert operations_of([("s", "o", '{"a": 1.50}')]) == (Operation("s", "o", '{"a": 1.50}'),)


def test_an_amount_keeps_its_places_and_never_becomes_an_exponent() -> None:
    (operation,) = operations_of([("s", "o", {"amount": Decimal("1E+3"), "small": Decimal("1E-18")})])
    assert operation.parameters == '{"amount":1000,"small":0.000000000000000001}'


@pytest.mark.parametrize(
    "value", [0.5, Decimal("Infinity"), Decimal("1E+39"), 10**40, b"bytes", {1: 2}, {"x": object()}]
)
def test_what_has_no_exact_json_is_refused_by_its_path(value: Parameter) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        operations_of([("s", "o", {}), ("s", "o", {"outer": [value]})])
    assert caught.value.field.startswith("operations[1].parameters.outer[0]")


def test_a_value_nested_without_end_is_refused() -> None:
    endless: dict[str, Parameter] = {}
    endless["again"] = endless
    with pytest.raises(InvalidRequestError):
        operations_of([("s", "o", endless)])


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (("s", "o"), "operations[1]"),
        (("s", "o", "{}", 4), "operations[1]"),
        ("abc", "operations[1]"),
        (7, "operations[1]"),
        ((1, "o", "{}"), "operations[1].service"),
        (("s", None, "{}"), "operations[1].operation"),
    ],
)
def test_an_entry_that_is_no_operation_is_refused_by_its_place(entry: OperationLike, field: str) -> None:
    """Callers need not be type-checked."""
    with pytest.raises(InvalidRequestError) as caught:
        operations_of([("s", "o", "{}"), entry])
    assert caught.value.field == field


@pytest.mark.parametrize("letter", ["x", "é"])
def test_the_parameters_of_a_transaction_are_bounded_together(letter: str) -> None:
    """In bytes, whatever they are written with; up to the bound itself they pass."""
    share_bytes = ALL_PARAMETERS_MAX_BYTES // 8 - len('{"a":""}')
    parts = [f'{{"a":"{letter * (share_bytes // len(letter.encode()))}"}}'] * 8
    written = [("s", "o", part) for part in parts]
    assert sum(len(part.encode()) for part in parts) == ALL_PARAMETERS_MAX_BYTES
    assert len(operations_of(written)) == len(parts)
    with pytest.raises(InvalidRequestError, match="262145 bytes in all; at most 262144") as caught:
        operations_of([*written[:-1], ("s", "o", parts[-1] + " ")])
    assert caught.value.field == "operations"


@pytest.mark.parametrize("parameters", ['{"a":1}'.ljust(PARAMETERS_MAX_BYTES + 1), {"a": "é" * PARAMETERS_MAX_BYTES}])
def test_parameters_that_are_too_large_are_refused_by_their_place(parameters: str | dict[str, Parameter]) -> None:
    """At the coordinator's door gRPC would refuse the whole message, and tell nobody why."""
    with pytest.raises(InvalidRequestError, match="larger than 65536 bytes") as caught:
        operations_of([("s", "o", "{}"), ("s", "o", parameters)])
    assert caught.value.field == "operations[1].parameters"


@pytest.mark.parametrize("count", [0, OPERATIONS_MAX + 1])
def test_a_transaction_has_from_one_to_a_hundred_operations(count: int) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        operations_of([("s", "o", "{}")] * count)
    assert caught.value.field == "operations"
