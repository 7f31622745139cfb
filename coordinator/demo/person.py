"""One user's day: an account, money in, trades, money out. The same seed makes the same wishes.

Whatever a user locks, the user's own orders release: so at the end of the day nothing is locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from enum import Enum
from random import Random
from typing import Any, Final

from coordinator.demo.callers import Callers
from coordinator.demo.orders import FEES, Order, PlainOrder, Side, WorkflowOrder, wish
from coordinator.demo.outsiders import CLOSED_IBAN, bank_account, chain_address
from participant_sdk.operations import OperationLike

WITHDRAWAL_FEE: Final = Decimal("1.00")
# Blocks over a deposit before it is credited.
CONFIRMATIONS: Final = 3

# Blocks come once a second, and the bank is asked about as often.
_LOOK_AGAIN_S: Final = 1.0
_BLOCKED_SHARE: Final = 0.02
_CLOSED_SHARE: Final = 0.04
_COINS_SHARE: Final = 0.5


class Trade(Enum):
    """What a user does at the exchange."""

    # An order that takes what is there, by a workflow.
    TAKE = "take"
    # One that waits in the book, by a workflow, until it is filled or cancelled.
    MAKE = "make"
    # The same by plain transactions: the client itself settles what it took.
    PLAIN_TAKE = "plain take"
    PLAIN_MAKE = "plain make"
    # Money for another user.
    TRANSFER = "transfer"
    # More than there is: refused.
    TOO_MUCH = "too much"


_TRADES: Final = {
    Trade.TAKE: 30,
    Trade.MAKE: 25,
    Trade.PLAIN_TAKE: 12,
    Trade.PLAIN_MAKE: 12,
    Trade.TRANSFER: 14,
    Trade.TOO_MUCH: 7,
}


class Person:
    """One user. ``steps`` is how many steps the day has, ``steps_done`` how many are done; each is told."""

    def __init__(self, number: int, people: int, seed: int, callers: Callers, tell_step: Callable[[], None]) -> None:
        self.user_id = f"user-{number}"
        # Chance makes a user's wishes; nothing secret is drawn from it.
        self._random = random = Random(f"{seed}/{number}")  # noqa: S311 - as the comment above says
        self._neighbour = f"user-{random.randrange(people)}"
        self._callers = callers
        self._tell_step = tell_step
        self.steps_done = 0
        self._currency = random.choice(("USD", "EUR"))
        self._is_blocked = random.random() < _BLOCKED_SHARE
        self._has_coins = random.random() < _COINS_SHARE
        self._trades = random.choices(list(_TRADES), list(_TRADES.values()), k=random.randint(2, 4))
        self._resting: list[Order] = []
        self.steps = 5 + len(self._trades)

    async def live(self) -> None:
        """The whole day."""
        await self._open()
        self._step_done()
        is_rich = await self._deposit_money()
        self._step_done()
        if self._has_coins:
            await self._deposit_coins(Decimal(self._random.randint(5, 100)) / 100)
        self._step_done()
        for number, trade in enumerate(self._trades):
            if is_rich:
                await self._trade(number, trade)
            self._step_done()
        for order in self._resting:
            await order.finish()
        self._step_done()
        if is_rich:
            await self._withdraw()
        self._step_done()

    def _step_done(self) -> None:
        self.steps_done += 1
        self._tell_step()

    def _request(self, name: str) -> str:
        return f"{self.user_id}:{name}"

    async def _open(self) -> None:
        """Cleared, mostly; and accounts, if a neighbour's money has not opened them."""
        state = "BLOCKED" if self._is_blocked else "CLEARED"
        operations: list[OperationLike] = [("fiat", "set_compliance", {"user_id": self.user_id, "state": state})]
        for currency in ("USD", "EUR", "BTC"):
            account = {"user_id": self.user_id, "currency": currency, "if_absent": True}
            operations.append(("bookkeeper", "open_account", account))
        await self._callers.must("open", self._request("open"), operations)

    async def _deposit_money(self) -> bool:
        """A bank transfer, and the workflow that credits it, once fiat has heard of it; whether it was credited."""
        reference = f"in-{self.user_id}"
        amount = f"{Decimal(self._random.randint(100_000, 2_000_000)) / 100:.2f}"
        paid = {
            "currency": self._currency,
            "amount": amount,
            "iban": bank_account(self._random),
            "reference": reference,
        }
        await self._callers.company("bank", "POST", "/development/transfers", {**paid, "name": self.user_id})
        asked = {"bank_reference": reference}
        while (await self._callers.read("fiat", "deposit_status", asked))["state"] == "UNKNOWN":  # noqa: ASYNC110 - fiat tells nobody
            await asyncio.sleep(_LOOK_AGAIN_S)
        deposit = {"user_id": self.user_id, "currency": self._currency, "amount": amount, "bank_reference": reference}
        told = await self._callers.run("bank deposit", self._request("deposit"), "fiat_deposit", deposit)
        return bool(told["state"] == "COMPLETED")

    async def _deposit_coins(self, amount: Decimal) -> None:
        """Coins to an address of the user's own at the exchange, credited once they are deep enough."""
        found = await pay_in(self._callers, f"{amount:f}")
        await self._callers.must("coin deposit", self._request("coins"), credit_of(self.user_id, found))

    async def _trade(self, number: int, trade: Trade) -> None:
        name = self._request(f"trade-{number}")
        if trade in {Trade.TRANSFER, Trade.TOO_MUCH}:
            await self._pay_neighbour(name, is_too_much=trade is Trade.TOO_MUCH)
            return
        side = Side.SELL if self._has_coins and self._random.random() < 0.6 else Side.BUY
        takes = trade in {Trade.TAKE, Trade.PLAIN_TAKE}
        wanted = wish(self._random, self.user_id, side, self._currency, takes=takes)
        kind = WorkflowOrder if trade in {Trade.TAKE, Trade.MAKE} else PlainOrder
        order = kind(self._callers, name, wanted)
        if takes:
            await order.place()
            await order.finish()
        elif await order.place():
            self._resting.append(order)

    async def _pay_neighbour(self, name: str, *, is_too_much: bool) -> None:
        amount = "90000000.00" if is_too_much else f"{Decimal(self._random.randint(100, 5_000)) / 100:.2f}"
        if self._neighbour == self.user_id:
            return
        to = {"user_id": self._neighbour, "currency": self._currency, "if_absent": True}
        payment = {"from_user_id": self.user_id, "to_user_id": self._neighbour, "amount": amount}
        await self._callers.transact(
            "too much" if is_too_much else "transfer",
            name,
            [
                ("bookkeeper", "open_account", to),
                ("bookkeeper", "transfer_funds", {**payment, "currency": self._currency}),
            ],
        )

    async def _withdraw(self) -> None:
        """Half of what is there, to a bank account; and coins, to an address elsewhere."""
        money = await self._available(self._currency) / 2
        if (amount := money.quantize(Decimal("0.01"), ROUND_DOWN)) > WITHDRAWAL_FEE:
            await self._withdraw_money(amount)
        coins = (await self._available("BTC") / 2).quantize(Decimal("0.00000001"), ROUND_DOWN)
        if coins >= Decimal("0.001"):
            withdrawal = {
                "user_id": self.user_id,
                "currency": "BTC",
                "amount": f"{coins:f}",
                "address": chain_address(self._random),
            }
            await self._callers.run("coin withdrawal", self._request("coins-out"), "crypto_withdrawal", withdrawal)

    async def _withdraw_money(self, amount: Decimal) -> None:
        mine = {"user_id": self.user_id, "currency": self._currency}
        withdrawal_id = f"out-{self.user_id}"
        is_closed = self._random.random() < _CLOSED_SHARE
        money = {**mine, "amount": f"{amount:f}"}
        fee = {"from_user_id": self.user_id, "to_user_id": FEES, "currency": self._currency}
        where = {
            "withdrawal_id": withdrawal_id,
            "iban": CLOSED_IBAN if is_closed else bank_account(self._random),
            "account_holder": self.user_id,
        }
        await self._callers.transact(
            "bank withdrawal",
            self._request("money-out"),
            [
                ("bookkeeper", "debit_account", money),
                ("bookkeeper", "transfer_funds", {**fee, "amount": f"{WITHDRAWAL_FEE:f}"}),
                ("fiat", "reserve_withdrawal", {**money, **where}),
                ("fiat", "complete_withdrawal", {"withdrawal_id": withdrawal_id}),
            ],
        )

    async def _available(self, currency: str) -> Decimal:
        account = {"user_id": self.user_id, "currency": currency}
        return Decimal((await self._callers.read("bookkeeper", "account_balance", account))["available"])


async def pay_in(callers: Callers, amount: str) -> dict[str, Any]:
    """Somebody pays coins to a new address of the exchange's: what ``record_deposit`` takes, once it is deep enough."""
    address = (await callers.company("chain", "POST", "/", {"method": "getnewaddress"}))["result"]
    where = f"/development/deposits?address={address}"
    while True:
        found = (await callers.company("chain", "GET", where))["deposits"]
        if not found:
            # Only what is certainly not there is paid again: an answer may be lost.
            await callers.company_once("chain", "POST", "/development/deposits", {"address": address, "amount": amount})
        elif found[0]["confirmations"] >= CONFIRMATIONS:
            deposit: dict[str, Any] = found[0]
            return {name: deposit[name] for name in ("tx_hash", "output_index", "address", "amount")}
        else:
            await asyncio.sleep(_LOOK_AGAIN_S)


def credit_of(user_id: str, deposit: dict[str, Any]) -> list[OperationLike]:
    """A deposit of coins, recorded and credited, both or neither."""
    mine = {"user_id": user_id, "currency": "BTC"}
    return [
        ("wallet", "record_deposit", {**mine, **deposit}),
        ("bookkeeper", "open_account", {**mine, "if_absent": True}),
        ("bookkeeper", "credit_account", {**mine, "amount": deposit["amount"]}),
    ]
