"""Orders, two ways: by a workflow, which settles and releases by itself, and by plain transactions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from enum import Enum
from random import Random
from typing import Any, Final, Protocol

from coordinator.demo.callers import ENDED, Callers
from coordinator.workflows.builtin.money import cost
from coordinator.workflows.builtin.trade_execution import CLOSED, FILLS_PER_STEP, settlement_of
from participant_sdk.client_results import Committed
from participant_sdk.operations import OperationLike

# Whom fees are paid to.
FEES: Final = "house:fees"
# Which part of what is paid a seller leaves to the house, who takes by plain transactions.
TRADE_FEE: Final = Decimal("0.001")

_LOOK_AGAIN_S: Final = 0.5
_PRICES: Final = {"USD": Decimal(50_000), "EUR": Decimal(46_000)}


class Side(Enum):
    """Which side an order is on."""

    BUY = "buy"
    SELL = "sell"


@dataclass(frozen=True, slots=True)
class Wish:
    """A limit order that a user wants."""

    user_id: str
    side: Side
    symbol: str
    amount: Decimal
    price: Decimal
    time_in_force: str

    @property
    def parameters(self) -> dict[str, str]:
        """As trading takes it."""
        return {
            "user_id": self.user_id,
            "symbol": self.symbol,
            "side": self.side.value,
            "amount": f"{self.amount:f}",
            "price": f"{self.price:f}",
            "time_in_force": self.time_in_force,
        }

    @property
    def locked(self) -> tuple[str, Decimal]:
        """What must be locked for it."""
        base, _, quote = self.symbol.partition("/")
        if self.side is Side.SELL:
            return base, self.amount
        return quote, cost(self.price, self.amount, quote, is_paid=False)


class Order(Protocol):
    """An order, either way."""

    async def place(self) -> bool:
        """Place it; whether it is in the book, or was."""
        ...

    async def finish(self) -> None:
        """Cancel what is still open of it, and return when all of it is settled and released."""
        ...


def wish(random: Random, user_id: str, side: Side, quote: str, *, takes: bool) -> Wish:
    """An order near the market: beyond it, so that it takes, or short of it, so that it waits."""
    away = Decimal(random.randint(1, 400)) / 100_000
    is_up = (side is Side.BUY) == takes
    price = (_PRICES[quote] * (1 + away if is_up else 1 - away)).quantize(Decimal("0.01"))
    # Odd amounts, so that what is paid must be rounded.
    amount = Decimal(random.randint(100_001, 4_000_001)).scaleb(-8)
    return Wish(user_id, side, f"BTC/{quote}", amount, price, "ioc" if takes else "gtc")


class WorkflowOrder:
    """An order by the workflow trade_execution."""

    def __init__(self, callers: Callers, request_id: str, wanted: Wish) -> None:
        self._callers = callers
        self._request_id = request_id
        self._wish = wanted
        self._what = f"{wanted.time_in_force} order"

    async def place(self) -> bool:
        """Begin the workflow, and wait until the order is placed or refused."""
        told = await self._callers.begin(self._what, self._request_id, "trade_execution", self._wish.parameters)
        while not _placed_by(told) and told["state"] not in ENDED:
            await asyncio.sleep(_LOOK_AGAIN_S)
            told = await self._callers.show(told["workflow_id"])
        if _placed_by(told):
            return True
        await self.finish()
        return False

    async def finish(self) -> None:
        """Cancel the order where it is still open, and wait for the workflow's end."""
        told = await self._callers.begin(self._what, self._request_id, "trade_execution", self._wish.parameters)
        if (xid := _placed_by(told)) and told["state"] not in ENDED and self._wish.time_in_force == "gtc":
            placed = await self._callers.result_of(xid, "trading")
            await cancel(self._callers, f"{self._request_id}:cancel", placed["order_id"])
        await self._callers.ended(self._what, self._request_id, "trade_execution", self._wish.parameters)


class PlainOrder:
    """An order by transactions: lock and place, then settle what it took, then release the rest."""

    def __init__(self, callers: Callers, request_id: str, wanted: Wish) -> None:
        self._callers = callers
        self._request_id = request_id
        self._wish = wanted
        self._order_id = ""

    async def place(self) -> bool:
        """Lock the money and place the order, both or neither."""
        currency, amount = self._wish.locked
        money = {"user_id": self._wish.user_id, "currency": currency, "amount": f"{amount:f}"}
        placing: list[OperationLike] = [
            ("bookkeeper", "lock_funds", money),
            ("trading", "place_order", self._wish.parameters),
        ]
        ending = await self._callers.transact("plain order", self._request_id, placing)
        if isinstance(ending, Committed):
            self._order_id = json.loads(ending.results("trading")[0])["order_id"]
        return bool(self._order_id)

    async def finish(self) -> None:
        """Cancel it where it is still open, settle what it took, and release what it did not use."""
        if not self._order_id:
            return
        if self._wish.time_in_force == "gtc":
            await cancel(self._callers, f"{self._request_id}:cancel", self._order_id)
        fills = await self._fills()
        await self._settle([fill for fill in fills if fill["taker_side"] == self._wish.side.value])
        currency, locked = self._wish.locked
        rest = locked - sum((self._paid(fill) for fill in fills), Decimal(0))
        if rest > 0:
            money = {"user_id": self._wish.user_id, "currency": currency, "amount": f"{rest:f}"}
            await self._callers.must("release", f"{self._request_id}:rest", [("bookkeeper", "release_funds", money)])

    async def _fills(self) -> list[dict[str, Any]]:
        """All fills, once there will be no more."""
        fills: list[dict[str, Any]] = []
        while True:
            asked = {"order_id": self._order_id, "fills_from": len(fills)}
            told = await self._callers.read("trading", "order_status", asked)
            if told["status"] not in CLOSED:
                await asyncio.sleep(_LOOK_AGAIN_S)
                continue
            fills += told["fills"]
            if len(fills) == told["fill_count"]:
                return fills

    async def _settle(self, taken: Sequence[dict[str, Any]]) -> None:
        for at in range(0, len(taken), FILLS_PER_STEP):
            together = taken[at : at + FILLS_PER_STEP]
            name = f"{self._request_id}:settle-{at}"
            settling = settlement_of(self._wish.symbol, together)
            await self._callers.must("settlement", name, list(with_fees(settling, self._wish.user_id)))

    def _paid(self, fill: dict[str, Any]) -> Decimal:
        price, amount = Decimal(fill["price"]), Decimal(fill["amount"])
        if self._wish.side is Side.SELL:
            return amount
        return cost(price, amount, self._wish.symbol.partition("/")[2], is_paid=True)


def with_fees(settling: Sequence[OperationLike], seller_id: str) -> Iterator[OperationLike]:
    """A settlement where this seller, who took, leaves a fee to the house of what is paid. The buyer pays as much."""
    fees: dict[str, Decimal] = {}
    for service, operation, given in settling:
        assert not isinstance(given, str)  # noqa: S101 - settlement_of writes no texts
        asked: dict[str, Any] = dict(given)
        if operation == "settle_trade" and asked["seller_id"] == seller_id:
            paid = Decimal(asked["quote_amount"])
            fee = (paid * TRADE_FEE).quantize(Decimal("0.01"), ROUND_DOWN)
            fees[f"trade {asked['trade_id']}"] = fee
            asked["fee_seller"] = f"{fee:f}"
        elif (
            operation == "capture_funds"
            and asked["to_user_id"] == seller_id
            and (fee := fees.get(asked["description"]))
        ):
            yield service, operation, {**asked, "to_user_id": FEES, "amount": f"{fee:f}"}
            asked["amount"] = f"{Decimal(asked['amount']) - fee:f}"
        yield service, operation, asked


async def cancel(callers: Callers, request_id: str, order_id: str) -> None:
    """Have what is open of an order cancelled. That it is filled or cancelled already is as good."""
    await callers.transact("cancel", request_id, [("trading", "cancel_order", {"order_id": order_id})])


def _placed_by(workflow: dict[str, Any]) -> str:
    """The transaction by which a workflow has placed its order; empty while there is none."""
    for step in workflow["steps"]:
        if step["name"] == "place_order" and step["state"] == "COMMITTED":
            return str(step["transaction_id"] or "")
    return ""
