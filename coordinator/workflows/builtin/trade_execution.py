"""An order, from its check to the last of its fills settled, and what it did not use given back.

Steps, and what they ask of participants::

    validate_order  trading.validate_order   {user_id, symbol, side, amount, price, time_in_force}
    lock_funds      bookkeeper.lock_funds    {user_id, currency, amount}          undone by release_funds
    place_order     trading.place_order      as validate_order; returns {order_id}                 the pivot
    fills…          trading.order_status     {order_id, fills_from}; returns {status, filled, fill_count, fills: [
                                             {trade_id, price, amount, buyer_id, seller_id, buy_order_id,
                                             sell_order_id, taker_side}]}
    settle…         settlement.settle_trade  {trade_id, symbol, buyer_id, seller_id, amount, price, quote_amount,
                                             buy_order_id, sell_order_id}
                    bookkeeper.open_account  {user_id, currency, if_absent}
                    bookkeeper.capture_funds {from_user_id, to_user_id, currency, amount, description}
    release_rest    bookkeeper.release_funds {user_id, currency, amount}

A buyer locks price times amount, a seller the amount. Once the order is in the book it may be filled, which nobody can
undo: so placing it is the pivot, and from then on the workflow goes forward. A fill is settled by the workflow of the
order that took; both legs and both accounts in one transaction. A fill so small that it costs nothing, rounded down, is
delivered and not paid for. An order is immediate-or-cancel unless it says ``gtc``: then the workflow waits until it is
filled or cancelled, for as long as that takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, Literal

from coordinator.workflows.builtin.money import Money, Symbol, cost, written
from coordinator.workflows.context import Workflow
from coordinator.workflows.definitions import workflow
from coordinator.workflows.results import StepResult, WorkflowFailed, decimal_of
from participant_sdk.exact_json import Exact
from participant_sdk.operations import OperationLike, Parameter
from participant_sdk.parameters import EXACT, Amount, Parameters, UserId

# Each fill takes up to five operations, of which a transaction has at most a hundred.
FILLS_PER_STEP: Final = 15
CLOSED: Final = ("FILLED", "CANCELLED", "REJECTED")


class TradeExecution(Parameters):
    """A limit order: ``price`` is the worst that is accepted."""

    user_id: UserId
    symbol: Symbol
    side: Literal["buy", "sell"]
    amount: Money
    price: Amount
    time_in_force: Literal["ioc", "gtc"] = "ioc"


@workflow("trade_execution", version="1", parameters=TradeExecution)
async def trade_execution(wf: Workflow, order: TradeExecution) -> Parameter:
    """Place an order, settle its fills, release the rest."""
    currency, locked = _to_lock(order)
    placing: Mapping[str, Parameter] = {
        "user_id": order.user_id,
        "symbol": order.symbol,
        "side": order.side,
        "amount": written(order.amount),
        "price": written(order.price),
        "time_in_force": order.time_in_force,
    }
    money: Mapping[str, Parameter] = {"user_id": order.user_id, "currency": currency, "amount": written(locked)}
    await wf.step("validate_order", [("trading", "validate_order", placing)])
    await wf.step(
        "lock_funds",
        [("bookkeeper", "lock_funds", money)],
        compensate=[("bookkeeper", "release_funds", money)],
    )
    placed = await wf.step("place_order", [("trading", "place_order", placing)], pivot=True)
    order_id = placed.text(0, "order_id")
    closed = await wf.until("fills", [_status(order_id, 0)], _is_closed)
    fills = await _all_fills(wf, order_id, closed)
    await _settle(wf, order, [fill for fill in fills if _text(fill, "taker_side") == order.side])
    used = _used(order, fills)
    rest = EXACT.subtract(locked, used)
    if rest > 0:
        await wf.step("release_rest", [("bookkeeper", "release_funds", {**money, "amount": written(rest)})])
    return {
        "order_id": order_id,
        "status": closed.text(0, "status"),
        "filled": written(closed.amount(0, "filled")),
        "trades": len(fills),
        "used": written(used),
        "released": written(rest),
        "currency": currency,
    }


def _to_lock(order: TradeExecution) -> tuple[str, Decimal]:
    base, _, quote = order.symbol.partition("/")
    if order.side == "sell":
        return base, order.amount
    return quote, cost(order.price, order.amount, quote, is_paid=False)


def _status(order_id: str, fills_from: int) -> OperationLike:
    return ("trading", "order_status", {"order_id": order_id, "fills_from": fills_from})


def _is_closed(told: StepResult) -> bool:
    return told.text(0, "status") in CLOSED


async def _all_fills(wf: Workflow, order_id: str, closed: StepResult) -> Sequence[Mapping[str, Exact]]:
    """Every fill; a long list comes in pages."""
    count = int(closed.amount(0, "fill_count"))
    fills = list(closed.items(0, "fills"))
    while len(fills) < count:
        page = await wf.read(f"fills-{len(fills)}", [_status(order_id, len(fills))])
        if not (more := page.items(0, "fills")):
            raise WorkflowFailed("FILLS_MISSING", f"order {order_id} has {count} fills, and told of {len(fills)}")
        fills += more
    return fills


async def _settle(wf: Workflow, order: TradeExecution, fills: Sequence[Mapping[str, Exact]]) -> None:
    """Settle the fills that this order took, several in one transaction."""
    for at in range(0, len(fills), FILLS_PER_STEP):
        together = fills[at : at + FILLS_PER_STEP]
        await wf.step(f"settle-{at // FILLS_PER_STEP + 1}", settlement_of(order.symbol, together))


def settlement_of(symbol: str, fills: Sequence[Mapping[str, Exact]]) -> list[OperationLike]:
    """What settles these fills: the trades, the accounts that they need, and both legs of each. WorkflowFailed."""
    base, _, quote = symbol.partition("/")
    trades: list[OperationLike] = []
    accounts: dict[tuple[str, str], None] = {}
    legs: list[OperationLike] = []
    for fill in fills:
        buyer, seller = _text(fill, "buyer_id"), _text(fill, "seller_id")
        price, amount = _amount(fill, "price"), _amount(fill, "amount")
        paid = cost(price, amount, quote, is_paid=True)
        named = ("trade_id", "buyer_id", "seller_id", "buy_order_id", "sell_order_id")
        trade: dict[str, Parameter] = {key: _text(fill, key) for key in named}
        trade |= {"symbol": symbol, "amount": written(amount), "price": written(price), "quote_amount": written(paid)}
        trades.append(("settlement", "settle_trade", trade))
        accounts |= {(buyer, base): None, (seller, quote): None}
        why = f"trade {_text(fill, 'trade_id')}"
        if paid > 0:
            legs.append(_capture(buyer, seller, quote, paid, why))
        legs.append(_capture(seller, buyer, base, amount, why))
    opened: list[OperationLike] = [
        ("bookkeeper", "open_account", {"user_id": user, "currency": currency, "if_absent": True})
        for user, currency in accounts
    ]
    return [*trades, *opened, *legs]


def _capture(payer: str, payee: str, currency: str, amount: Decimal, why: str) -> OperationLike:
    captured = {"from_user_id": payer, "to_user_id": payee, "currency": currency, "amount": written(amount)}
    return ("bookkeeper", "capture_funds", {**captured, "description": why})


def _used(order: TradeExecution, fills: Sequence[Mapping[str, Exact]]) -> Decimal:
    """What of the locked money the fills take, whoever settles them."""
    quote = order.symbol.partition("/")[2]
    total = Decimal(0)
    for fill in fills:
        price, amount = _amount(fill, "price"), _amount(fill, "amount")
        total = EXACT.add(total, amount if order.side == "sell" else cost(price, amount, quote, is_paid=True))
    return total


def _text(fill: Mapping[str, Exact], key: str) -> str:
    value = fill.get(key)
    if not isinstance(value, str):
        raise WorkflowFailed("RESULT_MISSING", f"a fill has no text {key!r}")
    return value


def _amount(fill: Mapping[str, Exact], key: str) -> Decimal:
    return decimal_of(fill.get(key), key)
