"""What trading is asked to do: orders placed, checked and cancelled. Matching comes later, outside branches.

An order's id is made from its transaction and its place in it, so a repeated Prepare tells the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from importlib.resources import files
from json.encoder import encode_basestring_ascii as quoted
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from participant_sdk.ids import Xid
from participant_sdk.parameters import (
    BAD_PARAMETERS,
    Amount,
    Parameters,
    RefusedError,
    UserId,
    read,
    refuse,
    unknown_operation,
)
from participant_sdk.participant import Operation
from participant_sdk.resources.reservation import ReservationService
from participant_sdk.resources.reservation_batch import Planned
from participant_sdk.xa import PREPARED

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


class _Row(NamedTuple):
    """An operation as the SQL reads it, and what it returns to the caller."""

    members: str
    result: str = ""


def _place_order(branch: str, operation: Operation, index: int) -> _Row:
    order_id = f"{branch}-{index}"
    members = _order(OperationKind.PLACE, order_id, operation, index)
    return _Row(members, f'{{"order_id":"{order_id}"}}')


def _validate_order(branch: str, operation: Operation, index: int) -> _Row:
    return _Row(_order(OperationKind.VALIDATE, f"{branch}-{index}", operation, index))


def _cancel_order(_branch: str, operation: Operation, index: int) -> _Row:
    cancel = read(Cancel, operation, index)
    return _Row(f'"o":{index},"k":{OperationKind.CANCEL:d},"i":{quoted(cancel.order_id)}')


def _order(kind: OperationKind, order_id: str, operation: Operation, index: int) -> str:
    order = read(Order, operation, index)
    order_type = OrderType[order.type.upper()]
    if order_type is OrderType.LIMIT and order.price is None:
        raise refuse(index, "price", "is missing: a limit order needs one")
    if order_type is OrderType.MARKET and order.price is not None:
        raise refuse(index, "price", "must not be given: a market order has none")
    price = "null" if order.price is None else f"{order.price:f}"
    return (
        f'"o":{index},"k":{kind:d},"i":"{order_id}","u":{quoted(order.user_id)},"y":{quoted(order.symbol)},'
        f'"e":{Side[order.side.upper()]:d},"p":{order_type:d},"a":{order.amount:f},"r":{price}'
    )


_OPERATIONS: Final[Mapping[str, Callable[[str, Operation, int], _Row]]] = {
    "place_order": _place_order,
    "cancel_order": _cancel_order,
    "validate_order": _validate_order,
}
OPERATION_NAMES: Final = tuple(_OPERATIONS)


def plan(log_id: str, xid: Xid, operations: Sequence[Operation]) -> Planned:
    """Work out a branch's rows and the ids of its orders, or the "no" to what is wrong in itself."""
    # Two logs may give out the same xid, and an order's id is one for all of them (R18).
    branch = f"{log_id}-{xid}"
    try:
        rows = [_row(branch, operation, index) for index, operation in enumerate(operations)]
    except RefusedError as error:
        return Planned((), error.vote)
    results = tuple(row.result for row in rows)
    vote = PREPARED._replace(results=results) if any(results) else PREPARED
    return Planned(tuple(row.members for row in rows), vote)


def _row(branch: str, operation: Operation, index: int) -> _Row:
    read_row = _OPERATIONS.get(operation.name)
    if read_row is None:
        raise unknown_operation(operation, index, OPERATION_NAMES)
    return read_row(branch, operation, index)


SERVICE: Final = ReservationService(
    schema="trading",
    migrations=files("sidecars.trading") / "migrations",
    invariants=files("sidecars.trading") / "invariants.sql",
    operations=OPERATION_NAMES,
    plan=plan,
)
