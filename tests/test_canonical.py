"""R3: a request_id is bound to what was asked, not to how it was spelled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from coordinator import canonical
from participant_sdk import exact_json
from participant_sdk.participant import Operation


def digest(*parameters: str, service: str = "bookkeeper", name: str = "lock_funds") -> bytes:
    return canonical.digest([Operation(service, name, text) for text in parameters])


def test_spelling_order_and_white_space_do_not_count() -> None:
    same = {
        digest('{"amount": 0.5, "user_id": "1"}'),
        digest('{"user_id":"1","amount":5e-1}'),
        digest('{"user_id":"\\u0031","amount":0.500}'),
    }
    assert len(same) == 1
    assert len(same.pop()) == canonical.DIGEST_SIZE_BYTES


def test_what_is_asked_counts() -> None:
    asked = [
        digest('{"amount":0.5}'),
        digest('{"amount":"0.5"}'),
        digest('{"amount":0.51}'),
        digest('{"amount":[0.5]}'),
        digest('{"amount":{"0":0.5}}'),
        digest('{"amount":true}'),
        digest('{"amount":1}'),
        digest('{"amount":null}'),
        digest("{}"),
        digest("{}", "{}"),
        digest("{}", service="trading"),
        digest("{}", name="release_funds"),
    ]
    assert len(set(asked)) == len(asked)


def test_every_digit_of_a_number_counts() -> None:
    """Money is exact: a float would call these the same."""
    assert digest('{"amount":9007199254740992}') != digest('{"amount":9007199254740993}')
    assert digest('{"amount":0.1}') != digest('{"amount":0.100000000000000000001}')


def test_the_order_of_operations_counts_within_a_service() -> None:
    assert digest('{"a":1}', '{"a":2}') != digest('{"a":2}', '{"a":1}')


def test_the_order_among_services_does_not_count() -> None:
    """An interactive transaction keeps its operations by service; sent whole, it is the same request."""
    one, other, third = (
        Operation("bookkeeper", "lock_funds", '{"a":1}'),
        Operation("trading", "place_order", "{}"),
        Operation("bookkeeper", "release_funds", '{"a":1}'),
    )
    assert canonical.digest([one, other, third]) == canonical.digest([one, third, other])
    assert canonical.digest([other, one, third]) == canonical.digest([one, third, other])
    assert canonical.digest([third, one, other]) != canonical.digest([one, third, other])


NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), max_size=5)
    | NUMBERS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)


def _spell(value: exact_json.Exact) -> str:
    match value:
        case Decimal():
            return str(value)
        case Mapping():
            return "{" + ", ".join(f"{json.dumps(key)} : {_spell(value[key])}" for key in reversed(list(value))) + "}"
        case str() | bool() | None:
            return json.dumps(value, ensure_ascii=False)
        case _:
            return "[ " + ",".join(_spell(item) for item in value) + "]"


@given(VALUES, VALUES)
def test_digests_are_equal_exactly_where_the_values_are(one: exact_json.Exact, other: exact_json.Exact) -> None:
    texts = [_spell({"v": one}), _spell({"v": other})]
    canonical_texts = [exact_json.canonical(exact_json.loads_object(text)) for text in texts]
    assert (digest(texts[0]) == digest(texts[1])) == (canonical_texts[0] == canonical_texts[1])
    assert digest(texts[0]) == digest(canonical_texts[0])


def test_digests_that_the_log_holds_stay_what_they_are() -> None:
    """R3: a digest is compared with one that an earlier version stored."""
    operations = [
        Operation("payer", "debit_account", '{"user_id":"84123","currency":"USD","amount":1.50}'),
        Operation(
            "payee",
            "credit_account",
            ' {"user_id" : "é:\\u0031","legs":[{"price":-0.0,"size":5e-1}, null, true],"amount":"1.50"}',
        ),
    ]
    stored = "f0c39c0a05179655cde0082dbe59dec6cf193375e53a7b724238cbdf8b5c1fa5"
    assert canonical.digest(operations).hex() == stored


@given(VALUES)
def test_a_door_that_has_read_the_parameters_gets_the_same_digest(value: exact_json.Exact) -> None:
    operations = [Operation("trading", "place_order", _spell({"v": value})), Operation("bookkeeper", "check", "{}")]
    read = [exact_json.loads_object(each.parameters) for each in operations]
    assert canonical.digest_of_read(operations, read) == canonical.digest(operations)
