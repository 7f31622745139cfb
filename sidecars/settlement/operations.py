"""What settlement is asked to do: trades settled, delivery against payment, and reversed.

A trade's two legs are told apart from its price, and must agree with it exactly: the buyer pays price times amount,
rounded down to what the quote currency is divided into. Rounded down, so that what the fills of an order cost
together is never more than was locked for the order. Fees are in the quote currency, on top of what the buyer pays
and out of what the seller is paid; they go to the house.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_DOWN, Context, Decimal
from enum import IntEnum
from importlib.resources import files
from json.encoder import encode_basestring_ascii as quoted
from typing import Final, NamedTuple

from participant_sdk.ids import Xid
from participant_sdk.parameters import (
    EXACT,
    Amount,
    Fee,
    Name,
    Parameters,
    Reason,
    RefusedError,
    UserId,
    read,
    refuse,
    unknown_operation,
)
from participant_sdk.participant import Operation
from participant_sdk.resources.reservation import ReservationService
from participant_sdk.resources.reservation_batch import Planned
from participant_sdk.xa import PREPARED, business_no
from sidecars.currencies import SCALES, Currency, check_scale
from sidecars.house import FEES
from sidecars.reads import check_reads_alone

UNKNOWN_SYMBOL: Final = "UNKNOWN_SYMBOL"
LEGS_DISAGREE: Final = "LEGS_DISAGREE"
TRADE_REPEATED: Final = "TRADE_REPEATED"

_NO_FEE: Final = Decimal(0)
# An amount is written with 76 digits at most, so a product is exact.
_PRODUCT: Final = Context(prec=160, rounding=ROUND_DOWN)


class OperationKind(IntEnum):
    """What the SQL is told to do."""

    SETTLE = 1
    REVERSE = 2
    ASK_TRADE = 3
    ASK_POSITION = 4


class Trade(Parameters):
    """A fill as it was reported, with both legs: ``amount`` is delivered, ``quote_amount`` is paid."""

    trade_id: Name
    symbol: Name
    buyer_id: UserId
    seller_id: UserId
    amount: Amount
    price: Amount
    quote_amount: Amount
    fee_buyer: Fee = _NO_FEE
    fee_seller: Fee = _NO_FEE
    buy_order_id: Name | None = None
    sell_order_id: Name | None = None


class Reversal(Parameters):
    """A trade that is settled, and why it shall not be."""

    trade_id: Name
    reason: Reason


class TradeName(Parameters):
    """Which trade."""

    trade_id: Name


class Position(Parameters):
    """Whose, in which currency."""

    user_id: UserId
    currency: Currency


class _Row(NamedTuple):
    """An operation as the SQL reads it, the trade that it changes, and what it returns to the caller."""

    members: str
    trade_id: str = ""
    result: str = ""


def _settle_trade(operation: Operation, index: int) -> _Row:
    trade = read(Trade, operation, index)
    base, quote = _currencies(trade.symbol, index)
    for name, user_id in (("buyer_id", trade.buyer_id), ("seller_id", trade.seller_id)):
        if user_id == FEES:
            raise refuse(index, name, "is the house, which takes fees and does not trade")
    if trade.buyer_id == trade.seller_id:
        raise refuse(index, "seller_id", "is the buyer")
    check_scale(trade.amount, base, index, "amount")
    check_scale(trade.quote_amount, quote, index, "quote_amount")
    check_scale(trade.fee_buyer, quote, index, "fee_buyer")
    check_scale(trade.fee_seller, quote, index, "fee_seller")
    due = due_for(trade.price, trade.amount, quote)
    if trade.quote_amount != due:
        message = f"must be {due:f}: {trade.amount:f} {base} at {trade.price:f}, rounded down to {quote}"
        raise refuse(index, "quote_amount", message, reason=LEGS_DISAGREE)
    if trade.fee_seller > trade.quote_amount:
        raise refuse(index, "fee_seller", "is more than the seller is paid")
    members = (
        f'"o":{index},"k":{OperationKind.SETTLE:d},"i":{quoted(trade.trade_id)},"u":{quoted(trade.buyer_id)},'
        f'"v":{quoted(trade.seller_id)},"x":"{base}","y":"{quote}","z":{SCALES[quote]},"a":{trade.amount:f},'
        f'"p":{trade.price:f},"q":{trade.quote_amount:f},"f":{trade.fee_buyer:f},"g":{trade.fee_seller:f},'
        f'"m":{_quoted_or_null(trade.buy_order_id)},"n":{_quoted_or_null(trade.sell_order_id)}'
    )
    pays = EXACT.add(trade.quote_amount, trade.fee_buyer)
    receives = EXACT.subtract(trade.quote_amount, trade.fee_seller)
    return _Row(members, trade.trade_id, f'{{"buyer_pays":"{pays:f}","seller_receives":"{receives:f}"}}')


def _reverse_trade(operation: Operation, index: int) -> _Row:
    reversal = read(Reversal, operation, index)
    trade, reason = quoted(reversal.trade_id), quoted(reversal.reason)
    return _Row(f'"o":{index},"k":{OperationKind.REVERSE:d},"i":{trade},"s":{reason}', reversal.trade_id)


def _settlement_status(operation: Operation, index: int) -> _Row:
    named = read(TradeName, operation, index)
    return _Row(f'"o":{index},"k":{OperationKind.ASK_TRADE:d},"i":{quoted(named.trade_id)}')


def _net_position(operation: Operation, index: int) -> _Row:
    position = read(Position, operation, index)
    user = quoted(position.user_id)
    return _Row(f'"o":{index},"k":{OperationKind.ASK_POSITION:d},"u":{user},"y":"{position.currency}"')


def due_for(price: Decimal, amount: Decimal, quote: str) -> Decimal:
    """What is to be paid: price times amount, rounded down to what the quote currency is divided into."""
    return _PRODUCT.quantize(_PRODUCT.multiply(price, amount), Decimal(1).scaleb(-SCALES[quote]))


def _currencies(symbol: str, index: int) -> tuple[str, str]:
    base, _, quote = symbol.partition("/")
    if base not in SCALES or quote not in SCALES or base == quote:
        raise refuse(index, "symbol", "must be two currencies of ours, such as BTC/USD", reason=UNKNOWN_SYMBOL)
    return base, quote


def _quoted_or_null(text: str | None) -> str:
    return "null" if text is None else quoted(text)


_OPERATIONS: Final[Mapping[str, Callable[[Operation, int], _Row]]] = {
    "settle_trade": _settle_trade,
    "reverse_trade": _reverse_trade,
    "settlement_status": _settlement_status,
    "net_position": _net_position,
}
OPERATION_NAMES: Final = tuple(_OPERATIONS)
_READS: Final = ("settlement_status", "net_position")


def plan(_log_id: str, _xid: Xid, operations: Sequence[Operation]) -> Planned:
    """Work out a branch's rows and what its parties pay and receive, or the "no" to what is wrong in itself."""
    try:
        rows = [_row(operation, index) for index, operation in enumerate(operations)]
        check_reads_alone(operations, _READS)
        _check_repeated(rows)
    except RefusedError as error:
        return Planned((), error.vote)
    results = tuple([row.result for row in rows])
    return Planned(tuple([row.members for row in rows]), PREPARED._replace(results=results))


def _row(operation: Operation, index: int) -> _Row:
    read_row = _OPERATIONS.get(operation.name)
    if read_row is None:
        raise unknown_operation(operation, index, OPERATION_NAMES)
    return read_row(operation, index)


def _check_repeated(rows: Sequence[_Row]) -> None:
    """Refuse a trade that one branch settles or reverses twice: between the two it would be final for nobody."""
    changed: dict[str, None] = {}
    for index, row in enumerate(rows):
        if row.trade_id in changed:
            raise RefusedError(
                business_no(
                    TRADE_REPEATED,
                    f"trade {row.trade_id} is to be changed twice by one transaction",
                    field=f"operations[{index}].parameters.trade_id",
                )
            )
        if row.trade_id:
            changed[row.trade_id] = None


SERVICE: Final = ReservationService(
    schema="settlement",
    migrations=files("sidecars.settlement") / "migrations",
    invariants=files("sidecars.settlement") / "invariants.sql",
    operations=OPERATION_NAMES,
    plan=plan,
)
