"""The accounts that a workload uses, opened and funded by ordinary transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from participant_sdk.client_errors import InvalidRequestError
from participant_sdk.client_results import Committed, Ending
from participant_sdk.load.at_once import do_all
from participant_sdk.load.tally import Execute
from participant_sdk.load.transfers import Operations
from participant_sdk.operations import OperationLike
from participant_sdk.participant import OPERATIONS_MAX

# Each account takes two operations.
BATCH: Final = OPERATIONS_MAX // 2

ACCOUNT_EXISTS: Final = "ACCOUNT_EXISTS"
ACCOUNT_UNKNOWN: Final = "ACCOUNT_UNKNOWN"


class PreparationError(Exception):
    """An account could neither be opened nor funded. The message says which, and why."""


class Accounts:
    """Opens accounts at bookkeepers, and puts ``balance`` units of a currency into each.

    One that is there already gets the same again.
    """

    def __init__(self, execute: Execute, currency: str, balance: int) -> None:
        self._execute = execute
        self._currency = currency
        self._balance = balance

    async def prepare(self, holders: Iterable[tuple[str, str]], prepared: Callable[[int], None]) -> None:
        """Open and fund accounts, each a participant and a user; ``prepared`` is told of so many more done.

        PreparationError where a participant refuses; ClientError as for ``TransactionClient.execute``.
        """

        async def open_and_fund(batch: tuple[str, Sequence[str]]) -> None:
            participant, users = batch
            await self._prepare(participant, users)
            prepared(len(users))

        await do_all(_batches(holders), open_and_fund)

    async def _prepare(self, participant: str, users: Sequence[str]) -> None:
        """Open and fund them together: as if none were there, then as if all were, then one by one."""
        opened = self._operations("open_account", participant, users)
        funded = self._operations("credit_account", participant, users)
        if await self._committed([*opened, *funded], ACCOUNT_EXISTS) or await self._committed(funded, ACCOUNT_UNKNOWN):
            return
        for open_, fund in zip(opened, funded, strict=True):
            if not await self._committed([open_, fund], ACCOUNT_EXISTS):
                await self._committed([fund], "")

    async def _committed(self, operations: Operations, unless: str) -> bool:
        """Whether they committed; False where they did not for this reason. PreparationError for another one."""
        try:
            ending: Ending = await self._execute(operations)
        except InvalidRequestError as error:
            if error.reason == unless:
                return False
            raise PreparationError(f"{operations[0][0]}: {error}") from error
        if isinstance(ending, Committed):
            return True
        if ending.reason == unless:
            return False
        raise PreparationError(f"{operations[0][0]}: {ending.reason}: {ending.message}")

    def _operations(self, name: str, participant: str, users: Sequence[str]) -> list[OperationLike]:
        amount = {"amount": str(self._balance)} if name == "credit_account" else {}
        return [(participant, name, {"user_id": user, "currency": self._currency, **amount}) for user in users]


def _batches(holders: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Users of one participant together, as many as one transaction takes."""
    waiting: dict[str, list[str]] = {}
    for participant, user in holders:
        users = waiting.setdefault(participant, [])
        users.append(user)
        if len(users) == BATCH:
            yield participant, waiting.pop(participant)
    yield from waiting.items()
