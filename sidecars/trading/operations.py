"""What trading is asked to do: orders placed, checked and cancelled, orders and books read.

An order's id is made from its transaction and its place in it, so a repeated Prepare tells the same. Matching comes
later, outside of branches; see ``matcher.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import IntEnum
from importlib.resources import files
from json.encoder import encode_basestring_ascii as quoted
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, PlainValidator
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
from participant_sdk.xa import PREPARED, invalid
from sidecars.trading.orders import OrderType, Side, TimeInForce

READS_APART: Final = "READS_APART"
TOO_MANY_READS: Final = "TOO_MANY_READS"

# A vote carries 64 KiB. With users' names as long as they may be, this is what it surely holds.
READS_MAX: Final = 4
FILLS_MAX: Final = 48
DEPTH_MAX: Final = 50
DEPTH_DEFAULT: Final = 20

_NAME_MAX_CHARS: Final = 64
_COUNT_MAX: Final = 1_000_000_000


class OperationKind(IntEnum):
    """What the SQL is told to do."""

    PLACE = 1
    CANCEL = 2
    VALIDATE = 3
    STATUS = 4
    BOOK = 5


def _check_name(value: str) -> str:
    if not 1 <= len(value) <= _NAME_MAX_CHARS or not value.isascii() or not value.isprintable() or " " in value:
        raise PydanticCustomError(BAD_PARAMETERS, "must be 1 to 64 printable ASCII characters, without spaces")
    return value


def _check_count(value: object) -> int:
    if not isinstance(value, Decimal) or value != value.to_integral_value() or not 0 <= value <= _COUNT_MAX:
        raise PydanticCustomError(BAD_PARAMETERS, "must be a whole number, from 0 to a billion")
    return int(value)


Name = Annotated[str, AfterValidator(_check_name)]
Count = Annotated[int, PlainValidator(_check_count)]


class Placing(Parameters):
    """An order. A limit order names its price, and waits in the book unless it says otherwise.

    A market order takes what is there, and neither has a price nor waits.
    """

    user_id: UserId
    symbol: Name
    side: Literal["buy", "sell"]
    amount: Amount
    price: Amount | None = None
    type: Literal["limit", "market"] = "limit"
    time_in_force: Literal["gtc", "ioc", "fok"] | None = None
    client_order_id: Name | None = None


class Cancel(Parameters):
    """An order that is in the book."""

    order_id: Name


class StatusQuery(Parameters):
    """An order, placed at any time. Of its fills the first ``fills_from`` are left out."""

    order_id: Name
    fills_from: Count = 0


class BookQuery(Parameters):
    """A symbol's book, and how many prices of each side."""

    symbol: Name
    depth: Count = DEPTH_DEFAULT


class _Row(NamedTuple):
    """An operation as the SQL reads it, and what it returns to the caller."""

    kind: OperationKind
    members: str
    result: str = ""


class _Place(NamedTuple):
    """Where an operation stands: its branch's name, its place there, from 0, and how many of the branch only read."""

    branch: str
    number: int
    reads: int

    @property
    def order_id(self) -> str:
        return f"{self.branch}-{self.number}"


def _place_order(operation: Operation, place: _Place) -> _Row:
    members = _order(operation, place)
    return _Row(OperationKind.PLACE, members, f'{{"order_id":"{place.order_id}"}}')


def _validate_order(operation: Operation, place: _Place) -> _Row:
    return _Row(OperationKind.VALIDATE, _order(operation, place))


def _cancel_order(operation: Operation, place: _Place) -> _Row:
    cancel = read(Cancel, operation, place.number)
    return _Row(OperationKind.CANCEL, f'"i":{quoted(cancel.order_id)}')


def _order_status(operation: Operation, place: _Place) -> _Row:
    query = read(StatusQuery, operation, place.number)
    shown = FILLS_MAX // place.reads
    return _Row(OperationKind.STATUS, f'"i":{quoted(query.order_id)},"f":{query.fills_from},"m":{shown}')


def _order_book(operation: Operation, place: _Place) -> _Row:
    query = read(BookQuery, operation, place.number)
    if not 1 <= query.depth <= DEPTH_MAX:
        raise refuse(place.number, "depth", f"must be from 1 to {DEPTH_MAX}")
    return _Row(OperationKind.BOOK, f'"y":{quoted(query.symbol)},"m":{query.depth}')


def _order(operation: Operation, place: _Place) -> str:
    order = read(Placing, operation, place.number)
    order_type = OrderType[order.type.upper()]
    time_in_force = _time_in_force(order, order_type, place.number)
    if order_type is OrderType.LIMIT and order.price is None:
        raise refuse(place.number, "price", "is missing: a limit order needs one")
    if order_type is OrderType.MARKET and order.price is not None:
        raise refuse(place.number, "price", "must not be given: a market order has none")
    price = "null" if order.price is None else f"{order.price:f}"
    named = "" if order.client_order_id is None else f',"n":{quoted(order.client_order_id)}'
    return (
        f'"i":"{place.order_id}","u":{quoted(order.user_id)},"y":{quoted(order.symbol)},'
        f'"e":{Side[order.side.upper()]:d},"p":{order_type:d},"t":{time_in_force:d},'
        f'"a":{order.amount:f},"r":{price}{named}'
    )


def _time_in_force(order: Placing, order_type: OrderType, index: int) -> TimeInForce:
    if order.time_in_force is None:
        return TimeInForce.GTC if order_type is OrderType.LIMIT else TimeInForce.IOC
    time_in_force = TimeInForce[order.time_in_force.upper()]
    if order_type is OrderType.MARKET and time_in_force is TimeInForce.GTC:
        raise refuse(index, "time_in_force", "must be ioc or fok: a market order does not wait")
    return time_in_force


_OPERATIONS: Final[Mapping[str, Callable[[Operation, _Place], _Row]]] = {
    "place_order": _place_order,
    "cancel_order": _cancel_order,
    "validate_order": _validate_order,
    "order_status": _order_status,
    "order_book": _order_book,
}
_READS: Final = ("order_status", "order_book")
OPERATION_NAMES: Final = tuple(_OPERATIONS)


def plan(log_id: str, xid: Xid, operations: Sequence[Operation]) -> Planned:
    """Work out a branch's rows and the ids of its orders, or the "no" to what is wrong in itself."""
    # Two logs may give out the same xid, and an order's id is one for all of them (R18).
    branch = f"{log_id}-{xid}"
    reads = sum(operation.name in _READS for operation in operations)
    try:
        rows = [_row(operation, _Place(branch, index, reads)) for index, operation in enumerate(operations)]
        if reads:
            _check_reads(operations, rows, reads)
    except RefusedError as error:
        return Planned((), error.vote)
    results = tuple(row.result for row in rows)
    vote = PREPARED._replace(results=results) if any(results) else PREPARED
    return Planned(tuple(f'"o":{index},"k":{row.kind:d},{row.members}' for index, row in enumerate(rows)), vote)


def _row(operation: Operation, place: _Place) -> _Row:
    read_row = _OPERATIONS.get(operation.name)
    if read_row is None:
        raise unknown_operation(operation, place.number, OPERATION_NAMES)
    return read_row(operation, place)


def _check_reads(operations: Sequence[Operation], rows: Sequence[_Row], reads: int) -> None:
    """Refuse reads beside changes, whose branch votes before there is anything to read, and more than a vote holds."""
    at = [index for index, operation in enumerate(operations) if operation.name in _READS]
    field = f"operations[{at[0]}].operation"
    if any(row.kind in (OperationKind.PLACE, OperationKind.CANCEL) for row in rows):
        message = f"{field}: {operations[at[0]].name} must not stand in one transaction with what changes orders"
        raise RefusedError(invalid(READS_APART, message, field))
    if reads > READS_MAX:
        field = f"operations[{at[READS_MAX]}].operation"
        message = f"{field}: at most {READS_MAX} operations of one transaction may read orders and books"
        raise RefusedError(invalid(TOO_MANY_READS, message, field))


SERVICE: Final = ReservationService(
    schema="trading",
    migrations=files("sidecars.trading") / "migrations",
    invariants=files("sidecars.trading") / "invariants.sql",
    operations=OPERATION_NAMES,
    plan=plan,
)
