"""Wrong parameters are told in sentences of our own, each from the parameter's path on."""

from __future__ import annotations

from typing import Literal

import pytest

from participant_sdk.parameters import Amount, Parameters, RefusedError, read
from participant_sdk.participant import Operation


class _Order(Parameters):
    side: Literal["buy", "sell"]
    amount: Amount
    count: int = 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"side": "short", "amount": 1}', "side must be 'buy' or 'sell'"),
        ('{"side": "buy", "amount": 1, "count": "x"}', "count must be a valid integer"),
        (
            '{"side": "buy", "amount": "1e2"}',
            "amount must be written without an exponent where it is text, such as 12.5",
        ),
        (
            '{"side": "buy", "amount": "' + "9" * 40 + '"}',
            "amount must have at most 38 digits before its point, and at most 38 after it",
        ),
        ('{"side": "buy", "amount": "ten"}', "amount must be a decimal number, such as 12.5"),
        ('{"side": "buy", "amount": true}', "amount must be a decimal number, such as 12.5"),
        ('{"side": "buy", "amount": "-1.5"}', "amount must be above zero"),
        ('{"side": "buy"}', "amount is missing"),
    ],
)
def test_a_wrong_parameter_is_told_in_a_sentence(text: str, told: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read(_Order, Operation("trading", "place_order", text), 3)
    assert caught.value.vote.message == f"operations[3].parameters.{told}"
    assert caught.value.vote.field == f"operations[3].parameters.{told.split(maxsplit=1)[0]}"
