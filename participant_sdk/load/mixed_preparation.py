"""What the mixed workload needs: users with money and coins, some of it locked, and a hot wallet that has the coins."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from participant_sdk.client_errors import InvalidRequestError
from participant_sdk.client_results import Committed
from participant_sdk.load.accounts import PreparationError
from participant_sdk.load.at_once import do_all
from participant_sdk.load.mixed import COIN, PENNILESS, Mixed, record_of
from participant_sdk.load.tally import Execute
from participant_sdk.load.transfers import Operations
from participant_sdk.operations import OperationLike
from participant_sdk.participant import OPERATIONS_MAX

# Each trader takes eight operations.
USERS_TOGETHER: Final = OPERATIONS_MAX // 8
TOLD_WITHIN_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.2


class Preparation:
    """Opens and funds the accounts of a mixed workload, each with ``balance`` of the currency and as many coins.

    Half of both is locked, as by orders of before: trades take locked money. Whoever has accounts already gets the
    same again; the coins come to the hot wallet too.
    """

    def __init__(self, execute: Execute, mixed: Mixed, balance: int) -> None:
        self._execute = execute
        self._mixed = mixed
        self._balance = balance

    @property
    def users(self) -> int:
        """How many will be prepared."""
        return self._mixed.traders + PENNILESS

    async def prepare(self, prepared: Callable[[int], None]) -> int:
        """Prepare all users, and return in how many transactions; ``prepared`` is told of so many more done.

        PreparationError where a participant refuses; ClientError as for ``TransactionClient.execute``.
        """
        transactions = 0

        async def commit(batch: tuple[int, Operations]) -> None:
            nonlocal transactions
            users, operations = batch
            await self._commit(operations)
            transactions += 1
            prepared(users)

        await do_all(self._batches(), commit)
        return transactions

    async def await_transfers(self) -> None:
        """Return when fiat has heard of the last of the bank's transfers. PreparationError where it does not."""
        fiat, reference = self._mixed.names.fiat, self._mixed.bank_reference(self._mixed.transfers - 1)
        try:
            async with asyncio.timeout(TOLD_WITHIN_S):
                while await self._state_of(fiat, reference) == "UNKNOWN":  # noqa: ASYNC110 - fiat tells nobody
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError as error:
            message = f"{fiat} has not heard of the bank's transfers in {TOLD_WITHIN_S:g} s: is it that bank's?"
            raise PreparationError(message) from error

    async def _state_of(self, fiat: str, reference: str) -> str:
        ending = await self._execute([(fiat, "deposit_status", {"bank_reference": reference})])
        if not isinstance(ending, Committed):
            raise PreparationError(f"{fiat}: {ending.reason}: {ending.message}")
        return str(json.loads(ending.results(fiat)[0])["state"])

    async def _commit(self, operations: Operations) -> None:
        try:
            ending = await self._execute(operations)
        except InvalidRequestError as error:
            raise PreparationError(str(error)) from error
        if not isinstance(ending, Committed):
            raise PreparationError(f"{ending.reason}: {ending.message}")

    def _batches(self) -> Iterator[tuple[int, Operations]]:
        """Users together, as many as one transaction takes, and what prepares them."""
        for first in range(0, self._mixed.traders, USERS_TOGETHER):
            numbers = range(first, min(first + USERS_TOGETHER, self._mixed.traders))
            yield len(numbers), [operation for number in numbers for operation in self._trader(number)]
        users = [f"penniless-{number}" for number in range(PENNILESS)]
        yield PENNILESS, [operation for user in users for operation in self._opened(user)]

    def _opened(self, user: str) -> Sequence[OperationLike]:
        """Accounts, and leave to move money."""
        names = self._mixed.names
        return [
            (names.fiat, "set_compliance", {"user_id": user, "state": "CLEARED"}),
            (names.bookkeeper, "open_account", {"user_id": user, "currency": self._mixed.currency, "if_absent": True}),
            (names.bookkeeper, "open_account", {"user_id": user, "currency": COIN, "if_absent": True}),
        ]

    def _trader(self, number: int) -> Iterator[OperationLike]:
        names, user = self._mixed.names, f"trader-{number}"
        yield from self._opened(user)
        coins = f'"currency":"{COIN}","amount":"{self._balance}"'
        yield names.wallet, "record_deposit", record_of(user, coins, self._mixed.tx_hash("preparation", number))
        for currency in (self._mixed.currency, COIN):
            money = {"user_id": user, "currency": currency}
            yield names.bookkeeper, "credit_account", {**money, "amount": str(self._balance)}
            if locked := self._balance // 2:
                yield names.bookkeeper, "lock_funds", {**money, "amount": str(locked)}
