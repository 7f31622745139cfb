"""Workloads: which operations they consist of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from itertools import islice

from participant_sdk.load import Operations, SmallBank, SplitTransfers, Transfers
from participant_sdk.load.money import net_inflow

MANY = 4_000


def read(operations: Operations) -> list[tuple[str, str, str, Decimal]]:
    """Each operation as participant, name, user and amount."""
    written = [(service, name, json.loads(str(parameters))) for service, name, parameters in operations]
    return [(service, name, each["user_id"], Decimal(each["amount"])) for service, name, each in written]


def test_transfers_move_one_unit_between_two_participants_accounts() -> None:
    transfers = Transfers("one", "other", accounts=3, seed=7)
    for operations in islice(transfers, 20):
        (debited, debit, payer, taken), (credited, credit, payee, given) = read(operations)
        assert (debited, debit, credited, credit) == ("one", "debit_account", "other", "credit_account")
        assert {payer, payee} <= {"0", "1", "2"}
        assert taken == given == 1
    assert sorted(transfers.holders()) == sorted((name, user) for name in ("one", "other") for user in "012")


def test_split_transfers_give_each_other_participant_a_unit() -> None:
    split = SplitTransfers(("a", "b", "c"), accounts=2)
    for operations in islice(split, 20):
        assert [(service, name, amount) for service, name, _, amount in read(operations)] == [
            ("a", "debit_account", 2),
            ("b", "credit_account", 1),
            ("c", "credit_account", 1),
        ]
        assert net_inflow(operations) == 0
    assert len(list(split.holders())) == 6


KINDS: Mapping[tuple[str, ...], str] = {
    ("lock savings", "release savings", "lock checking", "release checking"): "Balance",
    ("credit checking",): "DepositChecking",
    ("credit savings",): "TransactSavings",
    ("debit savings",): "TransactSavings",
    ("debit savings", "credit checking", "debit checking", "credit checking"): "Amalgamate",
    ("debit checking",): "WriteCheck",
    ("debit checking", "credit checking"): "SendPayment",
}


def kind_of(operations: Operations) -> str:
    """The procedure that these are, by its operations and accounts."""
    return KINDS[tuple(f"{name.partition('_')[0]} {user.partition('-')[0]}" for _, name, user, _ in read(operations))]


def test_smallbank_has_its_six_procedures_in_their_shares() -> None:
    """15 % each, but SendPayment 25 %: of 4,000 the deviation is at most 28."""
    counted = Counter(map(kind_of, islice(SmallBank(("a", "b"), customers=50), MANY)))
    shares = {"SendPayment": 0.25}
    for kind in ("Balance", "DepositChecking", "TransactSavings", "Amalgamate", "WriteCheck", "SendPayment"):
        assert abs(counted[kind] - shares.get(kind, 0.15) * MANY) < 140, kind


def test_smallbank_moves_money_without_making_any() -> None:
    """Balance, Amalgamate and SendPayment keep it; what the others bring in and take out is even, on average."""
    taken: Counter[str] = Counter()
    for operations in islice(SmallBank(("a", "b"), customers=50), MANY):
        kind, net = kind_of(operations), net_inflow(operations)
        taken[kind] += int(net)
        if kind in {"Balance", "Amalgamate", "SendPayment"}:
            assert net == 0
    assert taken["DepositChecking"] > 0 > taken["WriteCheck"]
    assert abs(sum(taken.values())) < 0.2 * taken["DepositChecking"] + 2_500


def test_smallbank_keeps_both_accounts_of_a_customer_together_and_spreads_customers() -> None:
    """Procedures of two customers so span two participants half of the time, and never name one customer twice."""
    spans: Counter[int] = Counter()
    for operations in islice(SmallBank(("a", "b"), customers=20), MANY):
        steps = read(operations)
        assert all(service == "ab"[int(user.partition("-")[2]) % 2] for service, _, user, _ in steps)
        customers = {user.partition("-")[2] for _, _, user, _ in steps}
        if kind_of(operations) in {"Amalgamate", "SendPayment"}:
            assert len(customers) == 2
            spans[len({service for service, *_ in steps})] += 1
    assert 0.4 < spans[2] / spans.total() < 0.65
    homes = dict.fromkeys(SmallBank(("a", "b"), customers=3).holders())
    assert list(homes) == [
        ("a", "savings-0"),
        ("a", "checking-0"),
        ("b", "savings-1"),
        ("b", "checking-1"),
        ("a", "savings-2"),
        ("a", "checking-2"),
    ]


def test_a_hot_spot_is_picked_nine_times_of_ten() -> None:
    picked: Counter[bool] = Counter()
    for operations in islice(SmallBank(("a",), customers=1_000, hot_spot=10), MANY):
        if kind_of(operations) == "DepositChecking":
            ((_, _, user, _),) = read(operations)
            picked[int(user.partition("-")[2]) < 10] += 1
    assert 0.86 < picked[True] / picked.total() < 0.95
