"""One symbol's book, matched by price, then time. Pure: no I/O, no clock, no chance.

What comes of a book follows from its entries in their order alone, so it can be rebuilt and matched again anywhere,
with the same trades. The rules:

1. An order trades with the best price of the other side first, and at one price with what came first.
2. A trade is made at the price of the order that waited.
3. What is left of a limit order that is good till cancelled waits in the book; of any other order it is cancelled.
4. A fill-or-kill order trades in full or not at all.
5. Nobody trades with himself: an order that meets one of its own user's goes no further. What it traded before stands,
   the rest of it is cancelled, and the older order stays where it is ("cancel newest").

So between two entries no buyer's price reaches a seller's.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, assert_never

from participant_sdk.parameters import EXACT
from sidecars.trading.orders import (
    Cancellation,
    Closed,
    Closure,
    Entry,
    Event,
    Fill,
    Order,
    OrderStatus,
    Side,
    Standing,
    TimeInForce,
    Withdrawn,
)


@dataclass(slots=True)
class Outcome:
    """What a row of entries came to. Mutable: entries are added one by one.

    ``events`` are in the order in which they happened, ``standings`` those of all orders that changed.
    ``through`` is the last entry's place in the book, ``fills`` how many of the events are trades.
    """

    through: int
    events: list[Event] = field(default_factory=list[Event])
    standings: dict[str, Standing] = field(default_factory=dict[str, Standing])
    fills: int = 0

    def close(self, order: Order, filled: Decimal, closure: Closure) -> None:
        """An order leaves with something unfilled."""
        self.standings[order.order_id] = Standing(filled, OrderStatus.CANCELLED, closure)
        self.events.append(Closed(order.order_id))


class Book:
    """What waits at a symbol. Not safe for two at once; of no use after an exception from it."""

    def __init__(self, symbol: str, waiting: Iterable[Order] = ()) -> None:
        """``waiting`` are the open orders that matching has passed, in the order of their numbers."""
        self.symbol = symbol
        self._sides: Final = {Side.BUY: _Waiting(_ascending), Side.SELL: _Waiting(Decimal.copy_negate)}
        self._by_id: dict[str, Order] = {}
        for order in waiting:
            self._wait(order)

    def __len__(self) -> int:
        """How many orders wait."""
        return len(self._by_id)

    def waiting(self, side: Side) -> Iterator[Order]:
        """What waits on one side, in the order in which it would be traded with."""
        return self._sides[side].by_priority()

    def match(self, entries: Iterable[Entry], *, through: int, fills_max: int) -> Outcome:
        """Take entries in their order, after the place ``through``; stop early after the one that passes ``fills_max``.

        The outcome's ``through`` tells how far it came.
        """
        outcome = Outcome(through)
        for entry in entries:
            match entry:
                case Order():
                    self._place(entry, outcome)
                case Cancellation():
                    self._cancel(entry, outcome)
                case Withdrawn():
                    pass
                case _:
                    assert_never(entry)
            outcome.through = entry.sequence
            if outcome.fills >= fills_max:
                break
        return outcome

    def _place(self, order: Order, outcome: Outcome) -> None:
        if order.time_in_force is TimeInForce.FOK and not self._fills_all(order):
            outcome.close(order, order.filled, Closure.FILL_OR_KILL)
            return
        left, number = EXACT.subtract(order.amount, order.filled), 0
        is_own = False
        opposite = self._sides[order.side.opposite]
        while left and (best := opposite.best()) is not None and _reaches(order, best):
            is_own = best.user_id == order.user_id
            if is_own:
                break
            number += 1
            left = EXACT.subtract(left, self._trade(order, best, left, number, outcome))
        filled = EXACT.subtract(order.amount, left)
        if not left:
            outcome.standings[order.order_id] = Standing(filled, OrderStatus.FILLED)
        elif is_own:
            outcome.close(order, filled, Closure.SELF_TRADE)
        elif order.time_in_force is TimeInForce.GTC:
            self._wait(order._replace(filled=filled))
            if number:
                outcome.standings[order.order_id] = Standing(filled, OrderStatus.OPEN)
        else:
            outcome.close(order, filled, Closure.IMMEDIATE_OR_CANCEL)

    def _trade(self, taker: Order, maker: Order, left: Decimal, number: int, outcome: Outcome) -> Decimal:
        """Fill one waiting order from what is left of the one that came; return how much."""
        open_amount = EXACT.subtract(maker.amount, maker.filled)
        amount = min(left, open_amount)
        filled = EXACT.add(maker.filled, amount)
        if amount == open_amount:
            self._leave(maker)
            outcome.standings[maker.order_id] = Standing(filled, OrderStatus.FILLED)
        else:
            self._replace(maker._replace(filled=filled))
            outcome.standings[maker.order_id] = Standing(filled, OrderStatus.OPEN)
        buy, sell = (taker, maker) if taker.side is Side.BUY else (maker, taker)
        outcome.fills += 1
        outcome.events.append(
            Fill(
                self.symbol,
                taker.sequence,
                number,
                taker.side,
                _price(maker),
                amount,
                buy.order_id,
                sell.order_id,
                buy.user_id,
                sell.user_id,
            )
        )
        return amount

    def _cancel(self, cancellation: Cancellation, outcome: Outcome) -> None:
        order = self._by_id.get(cancellation.order_id)
        # It may have been filled, or closed, while its cancellation was on its way.
        if order is not None:
            self._leave(order)
            outcome.close(order, order.filled, Closure.CANCEL_REQUESTED)

    def _fills_all(self, order: Order) -> bool:
        wanted = EXACT.subtract(order.amount, order.filled)
        for waiting in self._sides[order.side.opposite].by_priority():
            if not _reaches(order, waiting) or waiting.user_id == order.user_id:
                return False
            wanted = EXACT.subtract(wanted, EXACT.subtract(waiting.amount, waiting.filled))
            if wanted <= 0:
                return True
        return False

    def _wait(self, order: Order) -> None:
        self._by_id[order.order_id] = order
        self._sides[order.side].add(order)

    def _replace(self, order: Order) -> None:
        self._by_id[order.order_id] = order
        self._sides[order.side].replace(order)

    def _leave(self, order: Order) -> None:
        del self._by_id[order.order_id]
        self._sides[order.side].remove(order)


class _Waiting:
    """One side of a book: its prices in a sorted list, the best last, and at each its orders in the order of time.

    ``rank`` is the higher, the better a price is. It must be exact, which Decimal's own minus is not.
    """

    __slots__ = ("_levels", "_prices", "_rank")

    def __init__(self, rank: Callable[[Decimal], Decimal]) -> None:
        self._rank = rank
        self._prices: list[Decimal] = []
        # Ordered for the sake of its first: a dict looks for it past all that were removed before.
        self._levels: dict[Decimal, OrderedDict[int, Order]] = {}

    def best(self) -> Order | None:
        return next(iter(self._levels[self._prices[-1]].values())) if self._prices else None

    def by_priority(self) -> Iterator[Order]:
        for price in reversed(self._prices):
            yield from self._levels[price].values()

    def add(self, order: Order) -> None:
        price = _price(order)
        level = self._levels.get(price)
        if level is None:
            level = self._levels[price] = OrderedDict()
            insort(self._prices, price, key=self._rank)
        level[order.sequence] = order

    def replace(self, order: Order) -> None:
        """The same order, filled further: it keeps its place."""
        self._levels[_price(order)][order.sequence] = order

    def remove(self, order: Order) -> None:
        price = _price(order)
        level = self._levels[price]
        del level[order.sequence]
        if not level:
            del self._levels[price]
            del self._prices[bisect_left(self._prices, self._rank(price), key=self._rank)]


def _ascending(price: Decimal) -> Decimal:
    return price


def _reaches(order: Order, waiting: Order) -> bool:
    """Whether the order's price lets it trade with what waits there; a market order's always does."""
    if order.price is None:
        return True
    return _price(waiting) <= order.price if order.side is Side.BUY else _price(waiting) >= order.price


def _price(waiting: Order) -> Decimal:
    if waiting.price is None:
        raise AssertionError("a market order never waits")
    return waiting.price
