"""What the built-in workflows work out for themselves: money, exactly, and what participants are asked."""

from __future__ import annotations

import re
from decimal import Decimal
from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st

from coordinator.workflows.builtin import BUILT_IN
from coordinator.workflows.builtin.money import cost
from coordinator.workflows.builtin.trade_execution import settlement_of

FILL = {
    "trade_id": "t1",
    "price": "45000.01",
    "amount": "0.123",
    "buy_order_id": "b",
    "sell_order_id": "s",
    "buyer_id": "1",
    "seller_id": "2",
    "taker_side": "buy",
}


prices = st.decimals(min_value="0.01", max_value="100000", places=2)
amounts = st.decimals(min_value="0.00000001", max_value="1000", places=8)


@given(prices, st.lists(amounts, min_size=1, max_size=20))
def test_what_fills_cost_together_is_never_more_than_was_locked(price: Decimal, fills: list[Decimal]) -> None:
    locked = cost(price, sum(fills, Decimal(0)), "USD", is_paid=False)
    paid = sum((cost(price, fill, "USD", is_paid=True) for fill in fills), Decimal(0))
    assert paid <= locked < price * sum(fills, Decimal(0)) + Decimal("0.01")


def test_a_fill_is_settled_with_both_legs_and_both_accounts() -> None:
    settled = settlement_of("BTC/USD", [FILL, {**FILL, "trade_id": "t2"}])
    asked = [(service, name) for service, name, _ in settled]
    assert asked == [
        *[("settlement", "settle_trade")] * 2,
        # An account is opened once in a transaction, and before it is used.
        *[("bookkeeper", "open_account")] * 2,
        *[("bookkeeper", "capture_funds")] * 4,
    ]
    assert settled[0][2] == {
        "trade_id": "t1",
        "symbol": "BTC/USD",
        "buyer_id": "1",
        "seller_id": "2",
        "buy_order_id": "b",
        "sell_order_id": "s",
        "amount": "0.123",
        "price": "45000.01",
        "quote_amount": "5535.00",
    }
    paid, delivered = settled[4][2], settled[5][2]
    assert paid == {
        "from_user_id": "1",
        "to_user_id": "2",
        "currency": "USD",
        "amount": "5535.00",
        "description": "trade t1",
    }
    assert isinstance(delivered, dict)
    assert (delivered["currency"], delivered["amount"]) == ("BTC", "0.123")


def test_every_step_is_told_of_at_the_top_of_its_module() -> None:
    """One place says what is asked of whom, and it says all of it."""
    for definition in BUILT_IN:
        text = (files("coordinator.workflows.builtin") / f"{definition.kind}.py").read_text(encoding="utf-8")
        page, code = text.split('"""', 2)[1:]
        asked = set(re.findall(r'\("(bookkeeper|trading|settlement|fiat|wallet)", "(\w+)"', code))
        assert asked
        missing = [f"{service}.{name}" for service, name in asked if not re.search(rf"\b{service}\.{name}\b", page)]
        assert missing == []
