"""What a bank may tell that fits into no table: it is kept apart, and holds up nothing else."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator
from decimal import Decimal
from urllib.parse import parse_qs

import pytest

from participant_sdk.clock import SystemClock
from sidecars.fiat.bank import Bank, PaymentOrder, UnclearError
from sidecars.fiat.payments import pay
from sidecars.fiat.settings import BankSettings
from sidecars.fiat.transfers import read_transfers
from sidecars.sidecar import Surroundings
from tests.integration.answering import Answer, answering, whole, without_end
from tests.integration.companies import until
from tests.integration.participations import Participation, participating
from tests.integration.test_fiat import IBAN, asked
from tests.integration.test_fiat_bank import attended, completed, states

NUL = "\0"


@pytest.fixture
async def fiat(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "fiat") as participation:
        await participation.do(asked("set_compliance", user_id="ada", state="CLEARED"))
        yield participation
        assert await participation.violations() == []


def transfer(reference: str, **changed: object) -> dict[str, object]:
    told = {"transfer_id": f"t-{reference}", "currency": "EUR", "amount": "10.00", "iban": IBAN, "name": "Ada"}
    return {"reference": reference, **told, "received_at": "2026-01-02T03:04:05Z", **changed}


def listing(*transfers: object) -> Answer:
    """A bank's list of one page."""

    async def answer(_method: str, path: str, _body: bytes) -> AsyncIterator[bytes]:
        is_first = "after=0" in path
        yield whole({"transfers": list(transfers) if is_first else [], "next": "1"})

    return answer


async def test_a_line_too_long_to_be_kept_whole_holds_up_no_other(fiat: Participation) -> None:
    """Its beginning waits for a person; an index would not take all of it."""
    noise = random.Random(7).randbytes(3_000).hex()
    async with (
        answering(listing({"noise": noise}, transfer("R-1"))) as url,
        attended(fiat, url, read_transfers),
    ):
        await until(lambda: has(fiat, "select 1 from fiat.bank_transfers where reference = 'R-1'"))
    ((told,),) = await fiat.rows("select told from fiat.bank_doubts")
    assert told == json.dumps({"noise": noise})[: len(told)]
    assert len(told) == 2_000


async def test_a_character_that_no_text_may_have_holds_up_nothing(fiat: Participation) -> None:
    """PostgreSQL has no character 0. It is replaced, so nothing can be equal to what had it."""
    odd = transfer("R-1", name=f"A{NUL}da", iban=f"{IBAN}{NUL}")
    async with (
        answering(listing(odd, transfer("R-2"), {"what": NUL})) as url,
        attended(fiat, url, read_transfers),
    ):
        await until(lambda: has(fiat, "select 1 from fiat.bank_transfers where reference = 'R-2'"))
    assert await fiat.rows("select name, iban from fiat.bank_transfers where reference = 'R-1'") == [
        ("A\N{REPLACEMENT CHARACTER}da", f"{IBAN}\N{REPLACEMENT CHARACTER}")
    ]


async def test_a_payments_answer_with_such_a_character_is_written_down(fiat: Participation) -> None:
    """Else the rejected one was never known, and the other was not paid either."""

    async def answer(method: str, _path: str, body: bytes) -> AsyncIterator[bytes]:
        if method == "GET":
            yield whole({}, 404)
            return
        order = json.loads(body)
        said = {name: order[name] for name in ("currency", "amount", "iban")}
        outcome = {"W-1": ("rejected", f"closed{NUL}"), "W-2": ("executed", "")}.get(order["reference"])
        if outcome is None:
            yield whole(b"no \0 of any kind", 422)
        else:
            status, reason = outcome
            yield whole({**said, "payment_id": "p", "key": order["reference"], "status": status, "reason": reason})

    await completed(fiat, "W-1", "W-2", "W-3")
    async with answering(answer) as url, attended(fiat, url, pay):

        async def are_settled() -> bool:
            return await states(fiat) == {"W-1": 4, "W-2": 3, "W-3": 5}

        await until(are_settled)
    details = dict(await fiat.rows("select withdrawal_id, detail from fiat.payments"))
    assert details["W-1"] == "closed\N{REPLACEMENT CHARACTER}"
    assert details["W-3"] == "the bank says 422: no \N{REPLACEMENT CHARACTER} of any kind"


async def test_a_list_that_goes_on_nowhere_is_not_asked_for_without_a_pause(fiat: Participation) -> None:
    """It tells the same transfer and the same place for ever."""
    calls: list[str] = []

    async def answer(_method: str, path: str, _body: bytes) -> AsyncIterator[bytes]:
        calls.append(path)
        yield whole({"transfers": [transfer("R-1")], "next": "1"})

    async with answering(answer) as url, attended(fiat, url, read_transfers):
        await until(lambda: has(fiat, "select 1 from fiat.bank_cursor where cursor = '1'"))
        # A pause that begins with the second call lasts longer than these look-ups.
        for _ in range(50):
            await fiat.rows("select 1")
    assert len(calls) <= 3


async def test_a_bank_that_answers_seldom_is_asked_as_often_as_another(fiat: Participation) -> None:
    """An error ends nothing, and an answer all pauses: else those who wait for transfers waited ever longer."""
    pages, errors_between = 9, 2
    calls = itertools.count(1)

    async def answer(_method: str, path: str, _body: bytes) -> AsyncIterator[bytes]:
        if next(calls) % (errors_between + 1):
            yield whole({"error": "UNAVAILABLE"}, 503)
            return
        after = int(parse_qs(path.partition("?")[2])["after"][0])
        yield whole({"transfers": [transfer(f"R-{after + 1}")], "next": str(after + 1)})

    async with answering(answer) as url:
        surroundings = Surroundings("fiat", fiat.dsn, SystemClock(), {"PINCEX_FIAT_BANK_URL": url})
        reading = asyncio.create_task(read_transfers(surroundings))
        await until(lambda: has(fiat, f"select 1 from fiat.bank_transfers where reference = 'R-{pages}'"), 30)
        assert not reading.done()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_an_answer_that_never_ends_is_no_answer() -> None:
    """Each piece comes in time, and the whole does not: nothing waits for it beyond the time-out."""
    order = PaymentOrder("W-1", "EUR", Decimal(10), IBAN, "Ada")
    async with answering(without_end) as url:
        settings = BankSettings.model_validate({"url": url, "timeout_s": 0.3})
        async with Bank.open(settings) as bank:
            with pytest.raises(UnclearError, match=r"within 0\.3 s"):
                await bank.pay(order)
            with pytest.raises(UnclearError, match=r"within 0\.3 s"):
                await bank.payment(order)
            with pytest.raises(UnclearError, match=r"within 0\.4 s"):
                await bank.transfers("", 0.1)


async def has(fiat: Participation, query: str) -> bool:
    return bool(await fiat.rows(query))
