"""Workloads: which operations they consist of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from itertools import islice

from participant_sdk.load import Mixed, Operations, SmallBank, SplitTransfers, Transfers
from participant_sdk.load.mixed import COIN, PENNILESS_SHARE, SHIPPED, Names
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
        assert net_inflow(operations, "USD") == 0
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
        kind, net = kind_of(operations), net_inflow(operations, "USD")
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


MIXED_KINDS: Mapping[tuple[str, ...], str] = {
    ("bookkeeper.lock_funds", "trading.place_order"): "order",
    (
        "settlement.settle_trade",
        *["bookkeeper.open_account"] * 2,
        *["bookkeeper.capture_funds"] * 2,
    ): "trade",
    ("bookkeeper.transfer_funds",): "transfer",
    ("fiat.record_deposit", "bookkeeper.credit_account"): "bank deposit",
    ("fiat.reserve_withdrawal", "bookkeeper.lock_funds"): "bank withdrawal",
    ("wallet.record_deposit", "bookkeeper.credit_account"): "coin deposit",
    ("fiat.check_compliance", "wallet.reserve_withdrawal", "bookkeeper.lock_funds"): "coin withdrawal",
}
MIXED_SHARES: Mapping[str, float] = {
    "order": 0.4,
    "trade": 0.2,
    "transfer": 0.15,
    "bank deposit": 0.07,
    "bank withdrawal": 0.04,
    "coin deposit": 0.08,
    "coin withdrawal": 0.06,
}


def mixed(transfers: int = MANY, run: str = "r", seed: int = 0) -> list[tuple[str, list[dict[str, str]]]]:
    """Many transactions of a mixed workload: which kind, and what each operation was given."""
    workload = Mixed(SHIPPED, traders=50, transfers=transfers, run=run, seed=seed)
    return [
        (
            MIXED_KINDS[tuple(f"{service}.{name}" for service, name, _ in operations)],
            [json.loads(str(parameters)) for *_, parameters in operations],
        )
        for operations in islice(workload, MANY)
    ]


def test_the_mix_has_its_kinds_in_their_shares() -> None:
    """Of 4,000 the deviation of the largest share is 31."""
    counted = Counter(kind for kind, _ in mixed())
    for kind, share in MIXED_SHARES.items():
        assert abs(counted[kind] - share * MANY) < 140, kind


def test_the_mix_locks_what_its_orders_cost_and_trades_what_was_agreed() -> None:
    for kind, given in mixed():
        if kind == "order":
            locked, placed = given
            amount, price = Decimal(placed["amount"]), Decimal(placed["price"])
            assert placed["symbol"] == "ETH/USD"
            assert placed["user_id"] == locked["user_id"]
            due = ("USD", amount * price) if placed["side"] == "buy" else (COIN, amount)
            assert (locked["currency"], Decimal(locked["amount"])) == due
        elif kind == "trade":
            trade, _, _, paid, delivered = given
            assert trade["buyer_id"] != trade["seller_id"]
            assert [paid["from_user_id"], paid["to_user_id"]] == [trade["buyer_id"], trade["seller_id"]]
            assert [delivered["from_user_id"], delivered["to_user_id"]] == [trade["seller_id"], trade["buyer_id"]]
            assert paid["amount"] == trade["quote_amount"]
            assert Decimal(paid["amount"]) == Decimal(trade["amount"]) * Decimal(trade["price"])
            assert (delivered["currency"], delivered["amount"]) == (COIN, trade["amount"])


def test_the_mix_has_orders_that_wait_and_as_many_that_take_from_them() -> None:
    """A book that only grew, or was always empty, would be no exchange's."""
    orders = [placed for kind, (_, *more) in mixed() if kind == "order" for placed in more]
    waiting = {
        side: [int(o["price"]) for o in orders if o["time_in_force"] == "gtc" and o["side"] == side]
        for side in ("buy", "sell")
    }
    taking = [o for o in orders if o["time_in_force"] == "ioc"]
    assert max(waiting["buy"]) < min(waiting["sell"])
    assert abs(len(taking) - len(orders) / 2) < 100
    for each in taking:
        if each["side"] == "buy":
            assert int(each["price"]) >= max(waiting["sell"])
        else:
            assert int(each["price"]) <= min(waiting["buy"])


def test_the_mix_is_refused_now_and_then() -> None:
    """By users who have nothing, and pay nobody any other way: nothing is ever paid to them."""
    payers: Counter[bool] = Counter()
    for kind, given in mixed():
        asked = given[-1]
        payer = asked.get("from_user_id", asked.get("user_id", ""))
        if kind in {"order", "transfer", "bank withdrawal", "coin withdrawal"}:
            payers[payer.startswith("penniless-")] += 1
        else:
            assert "penniless" not in str(given)
        assert "penniless" not in asked.get("to_user_id", "")
    assert PENNILESS_SHARE / 2 < payers[True] / payers.total() < PENNILESS_SHARE * 2


def test_what_may_be_recorded_once_has_a_name_of_its_own_in_every_run() -> None:
    """A second run records other things, and the same run the same ones."""
    once = ("trade_id", "withdrawal_id", "tx_hash", "bank_reference")
    runs = {
        run: [
            (member, each[member]) for _, given in mixed(run=run) for each in given for member in once if member in each
        ]
        for run in ("r", "s")
    }
    assert {member for member, _ in runs["r"]} == set(once)
    assert not set(runs["r"]) & set(runs["s"])
    for named in runs.values():
        assert len(set(named)) == len(named)
    assert mixed(run="r") == mixed(run="r") != mixed(run="r", seed=1)


def test_coins_come_in_where_the_bank_has_told_of_no_more() -> None:
    """The deposits that there are name what the bank was to tell of, in order."""
    few = Mixed(SHIPPED, traders=2, transfers=3, run="r")
    kinds = mixed(transfers=3)
    deposits = [given[0]["bank_reference"] for kind, given in kinds if kind == "bank deposit"]
    assert deposits == [few.bank_reference(number) for number in range(3)]
    counted = Counter(kind for kind, _ in kinds)
    assert abs(counted["coin deposit"] - 0.15 * MANY) < 140


def test_the_mix_asks_participants_by_the_names_that_they_have() -> None:
    names = Names("books", "market", "clearing", "banking", "vault")
    asked = {service for operations in islice(Mixed(names, traders=5), MANY) for service, *_ in operations}
    assert asked == set(names)


def test_only_the_currency_that_is_followed_counts() -> None:
    """Coins come in beside the money."""
    for operations in islice(Mixed(SHIPPED, traders=5, transfers=MANY), MANY):
        kind = MIXED_KINDS[tuple(f"{service}.{name}" for service, name, _ in operations)]
        assert net_inflow(operations, "USD") == (10 if kind == "bank deposit" else 0)
        assert net_inflow(operations, COIN) == (Decimal("0.01") if kind == "coin deposit" else 0)
