"""The words and values of trading: what enters a book, and what comes of it. The numbers are the tables'."""

from __future__ import annotations

from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple


class Side(IntEnum):
    """Which way."""

    BUY = 1
    SELL = 2

    @property
    def opposite(self) -> Side:
        """The side that this one trades with."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(IntEnum):
    """At what price."""

    LIMIT = 1
    MARKET = 2


class TimeInForce(IntEnum):
    """What becomes of what cannot be filled at once: it waits, is cancelled, or keeps all from being filled."""

    GTC = 1
    IOC = 2
    FOK = 3


class OrderStatus(IntEnum):
    """Where an order stands. OPEN is what has entered its book, whether matching has reached it yet or not."""

    PENDING = 1
    OPEN = 2
    CANCELLED = 3
    REJECTED = 4
    FILLED = 5


class Closure(IntEnum):
    """Why an order was cancelled."""

    CANCEL_REQUESTED = 1
    IMMEDIATE_OR_CANCEL = 2
    FILL_OR_KILL = 3
    SELF_TRADE = 4


class Order(NamedTuple):
    """An order as its book takes it. ``price`` is None for a market order, ``filled`` what it has traded before."""

    sequence: int
    order_id: str
    user_id: str
    side: Side
    time_in_force: TimeInForce
    price: Decimal | None
    amount: Decimal
    filled: Decimal = Decimal(0)


class Cancellation(NamedTuple):
    """An order is to leave its book, if it is there still."""

    sequence: int
    order_id: str


class Withdrawn(NamedTuple):
    """An entry that was over before matching reached it."""

    sequence: int


Entry = Order | Cancellation | Withdrawn


class Fill(NamedTuple):
    """One trade: the order that came takes from one that waited, at the price of the latter.

    ``number`` counts the fills of the order that came, from 1. With its place in the book it names the trade, the
    same whenever and by whomever the book is matched.
    """

    symbol: str
    taker_sequence: int
    number: int
    taker_side: Side
    price: Decimal
    amount: Decimal
    buy_order_id: str
    sell_order_id: str
    buyer_id: str
    seller_id: str

    @property
    def trade_id(self) -> str:
        """The trade's name, in all of trading."""
        return f"{self.symbol}-{self.taker_sequence}-{self.number}"


class Standing(NamedTuple):
    """Where an order stands after matching. ``closure`` is None unless it is cancelled."""

    filled: Decimal
    status: OrderStatus
    closure: Closure | None = None


class Closed(NamedTuple):
    """An order left its book with something unfilled."""

    order_id: str


Event = Fill | Closed
