"""The frame of simulators, and the bank: what it does wrong is what it was told, and its books survive."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.companies import Company, playing

PAYMENT = {"currency": "EUR", "amount": "12.5", "iban": "DE89370400440532013000", "name": "Ada", "reference": "W-1"}


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncGenerator[Company]:
    async with playing("bank", tmp_path) as company:
        yield company


async def pay(bank: Company, key: str, *expect: int, **changed: str) -> Any:
    return await bank.ask(
        "POST", "/payments", {**PAYMENT, **changed}, headers={"Idempotency-Key": key}, expect=expect or (200, 201)
    )


async def paid(bank: Company) -> int:
    totals = await bank.ask("GET", "/development/totals")
    return totals["EUR"]["payments"] if totals else 0


async def test_a_key_is_paid_once_and_told_the_same(bank: Company) -> None:
    first = await pay(bank, "k", 201)
    assert await pay(bank, "k", 200) == first
    assert await pay(bank, "k", 200, amount="12.50") == first
    assert await bank.ask("GET", "/payments", params={"key": "k"}) == first
    assert (await pay(bank, "k", 422, amount="12.51"))["error"] == "KEY_REUSED"
    assert (await bank.ask("GET", "/payments", params={"key": "other"}, expect=(404,)))["error"] == "UNKNOWN_PAYMENT"
    assert await paid(bank) == 1


async def test_what_it_did_survives_a_kill(bank: Company) -> None:
    first = await pay(bank, "k")
    await bank.kill()
    await bank.start()
    assert await pay(bank, "k", 200) == first


@pytest.mark.parametrize(
    ("kind", "is_done", "is_answered"),
    [
        ("fail_before", False, False),
        ("fail_after", True, False),
        ("lost", True, False),
        ("twice", True, True),
        ("slow", True, True),
        ("late", True, True),
    ],
)
async def test_a_fault_does_what_its_name_says(bank: Company, kind: str, is_done: bool, is_answered: bool) -> None:
    await bank.misbehave({"kind": kind, "calls": "POST /payments", "times": 1, "delay_ms": 50})
    if kind == "lost":
        with pytest.raises(httpx.RemoteProtocolError):
            await pay(bank, "k")
    else:
        assert ("payment_id" in await pay(bank, "k", 200, 201, 503)) == is_answered
    assert await paid(bank) == int(is_done)
    # It struck once.
    assert (await bank.ask("GET", "/behaviour"))["faults"] == []
    assert (await bank.ask("PUT", "/behaviour", {"faults": []}))["struck"] == {kind: 1}
    await pay(bank, "k")
    assert await paid(bank) == 1


async def test_a_caller_that_gave_up_finds_it_done(bank: Company) -> None:
    """The unpleasant order: asked about while it is slow, the bank knows nothing; then it is done after all."""
    await bank.misbehave({"kind": "slow", "calls": "POST /payments", "times": 1, "delay_ms": 1_000})
    async with httpx.AsyncClient(base_url=bank.url, timeout=0.2) as impatient:
        with pytest.raises(httpx.ReadTimeout):
            await impatient.post("/payments", json=PAYMENT, headers={"Idempotency-Key": "k"})
    await bank.ask("GET", "/payments", params={"key": "k"}, expect=(404,))
    await pay(bank, "k", 201)
    await bank.misbehave({"kind": "slow", "calls": "GET /payments", "times": 1, "delay_ms": 1_000})
    await bank.ask("GET", "/payments", params={"key": "k"})
    assert await paid(bank) == 1


async def test_transfers_are_listed_from_a_cursor_on_and_again_if_told(bank: Company) -> None:
    for reference in ("R-1", "R-2", "R-1"):
        await bank.ask("POST", "/development/transfers", {**PAYMENT, "reference": reference})
    page = await bank.ask("GET", "/transfers", params={"after": "0", "limit": "1"})
    assert ([each["reference"] for each in page["transfers"]], page["next"]) == (["R-1"], "1")
    page = await bank.ask("GET", "/transfers", params={"after": page["next"]})
    assert [each["reference"] for each in page["transfers"]] == ["R-2"]
    await bank.misbehave({"kind": "twice", "calls": "transfers"})
    page = await bank.ask("GET", "/transfers", params={"after": "1"})
    assert [each["reference"] for each in page["transfers"]] == ["R-2", "R-1", "R-2"]
    assert page["next"] == "2"
    used = await bank.ask(
        "POST", "/development/transfers", {**PAYMENT, "reference": "R-1", "amount": "1"}, expect=(409,)
    )
    assert used["error"] == "REFERENCE_USED"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/payments", {**PAYMENT, "amount": "0"}, "amount"),
        ("/payments", {**PAYMENT, "amount": 12.5}, "amount"),
        ("/payments", {**PAYMENT, "currency": "JPY"}, ""),
        ("/payments", {**PAYMENT, "more": "1"}, "more"),
        ("/payments", [], ""),
        ("/development/transfers", {**PAYMENT, "iban": ""}, "iban"),
        ("/development/closed-accounts", {}, "iban"),
    ],
)
async def test_what_is_wrong_is_named(bank: Company, path: str, body: object, field: str) -> None:
    answer = await bank.ask("POST", path, body, headers={"Idempotency-Key": "k"}, expect=(400,))
    assert (answer["error"], answer["field"]) == ("INVALID", field)


async def test_what_it_cannot_be_told_is_named_and_it_stops_when_told_to(bank: Company) -> None:
    for faults, field in (
        ([{"kind": "boom"}], "faults.0.kind"),
        ([{"kind": "slow", "share": 0}], "faults.0.share"),
        ([{"kind": "slow", "times": 0}], "faults.0.times"),
        ([{"kind": "slow"}] * 33, "faults"),
    ):
        assert (await bank.ask("PUT", "/behaviour", {"faults": faults}, expect=(400,)))["field"] == field
    answer = await bank.ask("POST", "/payments", PAYMENT, expect=(400,))
    assert answer["error"] == "KEY_MISSING"
    assert await bank.stop() == 0
    await bank.start()


async def test_its_invariants_notice_a_payment_made_twice(bank: Company, tmp_path: Path) -> None:
    """By the hand of somebody who writes into its books."""
    await pay(bank, "k")
    books = sqlite3.connect(tmp_path / "books.sqlite", isolation_level=None)
    books.execute("insert into postings (idempotency_key, currency, minor) values ('k', 'EUR', -1250)")
    books.execute("insert into postings (reference, currency, minor) values ('none', 'EUR', 1)")
    told = await bank.violations()
    assert [each.partition(":")[0] for each in told] == ["PAID_NOT_ONCE", "POSTING_WITHOUT_CAUSE"]
    books.execute("delete from postings where number > 1")
    books.close()
