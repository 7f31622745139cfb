"""A book as one would write it on paper: a list of orders, looked through from the start for every trade."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from participant_sdk.parameters import EXACT
from sidecars.trading.orders import (
    Cancellation,
    Closure,
    Entry,
    Fill,
    Order,
    OrderStatus,
    Side,
    Standing,
    TimeInForce,
)


class NaiveBook:
    """What all entries so far came to. ``standings`` are those of all orders that ever came."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.orders: dict[str, Order] = {}
        self.standings: dict[str, Standing] = {}
        self.fills: list[Fill] = []

    def take(self, entries: Iterable[Entry]) -> NaiveBook:
        for entry in entries:
            if isinstance(entry, Order):
                self._place(entry)
            elif isinstance(entry, Cancellation) and self._is_open(entry.order_id):
                self._close(entry.order_id, Closure.CANCEL_REQUESTED)
        return self

    def open_orders(self) -> list[Order]:
        return [order for order_id, order in self.orders.items() if self._is_open(order_id)]

    def left(self, order: Order) -> Decimal:
        return EXACT.subtract(order.amount, self.standings[order.order_id].filled)

    def candidates(self, order: Order) -> list[Order]:
        """Whom it may trade with, in the order of their right to it, up to the first of its own user."""
        others = [each for each in self.open_orders() if each.side != order.side and _agree(order, each)]
        sign = 1 if order.side is Side.BUY else -1
        others.sort(key=lambda each: (sign * int(each.price or 0), each.sequence))
        own = [at for at, each in enumerate(others) if each.user_id == order.user_id]
        return others[: own[0] + 1] if own else others

    def _place(self, order: Order) -> None:
        candidates = self.candidates(order)
        self.orders[order.order_id] = order
        self.standings[order.order_id] = Standing(Decimal(0), OrderStatus.OPEN)
        offered = Decimal(0)
        for each in candidates:
            if each.user_id != order.user_id:
                offered = EXACT.add(offered, self.left(each))
        if order.time_in_force is TimeInForce.FOK and offered < order.amount:
            self._close(order.order_id, Closure.FILL_OR_KILL)
            return
        for number, each in enumerate(candidates, 1):
            if self.left(order) == 0:
                break
            if each.user_id == order.user_id:
                self._close(order.order_id, Closure.SELF_TRADE)
                return
            self._trade(order, each, number)
        if self.left(order) > 0 and order.time_in_force is not TimeInForce.GTC:
            self._close(order.order_id, Closure.IMMEDIATE_OR_CANCEL)

    def _trade(self, order: Order, other: Order, number: int) -> None:
        amount = min(self.left(order), self.left(other))
        buy, sell = (order, other) if order.side is Side.BUY else (other, order)
        price = other.price
        assert price is not None
        self.fills.append(
            Fill(
                self.symbol,
                order.sequence,
                number,
                order.side,
                price,
                amount,
                buy.order_id,
                sell.order_id,
                buy.user_id,
                sell.user_id,
            )
        )
        for each in (order, other):
            filled = EXACT.add(self.standings[each.order_id].filled, amount)
            status = OrderStatus.FILLED if filled == each.amount else OrderStatus.OPEN
            self.standings[each.order_id] = Standing(filled, status)

    def _is_open(self, order_id: str) -> bool:
        return order_id in self.standings and self.standings[order_id].status is OrderStatus.OPEN

    def _close(self, order_id: str, closure: Closure) -> None:
        self.standings[order_id] = Standing(self.standings[order_id].filled, OrderStatus.CANCELLED, closure)


def _agree(order: Order, other: Order) -> bool:
    if order.price is None or other.price is None:
        return True
    return order.price >= other.price if order.side is Side.BUY else order.price <= other.price
