"""The mixed workload: what an exchange is asked all day, over the five participants that ship with the system.

Each transaction is of operations that its participants' callers send together, as in the built-in workflows:

- Order: money is locked at the bookkeeper, and an order for it placed at trading. Half of the orders wait in the
  book, and half take what waits there.
- Trade: settlement settles it, and the bookkeeper moves both legs out of locked money.
- Transfer: money moves between two users at the bookkeeper.
- Bank deposit: fiat records what the bank told of, and the bookkeeper credits it.
- Bank withdrawal: fiat reserves it, and the bookkeeper locks the money.
- Coin deposit: the wallet records an output, and the bookkeeper credits it.
- Coin withdrawal: the wallet reserves it, the bookkeeper locks the coins, and fiat is asked whether the user may.

What is different here from the workflows, since a load hears nothing of its earlier transactions: a trade is not one
of the fills that trading made of the orders, but as large as they are; withdrawals stay reserved, as those do that wait
for a person; and so no bank and no chain is told of anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Final, NamedTuple

from participant_sdk.load.transfers import Operations
from participant_sdk.operations import OperationLike

# Traded against the currency, and paid in and out. No node is connected to its chain, and its addresses are the
# same on every network: the wallet may be a development system's or another's.
COIN: Final = "ETH"
ADDRESS: Final = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
# The example of the standard, which every check takes.
IBAN: Final = "DE89370400440532013000"
BANK_AMOUNT: Final = "10"
COIN_AMOUNT: Final = "0.01"
ORDER_AMOUNT: Final = "0.1"

# An order costs a tenth of its price, so in a currency with decimals nothing is rounded.
MIDDLE_PRICE: Final = 2_000
# How far from the middle the orders in the book stand, at most. Whoever takes accepts the worst of these prices, and
# finds as many orders as wait on either side: the book stays about as deep as it is.
SPREAD: Final = 20

# Users without any money, who ask as others do and are refused. Every thirtieth time that somebody is to pay: an
# exchange's own checks stop nearly all such requests before, and those that come are a race or a mistake.
PENNILESS: Final = 10
PENNILESS_SHARE: Final = 0.03


class Names(NamedTuple):
    """What the five participants are called."""

    bookkeeper: str = "bookkeeper"
    trading: str = "trading"
    settlement: str = "settlement"
    fiat: str = "fiat"
    wallet: str = "wallet"


SHIPPED: Final = Names()


@dataclass(frozen=True, slots=True)
class Mixed:
    """The mix, by users "trader-0" to "trader-(traders - 1)", at least two, and a few who have nothing.

    ``run`` is in the names of everything that may be recorded once: trades, withdrawals, outputs, bank transfers. So
    the same seed and run are the same transactions, and each run needs a name of its own. The bank has told fiat of
    ``transfers`` transfers, as ``bank_reference`` names them; where they are used up, coins come in instead.
    """

    names: Names
    traders: int
    transfers: int = 0
    currency: str = "USD"
    seed: int = 0
    run: str = ""

    def __iter__(self) -> Iterator[Operations]:
        drawn = random.Random(self.seed).random  # noqa: S311  Load, not secrets.
        desk = Desk(self, drawn)
        kinds = len(_MIX)
        while True:
            yield _MIX[int(drawn() * kinds)](desk)

    def bank_reference(self, number: int) -> str:
        """By which the bank, and a deposit, name the transfer of this number, from 0."""
        return f"{self.run}-{number}"

    def tx_hash(self, purpose: str, number: int) -> str:
        """A transaction of the chain that nobody else has."""
        return f"0x{sha256(f'{self.run}/{purpose}'.encode()).hexdigest()[:32]}{number:032x}"


class Desk:
    """Where the transactions are written. Not frozen: it counts what it wrote."""

    __slots__ = ("_drawn", "_mixed", "_money", "_next", "_symbol", "_transfers")

    def __init__(self, mixed: Mixed, drawn: Callable[[], float]) -> None:
        self._mixed = mixed
        self._drawn = drawn
        self._symbol = f"{COIN}/{mixed.currency}"
        self._money = f'"currency":"{mixed.currency}"'
        self._next = count().__next__
        self._transfers = iter(range(mixed.transfers))

    def order(self) -> Operations:
        """An order, waiting or taking, and the money for it."""
        user, is_buy, takes = self._payer(), self._drawn() < 0.5, self._drawn() < 0.5
        off = SPREAD if takes else 1 + int(self._drawn() * SPREAD)
        # Those that wait stand below the middle to buy and above it to sell, those that take accept the reverse.
        price = MIDDLE_PRICE + off if is_buy == takes else MIDDLE_PRICE - off
        locked = f'{self._money},"amount":"{_tenth(price)}"' if is_buy else _coins(ORDER_AMOUNT)
        placing = (
            f'{{"user_id":"{user}","symbol":"{self._symbol}","side":"{"buy" if is_buy else "sell"}",'
            f'"amount":"{ORDER_AMOUNT}","price":"{price}","time_in_force":"{"ioc" if takes else "gtc"}"}}'
        )
        return [self._books("lock_funds", user, locked), (self._mixed.names.trading, "place_order", placing)]

    def trade(self) -> Operations:
        """A trade settled, both of its legs moved."""
        buyer, seller = self._two()
        price = MIDDLE_PRICE - SPREAD + int(self._drawn() * (2 * SPREAD + 1))
        trade_id = f"{self._mixed.run}-{self._next()}"
        trade = (
            f'{{"trade_id":"{trade_id}","symbol":"{self._symbol}","buyer_id":"{buyer}","seller_id":"{seller}",'
            f'"amount":"{ORDER_AMOUNT}","price":"{price}","quote_amount":"{_tenth(price)}"}}'
        )
        why = f',"description":"trade {trade_id}"'
        return [
            (self._mixed.names.settlement, "settle_trade", trade),
            self._books("open_account", buyer, f'"currency":"{COIN}","if_absent":true'),
            self._books("open_account", seller, f'{self._money},"if_absent":true'),
            self._moves("capture_funds", buyer, seller, f'{self._money},"amount":"{_tenth(price)}"{why}'),
            self._moves("capture_funds", seller, buyer, f"{_coins(ORDER_AMOUNT)}{why}"),
        ]

    def transfer(self) -> Operations:
        """Money from one user to another."""
        _, payee = self._two()
        payer = self._payer()
        while payer == payee:
            payer = self._payer()
        return [self._moves("transfer_funds", payer, payee, f'{self._money},"amount":"1"')]

    def bank_deposit(self) -> Operations:
        """Bank money that was told of, recorded and credited; or coins, if there is no more of it."""
        number = next(self._transfers, None)
        if number is None:
            return self.coin_deposit()
        user, told = self._trader(), f'{self._money},"amount":"{BANK_AMOUNT}"'
        deposit = f'{{"user_id":"{user}",{told},"bank_reference":"{self._mixed.bank_reference(number)}"}}'
        return [(self._mixed.names.fiat, "record_deposit", deposit), self._books("credit_account", user, told)]

    def bank_withdrawal(self) -> Operations:
        """Money reserved to leave for a bank account."""
        user, asked = self._payer(), f'{self._money},"amount":"{BANK_AMOUNT}"'
        withdrawal = f'{{"user_id":"{user}",{asked},"iban":"{IBAN}","account_holder":"{user}"}}'
        return [(self._mixed.names.fiat, "reserve_withdrawal", withdrawal), self._books("lock_funds", user, asked)]

    def coin_deposit(self) -> Operations:
        """An output of the chain, recorded and credited."""
        user, coins = self._trader(), _coins(COIN_AMOUNT)
        deposit = record_of(user, coins, self._mixed.tx_hash("load", self._next()))
        return [(self._mixed.names.wallet, "record_deposit", deposit), self._books("credit_account", user, coins)]

    def coin_withdrawal(self) -> Operations:
        """Coins reserved to leave for an address, of a user who may."""
        user, coins = self._payer(), _coins(COIN_AMOUNT)
        named = f'"withdrawal_id":"{self._mixed.run}-{self._next()}","address":"{ADDRESS}"'
        return [
            (self._mixed.names.fiat, "check_compliance", f'{{"user_id":"{user}"}}'),
            (self._mixed.names.wallet, "reserve_withdrawal", f'{{"user_id":"{user}",{coins},{named}}}'),
            self._books("lock_funds", user, coins),
        ]

    def _trader(self) -> str:
        return f"trader-{int(self._drawn() * self._mixed.traders)}"

    def _payer(self) -> str:
        """Whoever is to pay: a trader, mostly."""
        if self._drawn() < PENNILESS_SHARE:
            return f"penniless-{int(self._drawn() * PENNILESS)}"
        return self._trader()

    def _two(self) -> tuple[str, str]:
        """Two traders who are not the same."""
        first = self._trader()
        while (second := self._trader()) == first:
            pass
        return first, second

    def _books(self, operation: str, user: str, members: str) -> OperationLike:
        return self._mixed.names.bookkeeper, operation, f'{{"user_id":"{user}",{members}}}'

    def _moves(self, operation: str, payer: str, payee: str, members: str) -> OperationLike:
        return (
            self._mixed.names.bookkeeper,
            operation,
            f'{{"from_user_id":"{payer}","to_user_id":"{payee}",{members}}}',
        )


def record_of(user: str, coins: str, tx_hash: str) -> str:
    """What the wallet is told of an output; ``coins`` are its members for currency and amount."""
    return f'{{"user_id":"{user}",{coins},"tx_hash":"{tx_hash}","output_index":0,"address":"{ADDRESS}"}}'


def _coins(amount: str) -> str:
    return f'"currency":"{COIN}","amount":"{amount}"'


def _tenth(price: int) -> str:
    """What an order, or a trade, at this price comes to."""
    return f"{price // 10}.{price % 10}"


# Of a hundred transactions. Orders are most of what an exchange is asked; two of them make a trade, so that as much
# money is locked as trades take. Users pay each other less often than they trade; money comes in and goes out more
# rarely still, more in than out, and coins more readily than bank money.
SHARES: Final[dict[Callable[[Desk], Operations], int]] = {
    Desk.order: 40,
    Desk.trade: 20,
    Desk.transfer: 15,
    Desk.bank_deposit: 7,
    Desk.bank_withdrawal: 4,
    Desk.coin_deposit: 8,
    Desk.coin_withdrawal: 6,
}
_MIX: Final = tuple(kind for kind, share in SHARES.items() for _ in range(share))
# Of so many transactions so many record a bank transfer, while there are any.
ALL: Final = len(_MIX)
BANK_DEPOSITS: Final = SHARES[Desk.bank_deposit]
