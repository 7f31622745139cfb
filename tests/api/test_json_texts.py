"""JSON that a door takes apart: however much there is of it, no more is read than is asked for."""

from __future__ import annotations

import pytest

from coordinator.api import json_faults, json_spans
from coordinator.api.json_faults import PATH_MAX_CHARS
from participant_sdk.exact_json import PARAMETERS_MAX_BYTES


@pytest.mark.parametrize(
    ("text", "found"),
    [("[]", []), ("[1, {}]", ["1", "{}"]), ("[1,2,3]", ["1", "2", "3"]), ("[1,2,3,4,5]", ["1", "2", "3"])],
)
def test_a_list_is_cut_up_to_one_item_more_than_there_may_be(text: str, found: list[str]) -> None:
    assert json_spans.items(text, most=2) == found


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a":[1,{"b":NaN}]}', ".a[1].b"),
        ('{"a":{"b":1,"b":2}}', ".a.b"),
        ('{"a":[1,"\\ud800"]}', ".a[1]"),
        ('{"a":1e400}', ".a"),
        ('{"a":1}', ""),
        ('{"a":', ""),
    ],
)
def test_the_first_fault_is_found(text: str, path: str) -> None:
    assert json_faults.locate(text) == path


def test_a_path_is_cut_to_what_metadata_can_carry() -> None:
    """A key may be as long as the text, and a status has little room."""
    key = "k" * 1_000
    assert json_faults.locate(f'{{"{key}":NaN}}') == f".{key}"[:PATH_MAX_CHARS]


def test_a_text_that_is_too_large_is_not_searched() -> None:
    """It is refused for its size, and nobody waits until it is read."""
    assert json_faults.locate('{"a":NaN}'.ljust(PARAMETERS_MAX_BYTES)) == ".a"
    assert json_faults.locate('{"a":NaN}'.ljust(PARAMETERS_MAX_BYTES + 1)) == ""
