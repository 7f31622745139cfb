"""The whole system with bank money: fiat and the bank are killed, the bank misbehaves, and no cent is missing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from participant_sdk.client import TransactionClient
from participant_sdk.client_results import Committed, RolledBack
from participant_sdk.resources.invariants import violations
from sidecars.main import SIDECARS
from tests.development import Development, development, until
from tests.integration.companies import until as until_true

IBAN: Final = "DE89370400440532013000"
USERS: Final = 4
EACH: Final = 12
KILLS: Final = 3
AMOUNT: Final = "12.50"
FAULTS: Final[Sequence[dict[str, Any]]] = [
    {"kind": kind, "share": 0.08, "delay_ms": 300}
    for kind in ("slow", "fail_before", "twice", "fail_after", "lost", "late")
]

pytestmark = pytest.mark.timeout(300)


class Exchange:
    """A running development system, asked as a client, and its bank as the bank's other customers."""

    def __init__(self, running: Development, client: TransactionClient, bank: httpx.AsyncClient) -> None:
        self._running = running
        self._client = client
        self._bank = bank

    async def execute(self, request_id: str, *operations: tuple[str, str, dict[str, str]]) -> Committed | RolledBack:
        """One transaction, sent until its outcome is known."""
        return await self._client.execute(operations, request_id=request_id, timeout_s=120)

    async def bank(self, method: str, path: str, body: object = None) -> Any:
        """Call the bank until it answers: it may be dead just now."""
        while True:
            try:
                return (await self._bank.request(method, path, json=body)).json()
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    def dsn(self, database: str) -> str:
        return make_conninfo(self._running.log_dsn, dbname=database)

    async def rows(self, database: str, query: str) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self.dsn(database), autocommit=True) as connection:
            return await (await connection.execute(query.encode())).fetchall()

    def kill(self, *words: str) -> None:
        """kill -9 of the child whose command line has these words; it is started again, and we wait for that."""
        (pid,) = _children(self._running.process.pid, words)
        os.kill(pid, signal.SIGKILL)
        until(lambda: _children(self._running.process.pid, words) not in ([], [pid]))


def _children(parent: int, words: Sequence[str]) -> list[int]:
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_text().split("\0")
            status = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status[1]) == parent and status[0] != "Z" and all(word in arguments for word in words):
            found.append(int(folder.name))
    return found


def _bank_url(running: Development) -> str:
    (line,) = [line for line in running.output.splitlines() if "whom fiat talks to" in line]
    return "http://127.0.0.1:" + line.split("127.0.0.1:")[1].split()[0]


async def _user_day(exchange: Exchange, user: str) -> None:
    """Money comes in and goes out again, each in one transaction of bookkeeper and fiat."""
    account = {"user_id": user, "currency": "EUR"}
    money = {**account, "amount": AMOUNT}
    cleared = {"user_id": user, "state": "CLEARED"}
    opened = await exchange.execute(
        f"open-{user}", ("bookkeeper", "open_account", account), ("fiat", "set_compliance", cleared)
    )
    assert isinstance(opened, Committed), opened
    for at in range(EACH):
        reference = f"R-{user}-{at}"
        transfer = {"currency": "EUR", "amount": AMOUNT, "iban": IBAN, "name": user, "reference": reference}
        await exchange.bank("POST", "/development/transfers", transfer)
        attempt = 0
        ending: Committed | RolledBack | None = None
        # Until the bank's list has been read, nobody knows of it: that is a "no", and binds its request.
        while not isinstance(ending, Committed):
            assert ending is None or ending.reason == "TRANSFER_UNKNOWN", ending
            attempt += 1
            ending = await exchange.execute(
                f"in-{reference}-{attempt}",
                ("fiat", "record_deposit", {**money, "bank_reference": reference}),
                ("bookkeeper", "credit_account", money),
            )
        withdrawal = {"withdrawal_id": f"W-{user}-{at}", **money, "iban": IBAN, "account_holder": user}
        ending = await exchange.execute(
            f"out-{user}-{at}",
            ("bookkeeper", "debit_account", money),
            ("fiat", "reserve_withdrawal", withdrawal),
            ("fiat", "complete_withdrawal", {"withdrawal_id": f"W-{user}-{at}"}),
        )
        assert isinstance(ending, Committed), ending


async def _kill_again_and_again(exchange: Exchange, working: asyncio.Event) -> None:
    for _ in range(KILLS):
        for words in (("sidecars.main", "fiat"), ("sidecars.simulators.bank",)):
            done = await exchange.rows("fiat", "select count(*) from fiat.payments")
            await asyncio.to_thread(exchange.kill, *words)
            await exchange.bank("PUT", "/behaviour", {"faults": FAULTS})
            if working.is_set():

                async def is_further(before: int = done[0][0]) -> bool:
                    after = await exchange.rows("fiat", "select count(*) from fiat.payments")
                    return not working.is_set() or after[0][0] > before

                await until_true(is_further)


async def test_nothing_is_paid_twice_and_nothing_is_lost(server_folder: Path) -> None:
    """Invariant 6, over the books of two participants and the bank's own."""
    with development(server_folder / "bank-money") as running:
        async with (
            TransactionClient(running.grpc) as client,
            httpx.AsyncClient(base_url=_bank_url(running), timeout=30) as bank,
        ):
            exchange = Exchange(running, client, bank)
            await exchange.bank("PUT", "/behaviour", {"faults": FAULTS})
            working = asyncio.Event()
            working.set()
            async with asyncio.TaskGroup() as group:
                killing = group.create_task(_kill_again_and_again(exchange, working))
                days = [group.create_task(_user_day(exchange, f"user-{number}")) for number in range(USERS)]
                await asyncio.gather(*days)
                working.clear()
                await killing
            await exchange.bank("PUT", "/behaviour", {"faults": []})

            async def is_all_paid() -> bool:
                return await exchange.rows("fiat", "select 1 from fiat.payments where state <> 3") == []

            await until_true(is_all_paid, 180)
            await _account_for_everything(exchange)


async def _account_for_everything(exchange: Exchange) -> None:
    count = USERS * EACH
    total = Decimal(AMOUNT) * count
    told = {"in": f"{total}", "out": f"{total}", "payments": count, "transfers": count}
    assert await exchange.bank("GET", "/development/totals") == {"EUR": told}
    assert await exchange.bank("GET", "/invariants") == {"violations": []}
    totals = "select received, deposited, withdrawn, paid from fiat.totals where currency = 'EUR'"
    assert await exchange.rows("fiat", totals) == [(total, total, total, total)]
    assert await exchange.rows("fiat", "select * from fiat.attention") == []
    assert await exchange.rows("fiat", "select 1 from fiat.withdrawals where status <> 3") == []
    assert await exchange.rows("bookkeeper", "select sum(balance) from bookkeeper.accounts") == [(0,)]
    for name in ("bookkeeper", "fiat"):
        assert await violations(exchange.dsn(name), SIDECARS[name].service.invariants) == []
        assert await exchange.rows(name, "select 1 from pincex.branches where phase in (2, 5)") == []
