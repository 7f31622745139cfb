"""SmallBank: the procedures of a small bank, its customers spread over several ledgers.

From Alomari, Cahill, Fekete, Röhm, "The Cost of Serializability on Platforms That Use Snapshot
Isolation" (ICDE 2008): Balance, DepositChecking, TransactSavings, Amalgamate, WriteCheck. SendPayment
and the mix, a quarter of it SendPayment, are those of H-Store's and OLTP-Bench's SmallBank.

What is different here, since a bookkeeper moves amounts that it is given, never overdraws an account
and tells no balance:

- A customer's savings and checking are accounts of users "savings-N" and "checking-N" at the
  participant N modulo the number of participants, so half of the procedures of two customers span two.
- Balance reads nothing: it locks a unit in both accounts and releases it. It changes nothing, and fails
  on an empty account.
- TransactSavings pays in or takes out, each half of the time.
- Amalgamate moves an amount from each of the first customer's accounts to the other's checking, not all
  that is there.
- WriteCheck is refused where the money is not there; there is no overdraft, and so no penalty.
- Deposits, checks and transactions on savings bring in and take out as much on average, so that
  a long load does not run dry.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from participant_sdk.load.transfers import Operations

# Of the customers that are picked, those of the hot spot, where there is one.
HOT_SHARE: Final = 0.9

Pick = Callable[[], int]
Procedure = Callable[["_Bank", Pick], Operations]


@dataclass(frozen=True, slots=True)
class SmallBank:
    """The six procedures, for customers 0 to ``customers`` - 1, at least two.

    Picked uniformly; with a ``hot_spot``, nine of ten are picked among the first so many customers.
    """

    participants: tuple[str, ...]
    customers: int
    hot_spot: int = 0
    currency: str = "USD"
    seed: int = 0

    def __iter__(self) -> Iterator[Operations]:
        picked = random.Random(self.seed).random  # noqa: S311  Load, not secrets.
        bank = _Bank(self.participants, self.currency)
        customers, hot_spot = self.customers, self.hot_spot

        def anyone() -> int:
            return int(picked() * customers)

        def mostly_hot() -> int:
            return int(picked() * (hot_spot if picked() < HOT_SHARE else customers))

        pick = mostly_hot if hot_spot else anyone
        kinds = len(_MIX)
        while True:
            yield _MIX[int(picked() * kinds)](bank, pick)

    def holders(self) -> Iterator[tuple[str, str]]:
        """The accounts it uses: participant and user."""
        home = self.participants
        for customer in range(self.customers):
            name = home[customer % len(home)]
            yield name, f"savings-{customer}"
            yield name, f"checking-{customer}"


class _Bank:
    """Writes operations on customers' accounts."""

    __slots__ = ("_end", "_homes", "_many")

    def __init__(self, homes: tuple[str, ...], currency: str) -> None:
        self._homes = homes
        self._many = len(homes)
        self._end = f'","currency":"{currency}","amount":"'

    def does(self, operation: str, kind: str, customer: int, amount: int) -> tuple[str, str, str]:
        """An operation on one account, at the customer's home."""
        home = self._homes[customer % self._many]
        return home, operation, f'{{"user_id":"{kind}-{customer}{self._end}{amount}"}}'

    def moves(self, kind: str, payer: int, payee: int, amount: int) -> list[tuple[str, str, str]]:
        """An amount from the payer's account of a kind to the payee's checking."""
        return [
            self.does("debit_account", kind, payer, amount),
            self.does("credit_account", "checking", payee, amount),
        ]


def _balance(bank: _Bank, pick: Pick) -> Operations:
    customer = pick()
    return [
        bank.does(operation, kind, customer, 1)
        for kind in ("savings", "checking")
        for operation in ("lock_funds", "release_funds")
    ]


def _deposit_checking(bank: _Bank, pick: Pick) -> Operations:
    return [bank.does("credit_account", "checking", pick(), 5)]


def _pay_in_savings(bank: _Bank, pick: Pick) -> Operations:
    return [bank.does("credit_account", "savings", pick(), 20)]


def _take_out_savings(bank: _Bank, pick: Pick) -> Operations:
    return [bank.does("debit_account", "savings", pick(), 20)]


def _amalgamate(bank: _Bank, pick: Pick) -> Operations:
    payer, payee = _two(pick)
    return [*bank.moves("savings", payer, payee, 5), *bank.moves("checking", payer, payee, 5)]


def _write_check(bank: _Bank, pick: Pick) -> Operations:
    return [bank.does("debit_account", "checking", pick(), 5)]


def _send_payment(bank: _Bank, pick: Pick) -> Operations:
    return bank.moves("checking", *_two(pick), 5)


def _two(pick: Pick) -> tuple[int, int]:
    """Two customers who are not the same."""
    first = pick()
    while (second := pick()) == first:
        pass
    return first, second


# Of forty: 15 % each but SendPayment, which is 25 %; TransactSavings in two halves.
_MIX: Final[tuple[Procedure, ...]] = (
    *[_balance] * 6,
    *[_deposit_checking] * 6,
    *[_pay_in_savings] * 3,
    *[_take_out_savings] * 3,
    *[_amalgamate] * 6,
    *[_write_check] * 6,
    *[_send_payment] * 10,
)
