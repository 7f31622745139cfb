"""What trading is asked to do: orders placed, checked and cancelled. Matching comes later, outside branches.

An order's id is made from its transaction and its place in it, so a repeated Prepare tells the same.
"""

from __future__ import annotations

from enum import IntEnum
from importlib.resources import files
from json.encoder import encode_basestring_ascii as quoted
from typing import Annotated, Final, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from participant_sdk.parameters import BAD_PARAMETERS, Amount, Parameters, UserId
from participant_sdk.resources.reservation import ReservationService
from participant_sdk.resources.reservation_planning import Place, Planner, Row, rows

_NAME_MAX_CHARS: Final = 64


class Side(IntEnum):
    """Which way. The numbers are the orders table's."""

    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    """At what price. The numbers are the orders table's."""

    LIMIT = 1
    MARKET = 2


class OperationKind(IntEnum):
    """What the SQL is told to do."""

    PLACE = 1
    CANCEL = 2
    VALIDATE = 3


def _check_name(value: str) -> str:
    if not 1 <= len(value) <= _NAME_MAX_CHARS or not value.isascii() or not value.isprintable() or " " in value:
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 64 printable ASCII characters, without spaces")
    return value


Name = Annotated[str, AfterValidator(_check_name)]


class Order(Parameters):
    """An order. A limit order names its price; a market order has none."""

    user_id: UserId
    symbol: Name
    side: Literal["buy", "sell"]
    amount: Amount
    price: Amount | None = None
    type: Literal["limit", "market"] = "limit"


class Cancel(Parameters):
    """An order that is in the book."""

    order_id: Name


_planner: Final = Planner(rows)


@_planner.operation("place_order")
def _place_order(order: Order, at: Place) -> Row:
    return Row(_order(OperationKind.PLACE, order, at), f'{{"order_id":"{at.name}"}}')


@_planner.operation("cancel_order")
def _cancel_order(cancel: Cancel, at: Place) -> Row:
    return Row(f'"o":{at.number},"k":{OperationKind.CANCEL:d},"i":{quoted(cancel.order_id)}')


@_planner.operation("validate_order")
def _validate_order(order: Order, at: Place) -> Row:
    return Row(_order(OperationKind.VALIDATE, order, at))


def _order(kind: OperationKind, order: Order, at: Place) -> str:
    order_type = OrderType[order.type.upper()]
    if order_type is OrderType.LIMIT and order.price is None:
        raise at.refuse("price", "is missing: a limit order needs one")
    if order_type is OrderType.MARKET and order.price is not None:
        raise at.refuse("price", "must not be given: a market order has none")
    price = "null" if order.price is None else f"{order.price:f}"
    return (
        f'"o":{at.number},"k":{kind:d},"i":"{at.name}","u":{quoted(order.user_id)},"y":{quoted(order.symbol)},'
        f'"e":{Side[order.side.upper()]:d},"p":{order_type:d},"a":{order.amount:f},"r":{price}'
    )


SERVICE: Final = ReservationService(
    schema="trading",
    migrations=files("sidecars.trading") / "migrations",
    invariants=files("sidecars.trading") / "invariants.sql",
    operations=_planner.names,
    plan=_planner.plan,
)
