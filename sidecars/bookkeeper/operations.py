"""What the bookkeeper is asked to do, and the ledger entries that it comes to.

Each operation becomes one row: the amount leaves one account and reaches another. How much of it
must be reserved, the ``draw``, depends on the operations before it in the branch: money that the
branch brings in first needs no reservation. So that is worked out here, exactly, and the
database has only to add up draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from enum import IntEnum
from importlib.resources import files
from json.encoder import encode_basestring_ascii as quoted
from typing import Final, NamedTuple

from participant_sdk.currencies import Currency, check_scale
from participant_sdk.parameters import EXACT, Amount, Note, Parameters, RefusedError, UserId
from participant_sdk.resources.reservation import ReservationService
from participant_sdk.resources.reservation_batch import Planned
from participant_sdk.resources.reservation_planning import Place, Planner
from participant_sdk.xa import business_no
from sidecars.reads import check_reads_alone

OUTSIDE: Final = ""
_NOTHING: Final = Decimal(0)


class EntryKind(IntEnum):
    """What an entry records, or asks. The numbers are the SQL's; what takes money stands together."""

    OPEN_IF_ABSENT = 0
    OPEN = 1
    CREDIT = 2
    DEBIT = 3
    LOCK = 4
    RELEASE = 5
    TRANSFER = 6
    CAPTURE = 7
    BALANCE = 8


_FROM_LOCKED: Final = (EntryKind.RELEASE, EntryKind.CAPTURE)
# A member of an enum is found by a call each time; nearly every branch asks for these.
_CREDIT: Final = EntryKind.CREDIT
_DEBIT: Final = EntryKind.DEBIT
_CAPTURE: Final = EntryKind.CAPTURE
_DIGITS: Final = tuple(str(int(kind)) for kind in EntryKind)


class Account(Parameters):
    """Whose account, in which currency."""

    user_id: UserId
    currency: Currency


class Opening(Account):
    """An account to be. ``if_absent`` is content with one that is open already."""

    if_absent: bool = False


class Money(Parameters):
    """An amount at one account."""

    user_id: UserId
    currency: Currency
    amount: Amount


class Transfer(Parameters):
    """An amount from one user to another."""

    from_user_id: UserId
    to_user_id: UserId
    currency: Currency
    amount: Amount
    description: Note | None = None


class Entry(NamedTuple):
    """An entry to be: from the debited user to the credited one; OUTSIDE stands for the world."""

    kind: EntryKind
    debited: str
    credited: str
    currency: str
    amount: Decimal
    description: str | None = None


def _planned(entries: Sequence[Entry]) -> Planned:
    """Work out what each of a branch's entries draws."""
    if len(entries) == 1:
        # Nearly every branch: nothing comes before it that could pay for it.
        entry = entries[0]
        return Planned((_row(entry, 0, entry.amount if _takes_money(entry) else _NOTHING),))
    check_reads_alone([entry.kind is EntryKind.BALANCE for entry in entries])
    needed = _needed(entries)
    draws = _draws([entry for _, entry in needed])
    return Planned(tuple([_row(entry, index, draw) for (index, entry), draw in zip(needed, draws, strict=True)]))


_planner: Final = Planner(_planned)


@_planner.operation("open_account")
def _open_account(opening: Opening, _: Place) -> Entry:
    kind = EntryKind.OPEN_IF_ABSENT if opening.if_absent else EntryKind.OPEN
    return Entry(kind, opening.user_id, opening.user_id, opening.currency, _NOTHING)


@_planner.operation("credit_account")
def _credit_account(money: Money, at: Place) -> Entry:
    return _entry(_CREDIT, OUTSIDE, money.user_id, money, at)


@_planner.operation("debit_account")
def _debit_account(money: Money, at: Place) -> Entry:
    return _entry(_DEBIT, money.user_id, OUTSIDE, money, at)


@_planner.operation("lock_funds")
def _lock_funds(money: Money, at: Place) -> Entry:
    return _entry(EntryKind.LOCK, money.user_id, money.user_id, money, at)


@_planner.operation("release_funds")
def _release_funds(money: Money, at: Place) -> Entry:
    return _entry(EntryKind.RELEASE, money.user_id, money.user_id, money, at)


@_planner.operation("transfer_funds")
def _transfer_funds(transfer: Transfer, at: Place) -> Entry:
    return _between(EntryKind.TRANSFER, transfer, at)


@_planner.operation("capture_funds")
def _capture_funds(transfer: Transfer, at: Place) -> Entry:
    return _between(EntryKind.CAPTURE, transfer, at)


@_planner.operation("account_balance")
def _account_balance(account: Account, _: Place) -> Entry:
    return Entry(EntryKind.BALANCE, account.user_id, account.user_id, account.currency, _NOTHING)


def _between(kind: EntryKind, transfer: Transfer, at: Place) -> Entry:
    check_scale(transfer.amount, transfer.currency, at.number, "amount")
    if transfer.from_user_id == transfer.to_user_id:
        raise at.refuse("to_user_id", "is the user whom the money comes from")
    return Entry(
        kind,
        transfer.from_user_id,
        transfer.to_user_id,
        transfer.currency,
        transfer.amount,
        transfer.description,
    )


def _entry(kind: EntryKind, debited: str, credited: str, money: Money, at: Place) -> Entry:
    check_scale(money.amount, money.currency, at.number, "amount")
    return Entry(kind, debited, credited, money.currency, money.amount)


def _needed(entries: Sequence[Entry]) -> list[tuple[int, Entry]]:
    """Number the entries, without openings of what the branch itself has used before: operations act in order.

    RefusedError for an account that the branch uses before it opens it, or opens twice, unless if absent.
    """
    used: dict[tuple[str, str], None] = {}
    needed: list[tuple[int, Entry]] = []
    for index, entry in enumerate(entries):
        if entry.kind <= EntryKind.OPEN and (entry.credited, entry.currency) in used:
            if entry.kind is EntryKind.OPEN_IF_ABSENT:
                continue
            raise RefusedError(
                business_no(
                    "ACCOUNT_EXISTS",
                    f"user {entry.credited} has, or needs, an account in {entry.currency} before this opens it",
                    field=f"operations[{index}].parameters.user_id",
                )
            )
        used[entry.debited, entry.currency] = None
        used[entry.credited, entry.currency] = None
        needed.append((index, entry))
    return needed


def _takes_money(entry: Entry) -> bool:
    return _DEBIT <= entry.kind <= _CAPTURE


def _draws(entries: Sequence[Entry]) -> list[Decimal]:
    """How much each entry takes from what was there before the branch.

    For each account, free and locked money apart, follow what the branch has brought in so far;
    what an entry takes beyond that, it draws.
    """
    brought: dict[tuple[str, str, bool], Decimal] = {}
    draws: list[Decimal] = []
    for entry in entries:
        draw = _NOTHING
        if _takes_money(entry):
            source = (entry.debited, entry.currency, entry.kind in _FROM_LOCKED)
            left = EXACT.subtract(brought.get(source, _NOTHING), entry.amount)
            draw = max(_NOTHING, EXACT.minus(left))
            brought[source] = max(_NOTHING, left)
        if entry.kind > EntryKind.OPEN and entry.kind is not EntryKind.DEBIT:
            target = (entry.credited, entry.currency, entry.kind is EntryKind.LOCK)
            brought[target] = EXACT.add(brought.get(target, _NOTHING), entry.amount)
        draws.append(draw)
    return draws


def _row(entry: Entry, index: int, draw: Decimal) -> str:
    """Write the row as the ledger's SQL reads it; see ``migrations/0002_reservation.sql`` and what follows it."""
    said = "" if entry.description is None else f',"s":{quoted(entry.description)}'
    return (
        f'"o":{index},"k":{_DIGITS[entry.kind]},"f":{quoted(entry.debited)},"t":{quoted(entry.credited)},'
        f'"c":"{entry.currency}","a":{entry.amount:f},"d":{draw:f}{said}'
    )


SERVICE: Final = ReservationService(
    schema="bookkeeper",
    migrations=files("sidecars.bookkeeper") / "migrations",
    invariants=files("sidecars.bookkeeper") / "invariants.sql",
    operations=_planner.names,
    plan=_planner.plan,
)
