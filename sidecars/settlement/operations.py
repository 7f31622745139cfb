"""What settlement is asked to do: trades settled, delivery against payment, and reversed.

A trade's two legs are told apart from its price, and must agree with it exactly: the buyer pays price times amount,
rounded down to what the quote currency is divided into. Rounded down, so that what the fills of an order cost
together is never more than was locked for the order. Fees are in the quote currency, on top of what the buyer pays
and out of what the seller is paid; they go to the house.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_DOWN, Context, Decimal
from enum import IntEnum
from importlib.resources import files
from json.encoder import encode_basestring_ascii as quoted
from typing import Final, NamedTuple

from participant_sdk.currencies import SCALES, Currency, check_scale
from participant_sdk.parameters import EXACT, Amount, AmountOrZero, Name, Parameters, Reason, RefusedError, UserId
from participant_sdk.resources.reservation import ReservationService
from participant_sdk.resources.reservation_batch import Planned
from participant_sdk.resources.reservation_planning import Place, Planner
from participant_sdk.xa import PREPARED, business_no
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
    quote_amount: AmountOrZero
    fee_buyer: AmountOrZero = _NO_FEE
    fee_seller: AmountOrZero = _NO_FEE
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

    @property
    def is_read(self) -> bool:
        """It changes no trade."""
        return not self.trade_id


def _planned(rows: Sequence[_Row]) -> Planned:
    """Plan a branch: its rows, and what the parties of its trades pay and receive."""
    check_reads_alone([row.is_read for row in rows])
    _check_repeated(rows)
    results = tuple([row.result for row in rows])
    return Planned(tuple([row.members for row in rows]), PREPARED._replace(results=results))


_planner: Final = Planner(_planned)


@_planner.operation("settle_trade")
def _settle_trade(trade: Trade, at: Place) -> _Row:
    base, quote = _currencies(trade.symbol, at)
    _check_parties(trade, at)
    check_scale(trade.amount, base, at.number, "amount")
    check_scale(trade.quote_amount, quote, at.number, "quote_amount")
    check_scale(trade.fee_buyer, quote, at.number, "fee_buyer")
    check_scale(trade.fee_seller, quote, at.number, "fee_seller")
    due = due_for(trade.price, trade.amount, quote)
    if trade.quote_amount != due:
        message = f"must be {due:f}: {trade.amount:f} {base} at {trade.price:f}, rounded down to {quote}"
        raise at.refuse("quote_amount", message, reason=LEGS_DISAGREE)
    if trade.fee_seller > trade.quote_amount:
        raise at.refuse("fee_seller", "is more than the seller is paid")
    members = (
        f'"o":{at.number},"k":{OperationKind.SETTLE:d},"i":{quoted(trade.trade_id)},"u":{quoted(trade.buyer_id)},'
        f'"v":{quoted(trade.seller_id)},"x":"{base}","y":"{quote}","z":{SCALES[quote]},"a":{trade.amount:f},'
        f'"p":{trade.price:f},"q":{trade.quote_amount:f},"f":{trade.fee_buyer:f},"g":{trade.fee_seller:f},'
        f'"m":{_quoted_or_null(trade.buy_order_id)},"n":{_quoted_or_null(trade.sell_order_id)}'
    )
    pays = EXACT.add(trade.quote_amount, trade.fee_buyer)
    receives = EXACT.subtract(trade.quote_amount, trade.fee_seller)
    return _Row(members, trade.trade_id, f'{{"buyer_pays":"{pays:f}","seller_receives":"{receives:f}"}}')


@_planner.operation("reverse_trade")
def _reverse_trade(reversal: Reversal, at: Place) -> _Row:
    trade, reason = quoted(reversal.trade_id), quoted(reversal.reason)
    return _Row(f'"o":{at.number},"k":{OperationKind.REVERSE:d},"i":{trade},"s":{reason}', reversal.trade_id)


@_planner.operation("settlement_status")
def _settlement_status(named: TradeName, at: Place) -> _Row:
    return _Row(f'"o":{at.number},"k":{OperationKind.ASK_TRADE:d},"i":{quoted(named.trade_id)}')


@_planner.operation("net_position")
def _net_position(position: Position, at: Place) -> _Row:
    user = quoted(position.user_id)
    return _Row(f'"o":{at.number},"k":{OperationKind.ASK_POSITION:d},"u":{user},"y":"{position.currency}"')


def due_for(price: Decimal, amount: Decimal, quote: str) -> Decimal:
    """What is to be paid: price times amount, rounded down to what the quote currency is divided into."""
    return _PRODUCT.quantize(_PRODUCT.multiply(price, amount), Decimal(1).scaleb(-SCALES[quote]))


def _check_parties(trade: Trade, at: Place) -> None:
    for name, user_id in (("buyer_id", trade.buyer_id), ("seller_id", trade.seller_id)):
        if user_id == FEES:
            raise at.refuse(name, "is the house, which takes fees and does not trade")
    if trade.buyer_id == trade.seller_id:
        raise at.refuse("seller_id", "is the buyer")


def _currencies(symbol: str, at: Place) -> tuple[str, str]:
    base, _, quote = symbol.partition("/")
    if base not in SCALES or quote not in SCALES or base == quote:
        raise at.refuse("symbol", "must be two currencies of ours, such as BTC/USD", reason=UNKNOWN_SYMBOL)
    return base, quote


def _quoted_or_null(text: str | None) -> str:
    return "null" if text is None else quoted(text)


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
    operations=_planner.names,
    plan=_planner.plan,
)
