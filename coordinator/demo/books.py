"""The books, to the last satoshi: what came in, what left, what is there, and whose it is, over all ledgers at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from coordinator.demo.orders import FEES
from coordinator.demo.record import Intent
from coordinator.demo.snapshot import Snapshot

COINS: Final = "BTC"
_NONE: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class CurrencyBook:
    """One currency: the world outside, and whose the money is. ``difference`` must be nothing.

    What came in, less what was paid out and what the chain took, is held outside. It belongs to users and the house,
    or to nobody yet (``unclaimed``: transfers that were not credited); the chain's fees are the exchange's cost.
    """

    currency: str
    came: Decimal
    paid: Decimal
    chain_fees: Decimal
    held: Decimal
    users: Decimal
    house: Decimal
    unclaimed: Decimal

    @property
    def difference(self) -> Decimal:
        """What nobody can explain."""
        return self.held + self.chain_fees - self.users - self.house - self.unclaimed


def currency_books(snapshot: Snapshot) -> list[CurrencyBook]:
    """The books of every currency that banks or the chain have moved."""
    books: list[CurrencyBook] = []
    for currency in (*sorted(snapshot.bank), COINS):
        moves = snapshot.chain_moves if currency == COINS else snapshot.bank_moves
        credited = sum((move.amount for move in moves if move.currency == currency and move.kind == "DEPOSIT"), _NONE)
        mine = [account for account in snapshot.accounts if account.currency == currency]
        if currency == COINS:
            came, paid = snapshot.chain["deposited"], snapshot.chain["paid"]
            fees, held = snapshot.chain["fees"], snapshot.chain["held"]
        else:
            came, paid = Decimal(snapshot.bank[currency]["in"]), Decimal(snapshot.bank[currency]["out"])
            fees, held = _NONE, came - paid
        books.append(
            CurrencyBook(
                currency=currency,
                came=came,
                paid=paid,
                chain_fees=fees,
                held=held,
                users=sum((account.balance for account in mine if account.user_id != FEES), _NONE),
                house=sum((account.balance for account in mine if account.user_id == FEES), _NONE),
                unclaimed=came - credited,
            )
        )
    return books


def broken_books(snapshot: Snapshot, told: Mapping[str, Intent]) -> Iterator[str]:
    """What does not add up, a sentence each."""
    for book in currency_books(snapshot):
        if book.difference:
            yield f"MONEY_NOT_CONSERVED {book.currency}: {book.difference:f} cannot be explained"
        if book.held != book.came - book.paid - book.chain_fees:
            yield f"OUTSIDE_NOT_CONSERVED {book.currency}: {book.held:f} is held"
        if book.unclaimed != (refused := _told_uncredited(told, book.currency)):
            yield (
                f"UNCLAIMED_NOT_EXPLAINED {book.currency}: {book.unclaimed:f} came in and is not credited, "
                f"and clients were told so of {refused:f}"
            )
    if (booked := sum((move.fee for move in snapshot.chain_moves), _NONE)) != snapshot.chain["fees"]:
        yield f"FEES_NOT_BOOKED {COINS}: the wallet has {booked:f}, and the chain took {snapshot.chain['fees']:f}"
    yield from _wrong_accounts(snapshot, told)
    yield from _wrong_fills(snapshot)


def _wrong_accounts(snapshot: Snapshot, told: Mapping[str, Intent]) -> Iterator[str]:
    """Each account at the bookkeeper is what the four other ledgers, and its own transfers, make it."""
    wanted: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for move in (*snapshot.bank_moves, *snapshot.chain_moves):
        wanted[move.user_id, move.currency] += move.amount
    for position in snapshot.positions:
        wanted[position.user_id, position.currency] += position.balance
    for user, currency, amount in _told_transfers(told):
        wanted[user, currency] += amount
    for account in snapshot.accounts:
        expected = wanted.pop((account.user_id, account.currency), _NONE)
        if account.balance != expected:
            yield (
                f"ACCOUNT_NOT_EXPLAINED {account.user_id} {account.currency}: has {account.balance:f}, "
                f"and all ledgers together say {expected:f}"
            )
        if account.held:
            yield f"MONEY_HELD {account.user_id} {account.currency}: {account.held:f}, for nobody"
    for (user, currency), amount in wanted.items():
        if amount:
            yield f"ACCOUNT_MISSING {user} {currency}: should have {amount:f}"


def _told_uncredited(told: Mapping[str, Intent], currency: str) -> Decimal:
    """Money that came in from outside, and of which clients were told that it is not credited."""
    refused = (each.asked for each in told.values() if each.what == "bank deposit" and each.state == "COMPENSATED")
    return sum((Decimal(asked["amount"]) for asked in refused if asked["currency"] == currency), _NONE)


def _told_transfers(told: Mapping[str, Intent]) -> Iterator[tuple[str, str, Decimal]]:
    """Money that moved within the bookkeeper, as clients were told: transfers, fees, and what was given back."""
    for intent in told.values():
        if intent.state != "COMMITTED":
            continue
        for _service, operation, given in intent.asked["operations"]:
            if operation == "transfer_funds":
                amount = Decimal(given["amount"])
                yield given["from_user_id"], given["currency"], -amount
                yield given["to_user_id"], given["currency"], amount
            elif operation == "credit_account" and intent.what == "given back":
                yield given["user_id"], given["currency"], Decimal(given["amount"])


def _wrong_fills(snapshot: Snapshot) -> Iterator[str]:
    """Every fill is settled once, as it was filled, and nothing else is."""
    settled = {trade.trade_id: trade for trade in snapshot.trades}
    for fill in snapshot.fills:
        trade = settled.pop(fill.trade_id, None)
        if trade is None or trade.status != "SETTLED":
            yield f"FILL_NOT_SETTLED {fill.trade_id}: {'unknown to settlement' if trade is None else trade.status}"
        elif any(getattr(fill, name) != getattr(trade, name) for name in _AGREED):
            yield f"FILL_SETTLED_DIFFERENTLY {fill.trade_id}: {fill} against {trade}"
    for trade_id in settled:
        yield f"SETTLED_WITHOUT_FILL {trade_id}"


_AGREED: Final = ("symbol", "amount", "price", "buyer_id", "seller_id", "buy_order_id", "sell_order_id")
