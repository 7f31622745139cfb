"""Fiat's attendants against a bank of our own that misbehaves: nothing is paid twice, nothing is lost or made up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from participant_sdk.clock import SystemClock
from sidecars.fiat.outbox import Outbox
from sidecars.fiat.payments import pay
from sidecars.fiat.statements import statement
from sidecars.fiat.transfers import read_transfers
from sidecars.sidecar import Attendant, Surroundings, attend
from tests.integration.companies import Company, playing, until
from tests.integration.participations import Participation, participating
from tests.integration.test_fiat import IBAN, OTHER_IBAN, asked, complete, deposit, read, withdraw

QUICK: Mapping[str, str] = {"PINCEX_FIAT_BANK_TIMEOUT_S": "0.5"}


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncGenerator[Company]:
    async with playing("bank", tmp_path / "bank") as company:
        yield company


@pytest.fixture
async def fiat(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "fiat") as participation:
        await participation.do(asked("set_compliance", user_id="ada", state="CLEARED"))
        yield participation
        assert await participation.violations() == []


@asynccontextmanager
async def attended(
    fiat: Participation, bank: Company | str, *attendants: Attendant, **more: str
) -> AsyncGenerator[None]:
    """Attendants at work, as the sidecar runs them, until the end of the block. The bank may be given by its URL."""
    environment = {"PINCEX_FIAT_BANK_URL": bank if isinstance(bank, str) else bank.url, **QUICK, **more}
    surroundings = Surroundings("fiat", fiat.dsn, SystemClock(), environment)
    tasks = [asyncio.create_task(attend("test", attendant, surroundings)) for attendant in attendants]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def completed(fiat: Participation, *names: str, amount: str = "10", **more: str) -> None:
    for name in names:
        await fiat.do(withdraw(amount, withdrawal_id=name, **more), complete(name))


async def states(fiat: Participation) -> dict[str, int]:
    return {row[0]: row[1] for row in await fiat.rows("select withdrawal_id, state from fiat.payments")}


async def came_to(fiat: Participation, state: int, count: int = 1) -> None:
    async def is_there() -> bool:
        found = await states(fiat)
        return list(found.values()).count(state) == count

    await until(is_there)


async def totals(bank: Company, currency: str = "EUR") -> dict[str, Any]:
    nothing = {"in": "0.00", "out": "0.00", "payments": 0, "transfers": 0}
    return (await bank.ask("GET", "/development/totals")).get(currency, nothing)


async def test_a_completed_withdrawal_is_paid_at_once(fiat: Participation, bank: Company) -> None:
    """The sender hears of it; what was only reserved is not paid."""
    async with attended(fiat, bank, pay):
        await fiat.do(withdraw("3", withdrawal_id="W-0"))
        await completed(fiat, "W-1", amount="12.34")
        await came_to(fiat, 3)
    status = await read(fiat, "withdrawal_status", withdrawal_id="W-1")
    assert (status["payment"], status["payment_id"]) == ("PAID", "P1")
    payment = await bank.ask("GET", "/payments", params={"key": "W-1"})
    assert (payment["amount"], payment["iban"], payment["name"]) == ("12.34", IBAN, "Ada L.")
    assert await totals(bank) == {"in": "0.00", "out": "12.34", "payments": 1, "transfers": 0}


FAULTS: list[dict[str, Any]] = [
    {"kind": "fail_before"},
    {"kind": "fail_after"},
    {"kind": "lost"},
    {"kind": "twice"},
    {"kind": "late", "delay_ms": 900},
    {"kind": "slow", "delay_ms": 900},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["kind"])
async def test_whatever_the_bank_does_the_first_time_it_pays_once(
    fiat: Participation, bank: Company, fault: dict[str, Any]
) -> None:
    """Failed before or after, lost, done twice, late, or slow and done after it was asked about."""
    await bank.misbehave({**fault, "calls": "POST /payments", "times": 3})
    await completed(fiat, "W-1", "W-2")
    async with attended(fiat, bank, pay):
        await came_to(fiat, 3, 2)
    assert (await totals(bank))["payments"] == 2
    assert (await totals(bank))["out"] == "20.00"


async def test_two_senders_at_once_pay_once(fiat: Participation, bank: Company) -> None:
    """For a moment there may be two: a claimed payment is one's alone until its lease ends."""
    await bank.misbehave(*[{**fault, "share": 0.07} for fault in FAULTS])
    names = [f"W-{at}" for at in range(24)]
    await completed(fiat, *names)
    async with attended(fiat, bank, pay, pay):
        await came_to(fiat, 3, 24)
    assert (await totals(bank))["payments"] == 24


async def test_a_payment_is_claimed_by_one_sender_until_its_lease_ends(fiat: Participation) -> None:
    """Another sender finds nothing, however often it looks."""
    await completed(fiat, "W-1", "W-2")
    async with Outbox.open("payment", fiat.dsn, 60) as one, Outbox.open("payment", fiat.dsn, 60) as other:
        claimed = await anext(one.claims())
        assert sorted(row["withdrawal_id"] for row in claimed) == ["W-1", "W-2"]
        await completed(fiat, "W-3")
        claimed = await anext(other.claims())
        assert [row["withdrawal_id"] for row in claimed] == ["W-3"]


async def test_a_rejected_payment_is_not_sent_again_and_waits_for_a_person(fiat: Participation, bank: Company) -> None:
    await bank.ask("POST", "/development/closed-accounts", {"iban": OTHER_IBAN})
    await completed(fiat, "W-1", iban=OTHER_IBAN)
    async with attended(fiat, bank, pay):
        await came_to(fiat, 4)
    assert await fiat.rows("select * from fiat.attention") == [("PAYMENT_REJECTED", "W-1", "ACCOUNT_CLOSED")]
    status = await read(fiat, "withdrawal_status", withdrawal_id="W-1")
    assert (status["payment"], status["detail"]) == ("REJECTED", "ACCOUNT_CLOSED")
    assert (await totals(bank))["payments"] == 0


async def test_a_key_that_belongs_to_another_payment_stops_it(fiat: Participation, bank: Company) -> None:
    """Somebody else's payment is neither taken for ours nor overwritten."""
    other = {"currency": "EUR", "amount": "1", "iban": IBAN, "name": "Bob", "reference": "x"}
    await bank.ask("POST", "/payments", other, headers={"Idempotency-Key": "W-1"})
    await completed(fiat, "W-1")
    async with attended(fiat, bank, pay):
        await came_to(fiat, 5)
    ((what, name, detail),) = await fiat.rows("select * from fiat.attention")
    assert (what, name) == ("PAYMENT_STUCK", "W-1")
    assert "KEY_REUSED" in detail


async def test_an_old_key_that_the_bank_does_not_know_is_not_sent_again(fiat: Participation, bank: Company) -> None:
    """It may have paid and forgotten. A person who has asked the bank has it tried again, with a reason on record."""
    await bank.misbehave({"kind": "fail_before", "calls": "POST /payments", "times": 1})
    await completed(fiat, "W-1")
    async with attended(fiat, bank, pay, PINCEX_FIAT_BANK_KEY_LIFETIME_S="0.4"):
        await came_to(fiat, 5)
        assert (await totals(bank))["payments"] == 0
    async with attended(fiat, bank, pay):
        assert await fiat.rows("select fiat.retry_payment('W-1', 'the bank says that it was never paid')") == [(True,)]
        await came_to(fiat, 3)
    assert (await totals(bank))["payments"] == 1
    assert await fiat.rows("select what, id from fiat.operator_actions") == [("RETRY_PAYMENT", "W-1")]
    assert await fiat.rows("select fiat.retry_payment('W-1', 'again')") == [(False,)]


async def test_a_transfer_is_recorded_once_the_bank_has_told_of_it(fiat: Participation, bank: Company) -> None:
    """Told twice over, it is one; told while the reader was away, it is found at the cursor."""

    async def is_known(reference: str) -> bool:
        return (await read(fiat, "deposit_status", bank_reference=reference))["state"] == "ANNOUNCED"

    body = {"currency": "EUR", "amount": "100.50", "iban": IBAN, "name": "Ada", "reference": "R-1"}
    await bank.misbehave({"kind": "twice"}, {"kind": "fail_after", "calls": "GET /transfers", "share": 0.3})
    async with attended(fiat, bank, read_transfers):
        await bank.ask("POST", "/development/transfers", body)
        await until(lambda: is_known("R-1"))
        await fiat.do(deposit("R-1"))
    await bank.ask("POST", "/development/transfers", {**body, "reference": "R-2"})
    async with attended(fiat, bank, read_transfers, read_transfers):
        await until(lambda: is_known("R-2"))
    assert await fiat.rows("select reference, amount from fiat.bank_transfers order by 1") == [
        ("R-1", 100.5),
        ("R-2", 100.5),
    ]
    assert await fiat.rows("select cursor from fiat.bank_cursor") == [("2",)]
    assert await fiat.rows("select * from fiat.attention") == []


Answer = Callable[[str, str, Mapping[str, str], bytes], tuple[int, object]]


@asynccontextmanager
async def odd_bank(answer: Answer) -> AsyncGenerator[str]:
    """A server that gives the answers of ``answer``: method, path, headers and body in, status and JSON out."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        status, said = answer(method, path, headers, body)
        content = said if isinstance(said, bytes) else json.dumps(said).encode()
        writer.write(b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (status, len(content)))
        writer.write(content)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


ODD: list[tuple[int, dict[str, Any] | bytes]] = [
    (200, {"key": "W-2"}),
    (200, {"amount": "9.99"}),
    (200, {"amount": 10}),
    (200, {"amount": "1e1"}),
    (200, {"currency": "USD"}),
    (200, {"iban": OTHER_IBAN}),
    (200, {"status": "perhaps"}),
    (200, {"payment_id": ""}),
    (200, b"<html>busy</html>"),
    (204, {}),
    (302, {}),
    (401, {}),
    (429, {}),
    (500, {}),
]


async def test_an_answer_about_something_else_proves_nothing(fiat: Participation) -> None:
    """Neither paid nor rejected: it is asked again, until the answer is the payment's own."""
    odd = {f"W-{at}": answer for at, answer in enumerate(ODD, 10)}

    def answer(_method: str, path: str, headers: Mapping[str, str], _body: bytes) -> tuple[int, object]:
        key = headers.get("idempotency-key") or path.partition("key=")[2]
        right = {"payment_id": f"P-{key}", "key": key, "status": "executed", "reason": ""}
        right |= {"currency": "EUR", "amount": "10.00", "iban": IBAN}
        status, changed = odd.pop(key, (200, {}))
        return status, changed if isinstance(changed, bytes) else {**right, **changed}

    await completed(fiat, *odd)
    async with odd_bank(answer) as url:
        bank = Company("bank", Path())
        bank.url = url
        async with attended(fiat, bank, pay):
            await came_to(fiat, 3, len(ODD))
    assert await fiat.rows("select attempts, count(*) from fiat.payments group by 1") == [(2, len(ODD))]


async def test_one_line_of_the_list_that_is_wrong_does_not_keep_the_others_back(fiat: Participation) -> None:
    """What cannot be, or contradicts what was told before, waits for a person; the first telling stays."""
    right = {"transfer_id": "1", "reference": "R-1", "currency": "EUR", "amount": "5.00", "iban": IBAN, "name": "Ada"}
    right["received_at"] = "2026-01-01T00:00:00Z"
    amounts = ("5.001", "0", "-5", 5.0, "NaN", "1" + "0" * 20, "0." + "1" * 70)
    wrong = [{**right, "amount": amount} for amount in amounts]
    wrong += [{**right, "currency": "BTC"}, {**right, "reference": "a b"}, {**right, "received_at": "today"}, "nothing"]
    lines = [*wrong, right, {**right, "amount": "6.00"}, {**right, "transfer_id": "2", "reference": "R-2"}]
    pages: Iterator[tuple[int, object]] = iter(
        [(200, {"transfers": lines, "next": "n1"}), (200, {"transfers": "?"}), (200, {"next": "n3"})]
    )
    asked_after: list[str] = []

    def answer(_method: str, path: str, *_: object) -> tuple[int, object]:
        asked_after.append(path.partition("after=")[2].partition("&")[0])
        repeated = {"transfers": [{**right, "iban": OTHER_IBAN}, right], "next": "n2"}
        return next(pages, (200, repeated))

    async with odd_bank(answer) as url:
        bank = Company("bank", Path())
        bank.url = url

        async def is_through() -> bool:
            return await fiat.rows("select cursor from fiat.bank_cursor") == [("n2",)]

        async with attended(fiat, bank, read_transfers):
            await until(is_through)
    told = "select reference, amount, iban from fiat.bank_transfers order by 1"
    assert await fiat.rows(told) == [("R-1", 5, IBAN), ("R-2", 5, IBAN)]
    doubts = await fiat.rows("select id, detail from fiat.attention where what = 'BANK_DOUBTED'")
    assert len(doubts) == len(wrong) + 2
    assert asked_after[:4] == ["0", "n1", "n1", "n1"]
    for doubt, _ in doubts:
        assert await fiat.rows("select fiat.clear_doubt(%s, 'the bank was asked')", doubt) == [(True,)]
    assert await fiat.rows("select * from fiat.attention") == []


@pytest.mark.parametrize("name", ["next_payment", "next_notification"])
async def test_nothing_is_due_where_there_is_nothing(fiat: Participation, name: str) -> None:
    """A zero would have the sender ask the database again and again, without a pause."""
    assert await fiat.rows(statement(name).decode()) == [(None,)]


async def test_a_payment_that_is_overdue_is_due_now(fiat: Participation) -> None:
    await completed(fiat, "w-1")
    await fiat.rows("update fiat.payments set due_at = now() - interval '1 hour'")
    assert await fiat.rows(statement("next_payment").decode()) == [(0.0,)]
