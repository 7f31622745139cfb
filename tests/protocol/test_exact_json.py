"""Parameters are read exactly, or refused with the reason."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from participant_sdk.exact_json import InvalidJsonError, canonical, loads, loads_object

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "malformed"),
        ("{", "malformed"),
        ('{"a":1}x', "malformed"),
        ("[1]", "not a JSON object"),
        ("1", "not a JSON object"),
        ('{"a":NaN}', "NaN is not a JSON number"),
        ('{"a":-Infinity}', "Infinity is not a JSON number"),
        ('{"a":1e400}', "out of range"),
        ('{"a":1e-400}', "out of range"),
        ('{"a":1e999999999999999999999999}', "out of range"),
        ('{"a":1e-99999999999999999999}', "out of range"),
        ('{"a":0e999999999999999999999}', "out of range"),
        (f'{{"a":{"9" * 39}}}', "out of range"),
        (f'{{"a":{"9" * 100}}}', "more than 38 digits"),
        ('{"a":1,"a":2}', "'a' stands twice"),
        ('{"a":{"b":1,"b":1}}', "'b' stands twice"),
        ('{"a":"\\u0000"}', "NUL"),
        ('{"a":"\\ud800"}', "surrogate"),
        ('{"a":"\ud800"}', "surrogate"),
        ('{"a":' + "[" * 17 + "]" * 17 + "}", "deeper than 16"),
        ('{"a":' + "[" * 20_000 + "]" * 20_000 + "}", "deeper than 16"),
        ('{"a":"' + "x" * 70_000 + '"}', "larger than 65536"),
        ('{"a":"' + "é" * 40_000 + '"}', "larger than 65536"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidJsonError, match=why):
        loads_object(text)


def test_numbers_are_decimals_to_the_last_digit() -> None:
    value = loads_object('{"a":0.1,"b":12345678901234567890.123456789012345678,"c":-0}')
    assert value == {"a": Decimal("0.1"), "b": Decimal("12345678901234567890.123456789012345678"), "c": Decimal(0)}


@given(st.dictionaries(st.text("abc"), VALUES))
def test_the_canonical_text_reads_back_and_is_stable(value: dict[str, object]) -> None:
    text = canonical(loads(json.dumps(value)))
    assert canonical(loads(text)) == text
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a":1,"b":2}', '{ "b" : 2.0, "a" : 1e0 }'),
        ('{"a":100}', '{"a":1E+2}'),
        ('{"a":0.50}', '{"a":5e-1}'),
        ('{"a":-0}', '{"a":0.000}'),
        ('{"a":"\\u00e9"}', '{"a":"é"}'),
    ],
)
def test_equal_requests_share_one_canonical_text(one: str, other: str) -> None:
    assert canonical(loads(one)) == canonical(loads(other))


def test_a_number_and_its_text_are_different_values() -> None:
    assert canonical(loads('{"a":1}')) != canonical(loads('{"a":"1"}'))


def test_shallow_but_many_brackets_are_read() -> None:
    assert loads("[" + ",".join(["[]"] * 40) + "]") == [[]] * 40
