"""``pincex demo``: a short trading day with every process killed, and a coordinator killed in mid-commit."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import Counter
from dataclasses import replace
from decimal import Decimal as D  # noqa: N817  Books are full of them.
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx
import pytest

from coordinator.demo.books import broken_books, currency_books
from coordinator.demo.misbehaviour import FAULTS
from coordinator.demo.orders import FEES, with_fees
from coordinator.demo.record import Intent, Record, notices
from coordinator.demo.snapshot import Account, Fill, Move, Snapshot
from coordinator.demo.webhook import Webhook
from coordinator.workflows.builtin.trade_execution import settlement_of
from sidecars.fiat.notifications import signed
from sidecars.main import SIDECARS
from tests.counting import counted
from tests.development import PINCEX

PROCESSES: Final = {"coordinator", *SIDECARS, "bank", "chain"}


@pytest.mark.timeout(400)
def test_the_books_of_a_day_under_kills_and_faults_add_up(server_folder: Path) -> None:
    """Invariants 4, 5, 6, 8 and 11, over five databases and two companies, with each process killed once."""
    command = [PINCEX, "demo", "day", "--users", "30", "--kills", "1", "--json", "--data", str(server_folder / "day")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **counted()})
    day: dict[str, Any] = json.loads(ended.stdout)
    assert day["broken"] == []
    assert ended.returncode == 0
    assert Counter(kill["process"] for kill in day["kills"]) == dict.fromkeys(PROCESSES, 1)
    assert {book["currency"] for book in day["books"]} == {"BTC", "EUR", "USD"}
    assert all(D(book["difference"]) == 0 and D(book["came"]) > 0 for book in day["books"])
    for what in ("bank deposit", "ioc order", "coin withdrawal"):
        assert day["counts"][f"{what} COMPLETED"] > 0
    for fault in FAULTS:
        assert sum(day["counts"].get(f"{company} {fault['kind']}", 0) for company in ("bank", "chain")) > 0


async def test_the_webhook_hears_what_is_signed_and_fails_now_and_then(tmp_path: Path) -> None:
    """Some of what it refused it has heard: so whoever told it tells it again, and it must be the same."""
    webhook = Webhook(Random(7))
    record = Record(tmp_path / "record")
    url, secret = webhook.environment["PINCEX_FIAT_WEBHOOK_URL"], webhook.environment["PINCEX_FIAT_WEBHOOK_SECRET"]
    statuses = Counter[int]()
    async with asyncio.TaskGroup() as group, httpx.AsyncClient() as client:
        keeping = group.create_task(record.run())
        hearing = group.create_task(webhook.run(record))
        for at in range(100):
            headers = signed(f"n-{at}", "1", b"told", secret.encode())
            statuses[(await client.post(url, content=b"told", headers=headers)).status_code] += 1
        while (await client.post(url, content=b"other", headers=signed("f", "1", b"told", secret.encode()))).is_error:
            pass
        webhook.stop()
        await hearing
        keeping.cancel()
    heard = notices(record.path)
    assert {notice.notice_id for notice in heard if not notice.is_signed} == {"f"}
    true = [notice for notice in heard if notice.is_signed]
    assert {notice.body for notice in true} == {"told"}
    assert set(statuses) == {204, 503}
    assert statuses[204] < len(true) < 100


@pytest.mark.timeout(300)
def test_a_coordinator_killed_in_mid_commit_is_outlived() -> None:
    environment = {**os.environ, **counted()}
    ended = subprocess.run([PINCEX, "demo", "crash"], capture_output=True, text=True, check=False, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count(", coordinator") == 2
    assert "each transaction happened once" in ended.stdout


def _sound() -> dict[str, Any]:
    """A day on which Ann brought 10 dollars, paid 1 of them out, and sold nothing."""
    return {
        "accounts": [Account("ann", "USD", D(9), D(0))],
        "bank_moves": [Move("ann", "USD", D(10), "in", "DEPOSIT"), Move("ann", "USD", D(-1), "out", "PAID")],
        "chain_moves": [],
        "fills": [],
        "trades": [],
        "positions": [],
        "branches": {},
        "decisions": [],
        "workflows": [],
        "bank": {"USD": {"in": "10", "out": "1"}},
        "chain": dict.fromkeys(("deposited", "paid", "fees", "held"), D(0)),
        "chain_paid": [],
    }


def _fill(**more: Any) -> Fill:
    said: dict[str, Any] = {"trade_id": "t", "symbol": "BTC/USD", "amount": D(1), "price": D(2), "status": "SETTLED"}
    said |= {"buyer_id": "a", "seller_id": "b", "buy_order_id": "1", "sell_order_id": "2"}
    return Fill(**{**said, **more})


def test_a_seller_who_takes_leaves_a_fee_of_what_the_buyer_pays() -> None:
    """Not one of what the seller did not take; rounded down, and none where that comes to nothing."""
    fills = [
        {"trade_id": "t-1", "seller_id": "me", "amount": "0.1", "price": "50000"},
        {"trade_id": "t-2", "seller_id": "other", "amount": "0.1", "price": "50000"},
        {"trade_id": "t-3", "seller_id": "me", "amount": "0.00001", "price": "50000"},
    ]
    named = {"buyer_id": "buyer", "buy_order_id": "1", "sell_order_id": "2"}
    without = settlement_of("BTC/USD", [{**fill, **named} for fill in fills])
    assert list(with_fees(without, "buyer")) == without
    settling = list(with_fees(without, "me"))
    trades = [given for _, operation, given in settling if operation == "settle_trade"]
    legs = Counter[tuple[str, str]]()
    for _, operation, given in settling:
        if operation == "capture_funds" and isinstance(given, dict) and given["currency"] == "USD":
            legs[str(given["description"]), str(given["to_user_id"])] += int(D(str(given["amount"])) * 100)
    assert [given.get("fee_seller") for given in trades if isinstance(given, dict)] == ["5.00", None, "0.00"]
    assert legs == {
        ("trade t-1", FEES): 500,
        ("trade t-1", "me"): 499_500,
        ("trade t-2", "other"): 500_000,
        ("trade t-3", "me"): 50,
    }


def _broken(**more: Any) -> list[str]:
    return [each.split()[0] for each in broken_books(Snapshot(**{**_sound(), **more}), {})]


def test_sound_books_have_nothing_against_them() -> None:
    assert _broken() == []
    assert [book.difference for book in currency_books(Snapshot(**_sound()))] == [D(0), D(0)]


def test_a_cent_that_is_missing_is_found() -> None:
    """Invariant 6."""
    assert _broken(accounts=[Account("ann", "USD", D("8.99"), D(0))]) == [
        "MONEY_NOT_CONSERVED",
        "ACCOUNT_NOT_EXPLAINED",
    ]


def test_a_cent_in_the_wrong_account_is_found() -> None:
    accounts = [Account("ann", "USD", D("8.99"), D(0)), Account("bob", "USD", D("0.01"), D(0))]
    assert _broken(accounts=accounts) == ["ACCOUNT_NOT_EXPLAINED", "ACCOUNT_NOT_EXPLAINED"]


def test_money_that_is_still_locked_is_found() -> None:
    assert _broken(accounts=[Account("ann", "USD", D(9), D(1))]) == ["MONEY_HELD"]


@pytest.mark.parametrize(
    ("fills", "trades", "broken"),
    [
        ([_fill()], [_fill()], []),
        ([_fill()], [], ["FILL_NOT_SETTLED"]),
        ([_fill()], [_fill(status="SETTLING")], ["FILL_NOT_SETTLED"]),
        ([_fill()], [_fill(amount=D(2))], ["FILL_SETTLED_DIFFERENTLY"]),
        ([], [_fill()], ["SETTLED_WITHOUT_FILL"]),
    ],
)
def test_every_fill_is_settled_once_as_it_was_filled(fills: list[Fill], trades: list[Fill], broken: list[str]) -> None:
    """Invariant 5."""
    assert _broken(fills=fills, trades=trades) == broken


def test_a_transfer_counts_if_its_client_was_told_that_it_committed() -> None:
    """Invariant 4: what was told, the books must show."""
    given = {"from_user_id": "ann", "to_user_id": "bob", "currency": "USD", "amount": "4"}
    asked = {"operations": [["bookkeeper", "transfer_funds", given]]}
    told = {"r": Intent("r", "transfer", asked, [{"state": "COMMITTED"}])}
    moved = [Account("ann", "USD", D(5), D(0)), Account("bob", "USD", D(4), D(0))]
    assert list(broken_books(replace(Snapshot(**_sound()), accounts=moved), told)) == []
    assert len(list(broken_books(Snapshot(**_sound()), told))) == 2
