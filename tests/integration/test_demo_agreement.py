"""The final balance of a trading day notices whatever is wrong, down to a satoshi or a cent, wherever it reads.

A small day that is sound: Bob brings 1,000 dollars and Ann half a coin; he buys 0.1 of it for 500, of which she leaves
0.50; she has 200 dollars paid out, he 0.05 coins; he gives her 10 dollars, and the bank rejects a payment of 20
to him, which he is given back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal as D  # noqa: N817  Books are full of them.
from typing import Any, Final
from uuid import UUID

import pytest

from coordinator.demo.agreement import broken_promises
from coordinator.demo.books import broken_books, currency_books
from coordinator.demo.orders import FEES
from coordinator.demo.record import Intent, Notice
from coordinator.demo.snapshot import COMMITTED, Account, Branch, Decision, Fill, Move, Ran, Snapshot

CENT: Final = D("0.01")
SATOSHI: Final = D("0.00000001")
ROLLED_BACK: Final = 4
IN_DOUBT: Final = 2
PREPARED: Final = 1
ADDRESS: Final = "mAddress"

Told = dict[str, Intent]


@dataclass(frozen=True)
class World:
    """What the databases and both companies hold, and what clients were told."""

    snapshot: Snapshot
    told: Mapping[str, Intent]
    heard: Sequence[Notice]

    def broken(self) -> set[str]:
        """The first words of all that is found wrong."""
        found = [*broken_books(self.snapshot, self.told), *broken_promises(self.snapshot, self.told, self.heard)]
        return {each.split()[0] for each in found}


Change = Callable[[World], World]


def xid(number: int) -> UUID:
    return UUID(int=number)


def transfer(payer: str, payee: str, amount: str) -> list[Any]:
    given = {"from_user_id": payer, "to_user_id": payee, "currency": "USD", "amount": amount}
    return ["bookkeeper", "transfer_funds", given]


def withdrawal(user: str, amount: str) -> list[list[Any]]:
    money = {"user_id": user, "currency": "USD", "amount": amount}
    return [
        ["bookkeeper", "debit_account", money],
        transfer(user, FEES, "1.00"),
        ["fiat", "reserve_withdrawal", {**money, "withdrawal_id": f"out-{user}"}],
    ]


def credited(user: str, currency: str, amount: str) -> list[Any]:
    return ["bookkeeper", "credit_account", {"user_id": user, "currency": currency, "amount": amount}]


# What was asked for in each transaction, by request_id, and what it was for.
TRANSACTIONS: Final[dict[str, tuple[str, list[list[Any]]]]] = {
    "coins-in": (
        "coin deposit",
        [
            ["wallet", "record_deposit", {"user_id": "ann", "currency": "BTC", "amount": "0.5"}],
            credited("ann", "BTC", "0.5"),
        ],
    ),
    "ann-out": ("bank withdrawal", withdrawal("ann", "200.00")),
    "bob-out": ("bank withdrawal", withdrawal("bob", "20.00")),
    "back": ("given back", [credited("bob", "USD", "20.00")]),
    "gift": ("transfer", [transfer("bob", "ann", "10.00")]),
}
WORKFLOWS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "money-in": ("bank deposit", {"user_id": "bob", "currency": "USD", "amount": "1000.00"}),
    "coins-out": (
        "coin withdrawal",
        {"user_id": "bob", "currency": "BTC", "amount": "0.05", "address": ADDRESS},
    ),
}


def sound() -> World:
    fill = Fill("t", "BTC/USD", D("0.1"), D(5000), "bob", "ann", "1", "2", "FILLED")
    numbers = dict(zip(TRANSACTIONS, range(1, 10), strict=False))
    services = {name: sorted({each[0] for each in asked}) for name, (_, asked) in TRANSACTIONS.items()}
    snapshot = Snapshot(
        accounts=[
            Account("ann", "USD", D("308.50"), D(0)),
            Account("bob", "USD", D("489.00"), D(0)),
            Account(FEES, "USD", D("2.50"), D(0)),
            Account("ann", "BTC", D("0.4"), D(0)),
            Account("bob", "BTC", D("0.05"), D(0)),
        ],
        bank_moves=[
            Move("bob", "USD", D("1000.00"), "in-bob", "DEPOSIT"),
            Move("ann", "USD", D("-200.00"), "out-ann", "PAID"),
            Move("bob", "USD", D("-20.00"), "out-bob", "REJECTED"),
        ],
        chain_moves=[
            Move("ann", "BTC", D("0.5"), "in", "DEPOSIT"),
            Move("bob", "BTC", D("-0.05"), "out", "COMPLETED", fee=D("0.0001")),
        ],
        fills=[fill],
        trades=[replace(fill, status="SETTLED")],
        positions=[
            Account("bob", "BTC", D("0.1"), D(0)),
            Account("bob", "USD", D(-500), D(0)),
            Account("ann", "BTC", D("-0.1"), D(0)),
            Account("ann", "USD", D("499.50"), D(0)),
            Account(FEES, "USD", D("0.50"), D(0)),
        ],
        branches={
            service: [
                Branch(xid(numbers[name]), COMMITTED, PREPARED) for name in TRANSACTIONS if service in services[name]
            ]
            for service in ("bookkeeper", "fiat", "wallet")
        },
        decisions=[Decision(xid(number), True, services[name], name) for name, number in numbers.items()],
        workflows=[Ran(xid(100 + at), "some kind", "COMPLETED", None, name) for at, name in enumerate(WORKFLOWS)],
        bank={"USD": {"in": "1000.00", "out": "200.00"}},
        chain={"deposited": D("0.5"), "paid": D("0.05"), "fees": D("0.0001"), "held": D("0.4499")},
        chain_paid=[(ADDRESS, D("0.05"))],
    )
    told = {
        name: Intent(name, what, {"operations": asked}, [{"state": "COMMITTED", "xid": str(xid(numbers[name]))}])
        for name, (what, asked) in TRANSACTIONS.items()
    }
    told |= {
        name: Intent(name, what, {"workflow": "some kind", **asked}, [{"state": "COMPLETED", "workflow_id": name}])
        for name, (what, asked) in WORKFLOWS.items()
    }
    return World(snapshot, told, [notice(), notice()])


def notice(notice_id: str = "n-1", amount: str = "1000", *, is_signed: bool = True) -> Notice:
    """What the webhook is told of Bob's deposit; it may be told more than once."""
    deposit = {"bank_reference": "in-bob", "user_id": "bob", "currency": "USD", "amount": amount}
    return Notice(notice_id, json.dumps({"type": "deposit.recorded", "data": deposit}), is_signed)


def heard(*notices: Notice) -> Change:
    """The webhook was told something else."""
    return lambda world: replace(world, heard=notices)


def test_a_sound_day_has_nothing_against_it() -> None:
    world = sound()
    assert world.broken() == set()
    assert [(book.currency, book.difference, book.unclaimed) for book in currency_books(world.snapshot)] == [
        ("USD", D(0), D(0)),
        ("BTC", D(0), D(0)),
    ]


# Ways to change a world in one place.


def less(field: str, at: int, name: str, by: D) -> Change:
    """A figure of one row, by so much less."""

    def change(world: World) -> World:
        rows = list(getattr(world.snapshot, field))
        rows[at] = replace(rows[at], **{name: getattr(rows[at], name) - by})
        return replace(world, snapshot=replace(world.snapshot, **{field: rows}))

    return change


def company(field: str, figures: Mapping[str, Any]) -> Change:
    """Other totals of the bank or of the chain."""

    def change(world: World) -> World:
        known = getattr(world.snapshot, field)
        return replace(world, snapshot=replace(world.snapshot, **{field: {**known, **figures}}))

    return change


def rows(field: str, edit: Callable[[list[Any]], list[Any]]) -> Change:
    """Other rows."""

    def change(world: World) -> World:
        edited = edit(list(getattr(world.snapshot, field)))
        return replace(world, snapshot=replace(world.snapshot, **{field: edited}))

    return change


def branches(service: str, edit: Callable[[list[Branch]], list[Branch]]) -> Change:
    """Other branches at one participant."""

    def change(world: World) -> World:
        edited = {**world.snapshot.branches, service: edit(list(world.snapshot.branches[service]))}
        return replace(world, snapshot=replace(world.snapshot, branches=edited))

    return change


def told(name: str, edit: Callable[[Intent], Intent]) -> Change:
    """Something else was told, or asked for, by one request."""
    return lambda world: replace(world, told={**world.told, name: edit(world.told[name])})


def asked(name: str, at: int, **given: str) -> Change:
    """A transaction was asked for with other parameters in one operation."""

    def edit(intent: Intent) -> Intent:
        operations = [list(each) for each in intent.asked["operations"]]
        operations[at][2] = {**operations[at][2], **given}
        return replace(intent, asked={"operations": operations})

    return told(name, edit)


def answers(*answers: dict[str, Any]) -> Callable[[Intent], Intent]:
    return lambda intent: replace(intent, told=list(answers))


def workflow_asked(name: str, **given: str) -> Change:
    return told(name, lambda intent: replace(intent, asked={**intent.asked, **given}))


LOST: Final = {"MONEY_NOT_CONSERVED"}
UNEXPLAINED: Final = {"ACCOUNT_NOT_EXPLAINED"}
OUTSIDE: Final = {"OUTSIDE_NOT_CONSERVED"}
MOVED: Final = {"MOVED_UNTOLD", "TOLD_UNMOVED"}
UNCLAIMED: Final = {"UNCLAIMED_NOT_EXPLAINED"}
NOTICED: Final = {"NOTICE_WITHOUT_DEPOSIT", "DEPOSIT_WITHOUT_NOTICE"}
PAID: Final = {"CHAIN_PAID_UNTOLD", "CHAIN_NOT_PAID"}

MISSING: Final[dict[str, tuple[Change, set[str]]]] = {
    "a user's dollars": (less("accounts", 0, "balance", CENT), LOST | UNEXPLAINED),
    "a user's coins": (less("accounts", 3, "balance", SATOSHI), LOST | UNEXPLAINED),
    "the house's fees": (less("accounts", 2, "balance", CENT), LOST | UNEXPLAINED),
    "what is not locked": (less("accounts", 0, "held", -CENT), {"MONEY_HELD"}),
    "an account": (rows("accounts", lambda all_: all_[:-1]), LOST | {"ACCOUNT_MISSING"}),
    "fiat's deposit": (less("bank_moves", 0, "amount", CENT), LOST | UNEXPLAINED | MOVED | UNCLAIMED | NOTICED),
    "what the webhook was told": (heard(notice(amount="999.99")), NOTICED),
    "fiat's payment": (less("bank_moves", 1, "amount", -CENT), UNEXPLAINED | MOVED),
    "fiat's rejected payment": (less("bank_moves", 2, "amount", -CENT), UNEXPLAINED | MOVED),
    "the wallet's deposit": (less("chain_moves", 0, "amount", SATOSHI), LOST | UNEXPLAINED | MOVED | UNCLAIMED),
    "the wallet's payment": (less("chain_moves", 1, "amount", -SATOSHI), UNEXPLAINED | MOVED),
    "the wallet's chain fee": (less("chain_moves", 1, "fee", SATOSHI), {"FEES_NOT_BOOKED"}),
    "settlement's position in coins": (less("positions", 0, "balance", SATOSHI), UNEXPLAINED),
    "settlement's position in dollars": (less("positions", 3, "balance", CENT), UNEXPLAINED),
    "settlement's fees": (less("positions", 4, "balance", CENT), UNEXPLAINED),
    "trading's fill": (less("fills", 0, "amount", SATOSHI), {"FILL_SETTLED_DIFFERENTLY"}),
    "settlement's trade": (less("trades", 0, "amount", SATOSHI), {"FILL_SETTLED_DIFFERENTLY"}),
    "settlement's price": (less("trades", 0, "price", CENT), {"FILL_SETTLED_DIFFERENTLY"}),
    "what the bank received": (company("bank", {"USD": {"in": "999.99", "out": "200.00"}}), UNCLAIMED),
    "what the bank paid": (company("bank", {"USD": {"in": "1000.00", "out": "199.99"}}), LOST),
    "what came on the chain": (company("chain", {"deposited": D("0.49999999")}), LOST | OUTSIDE | UNCLAIMED),
    "what the chain paid": (company("chain", {"paid": D("0.04999999")}), OUTSIDE),
    "what the chain took": (company("chain", {"fees": D("0.00009999")}), LOST | OUTSIDE | {"FEES_NOT_BOOKED"}),
    "what is on the chain": (company("chain", {"held": D("0.44989999")}), LOST | OUTSIDE),
    "what the chain paid to an address": (rows("chain_paid", lambda _: [(ADDRESS, D("0.04999999"))]), PAID),
    "a payment on the chain": (rows("chain_paid", lambda _: []), {"CHAIN_NOT_PAID"}),
    "a transfer as it was asked for": (asked("gift", 0, amount="9.99"), UNEXPLAINED),
    "a fee as it was asked for": (asked("ann-out", 1, amount="0.99"), UNEXPLAINED),
    "what was given back": (asked("back", 0, amount="19.99"), UNEXPLAINED),
    "a withdrawal as it was asked for": (asked("ann-out", 2, amount="199.99"), MOVED),
    "a coin deposit as it was asked for": (asked("coins-in", 0, amount="0.49999999"), MOVED),
    "a bank deposit as it was asked for": (workflow_asked("money-in", amount="999.99"), MOVED),
    "a coin withdrawal as it was asked for": (workflow_asked("coins-out", amount="0.04999999"), MOVED | PAID),
}


@pytest.mark.parametrize(("change", "found"), MISSING.values(), ids=MISSING.keys())
def test_a_satoshi_that_is_missing_anywhere_is_found(change: Change, found: set[str]) -> None:
    """Invariants 4, 5 and 6: in five ledgers, at both companies, and in what clients asked for."""
    assert change(sound()).broken() == found


def test_money_that_stays_unclaimed_is_what_was_told_not_to_be_credited() -> None:
    """A deposit that compliance refused: the bank has it, and nobody else."""
    world = sound()
    refused = Intent(
        "blocked",
        "bank deposit",
        {"workflow": "some kind", "user_id": "eve", "currency": "USD", "amount": "7.00"},
        [{"state": "COMPENSATED", "workflow_id": "blocked"}],
    )
    ran = Ran(xid(110), "some kind", "COMPENSATED", None, "blocked")
    world = World(
        replace(
            world.snapshot,
            bank={"USD": {"in": "1007.00", "out": "200.00"}},
            workflows=[*world.snapshot.workflows, ran],
        ),
        {**world.told, "blocked": refused},
        world.heard,
    )
    assert world.broken() == set()
    assert company("bank", {"USD": {"in": "1007.01", "out": "200.00"}})(world).broken() == UNCLAIMED


GIFT: Final = xid(5)
NOT_APPLIED: Final = {"DECISION_NOT_APPLIED"}


def gift_branch(**changed: Any) -> Callable[[list[Branch]], list[Branch]]:
    return lambda all_: [replace(each, **changed) if each.xid == GIFT else each for each in all_]


DIFFERENT: Final[dict[str, tuple[Change, set[str]]]] = {
    "a branch in doubt": (
        branches("bookkeeper", gift_branch(phase=IN_DOUBT)),
        NOT_APPLIED | {"BRANCH_NOT_ENDED"},
    ),
    "a branch rolled back": (branches("bookkeeper", gift_branch(phase=ROLLED_BACK)), NOT_APPLIED),
    "a branch lost": (branches("bookkeeper", lambda all_: [each for each in all_ if each.xid != GIFT]), NOT_APPLIED),
    "a branch that nobody decided": (
        branches("fiat", lambda all_: [*all_, Branch(xid(50), COMMITTED, PREPARED)]),
        {"COMMITTED_UNDECIDED"},
    ),
    "a decision lost": (
        rows("decisions", lambda all_: [each for each in all_ if each.xid != GIFT]),
        {"COMMITTED_UNDECIDED", "TOLD_OTHERWISE"},
    ),
    "a decision turned": (
        rows("decisions", lambda all_: [replace(each, is_commit=each.xid != GIFT) for each in all_]),
        {"COMMITTED_UNDECIDED", "TOLD_OTHERWISE"},
    ),
    "a request committed twice": (
        rows("decisions", lambda all_: [*all_, Decision(xid(51), True, [], "gift")]),
        {"REQUEST_COMMITTED_TWICE"},
    ),
    "a client never told": (told("back", answers()), {"NEVER_TOLD", "REFUSED_WITHOUT_REASON"} | UNEXPLAINED),
    "a client told otherwise": (
        told("gift", answers({"state": "ROLLED_BACK", "xid": str(GIFT)})),
        {"TOLD_OTHERWISE"} | UNEXPLAINED,
    ),
    "an answer that changed": (
        told("gift", answers({"state": "COMMITTED", "xid": str(xid(1))}, {"state": "COMMITTED", "xid": str(GIFT)})),
        {"ANSWER_CHANGED"},
    ),
    "what nothing stood in the way of": (
        lambda world: replace(
            world,
            told={**world.told, "open": Intent("open", "open", {"operations": []}, [{"state": "ROLLED_BACK"}])},
        ),
        {"REFUSED_WITHOUT_REASON"},
    ),
    "a workflow that goes on": (
        rows("workflows", lambda all_: [replace(all_[0], state="RUNNING"), *all_[1:]]),
        {"WORKFLOW_NOT_ENDED", "WORKFLOW_TOLD_OTHERWISE"},
    ),
    "a workflow that is stuck": (
        rows("workflows", lambda all_: [replace(all_[0], stuck="INTERNAL"), *all_[1:]]),
        {"WORKFLOW_NOT_ENDED"},
    ),
    "a workflow undone": (
        rows("workflows", lambda all_: [replace(all_[0], state="COMPENSATED"), *all_[1:]]),
        {"WORKFLOW_TOLD_OTHERWISE"},
    ),
    "a deposit that the webhook never heard of": (heard(), {"DEPOSIT_WITHOUT_NOTICE"}),
    "a deposit told under two ids": (heard(notice(), notice("n-2")), {"NOTICE_WITHOUT_DEPOSIT"}),
    "a notice that changed": (heard(notice(), notice(amount="1")), {"NOTICE_CHANGED"}),
    "a notice that is not signed": (heard(notice(), notice(is_signed=False)), {"NOTICE_FORGED"}),
    "a workflow lost": (rows("workflows", lambda all_: all_[1:]), {"WORKFLOW_LOST"}),
}


@pytest.mark.parametrize(("change", "found"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_whatever_is_not_as_it_was_told_is_found(change: Change, found: set[str]) -> None:
    """Invariants 1, 4, 5, 8, 9 and 11: branches, decisions, answers, workflows, and what the webhook was told."""
    assert change(sound()).broken() == found
