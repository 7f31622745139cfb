"""Trades over the whole system while its sidecars are killed: the ledger moves what is settled, or nothing does."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Committed, Ending
from sidecars.house import FEES
from sidecars.settlement.operations import due_for
from tests.development import PINCEX, Development, development, until

USERS: Final = ("ann", "bob", "cid", "dan")
FUNDS: Final = {"BTC": Decimal(3), "USD": Decimal(600)}
TRADES: Final = 120
AT_ONCE: Final = 8
FEE: Final = Decimal("0.05")
KILLED_AFTER: Final = (15, 40, 65, 90)

pytestmark = pytest.mark.timeout(300)
Operation = tuple[str, str, Mapping[str, str]]


def opening() -> list[Operation]:
    operations: list[Operation] = []
    for user in USERS:
        for currency, amount in FUNDS.items():
            account = {"user_id": user, "currency": currency}
            operations.append(("bookkeeper", "open_account", account))
            operations.append(("bookkeeper", "credit_account", {**account, "amount": str(amount)}))
    return operations


def trade(number: int, rng: random.Random) -> list[Operation]:
    """One transaction: both parties' money is locked and captured, and the trade is settled."""
    buyer, seller = rng.sample(USERS, 2)
    amount, price = Decimal(rng.randint(1, 99)) / 100, Decimal(rng.randint(9_000, 11_000)) / 100
    paid = due_for(price, amount, "USD")

    def money(name: str, currency: str, amount: Decimal, **who: str) -> Operation:
        return "bookkeeper", name, {**who, "currency": currency, "amount": str(amount)}

    return [
        money("lock_funds", "USD", paid + FEE, user_id=buyer),
        money("lock_funds", "BTC", amount, user_id=seller),
        money("capture_funds", "BTC", amount, from_user_id=seller, to_user_id=buyer),
        money("capture_funds", "USD", paid, from_user_id=buyer, to_user_id=seller),
        money("capture_funds", "USD", FEE, from_user_id=buyer, to_user_id=FEES),
        (
            "settlement",
            "settle_trade",
            {
                # Some trades are told twice, under different requests.
                "trade_id": f"t{number - number % 10 % 3}",
                "symbol": "BTC/USD",
                "buyer_id": buyer,
                "seller_id": seller,
                "amount": str(amount),
                "price": str(price),
                "quote_amount": str(paid),
                "fee_buyer": str(FEE),
            },
        ),
    ]


def kill(running: Development, sidecar: str) -> None:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(running.process.pid)], capture_output=True, text=True, check=True
    )
    for word in listed.stdout.split():
        command = Path(f"/proc/{word}/cmdline")
        if command.exists() and f"sidecars.main\0{sidecar}\0" in command.read_text():
            os.kill(int(word), signal.SIGKILL)


def dsn(running: Development, database: str) -> str:
    return make_conninfo(running.log_dsn, dbname=database)


def asked(running: Development, database: str, query: str) -> dict[tuple[str, str], Decimal]:
    with psycopg.connect(dsn(running, database)) as connection:
        rows = connection.execute(query.encode()).fetchall()
    return {(user, currency): amount for user, currency, amount in rows}


async def run_trades(running: Development) -> list[tuple[list[Operation], Ending]]:
    """Run them all, some at a time, and kill a sidecar whenever so many have ended."""
    rng = random.Random(11)
    todo = [trade(number, rng) for number in range(TRADES)]
    ended: list[tuple[list[Operation], Ending]] = []
    waiting = iter(enumerate(todo))
    async with TransactionClient(running.grpc) as client:
        assert isinstance(await client.execute(opening()), Committed)

        async def work() -> None:
            for number, operations in waiting:
                ended.append((operations, await client.execute(operations, request_id=f"r{number}", timeout_s=120)))
                if len(ended) in KILLED_AFTER:
                    kill(running, ("bookkeeper", "settlement")[KILLED_AFTER.index(len(ended)) % 2])

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    return ended


def test_the_ledger_moves_what_is_settled_whoever_is_killed(server_folder: Path) -> None:
    """Invariants 4 to 6: both or neither, each once, nothing left locked; every database's own check holds."""
    with development(server_folder / "trades") as running:
        ended = asyncio.run(run_trades(running))
        committed = [operations[-1][2] for operations, ending in ended if isinstance(ending, Committed)]
        names = [parameters["trade_id"] for parameters in committed]
        assert len(names) == len(set(names))
        assert 10 < len(names) < TRADES

        wanted: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for each in committed:
            amount, paid = Decimal(each["amount"]), Decimal(each["quote_amount"])
            wanted[each["buyer_id"], "BTC"] += amount
            wanted[each["seller_id"], "BTC"] -= amount
            wanted[each["buyer_id"], "USD"] -= paid + FEE
            wanted[each["seller_id"], "USD"] += paid
            wanted[FEES, "USD"] += FEE
        # Told COMMITTED: applied everywhere, soon.
        until(lambda: asked(running, "settlement", "select user_id, currency, net from settlement.positions") == wanted)
        still_held = "select user_id, currency, locked + reserved + releasing from bookkeeper.accounts"
        until(lambda: not any(asked(running, "bookkeeper", still_held).values()))
        balances = asked(running, "bookkeeper", "select user_id, currency, balance from bookkeeper.accounts")
        moved = {(user, currency): balances[user, currency] - FUNDS[currency] for user in USERS for currency in FUNDS}
        assert {**moved, (FEES, "USD"): balances[FEES, "USD"]} == {key: wanted[key] for key in (*moved, (FEES, "USD"))}

        for name in ("bookkeeper", "settlement"):
            check = subprocess.run(
                [PINCEX, "participant", "check", name, "--data", str(running.folder), "--json"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert json.loads(check.stdout) == {"participant": name, "holds": True, "violations": []}
            assert check.returncode == 0
