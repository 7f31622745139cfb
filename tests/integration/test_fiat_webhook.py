"""A recorded deposit is told to the webhook at least once, signed, under an id that never changes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import pytest

from participant_sdk.clock import SystemClock
from sidecars.fiat.notifications import notify
from sidecars.sidecar import Surroundings, attend
from tests.integration.companies import until
from tests.integration.participations import Participation, participating
from tests.integration.test_fiat import asked, deposit, read, tell
from tests.integration.test_fiat_bank import odd_bank

SIGNED_WITH = "a secret of the tests alone"


@pytest.fixture
async def fiat(database: str) -> AsyncGenerator[Participation]:
    async with participating(database, "fiat") as participation:
        await participation.do(asked("set_compliance", user_id="ada", state="CLEARED"))
        yield participation
        assert await participation.violations() == []


class Receiver:
    """The webhook: it answers with these statuses in turn, and 204 after them; none is an answer that never comes."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = iter(statuses)
        self.received: list[tuple[Mapping[str, str], bytes]] = []

    def answer(self, _method: str, _path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, object]:
        self.received.append((headers, body))
        return next(self._statuses, 204), b""


@asynccontextmanager
async def notifying(fiat: Participation, url: str, attempts: int = 30) -> AsyncGenerator[None]:
    environment = {
        "PINCEX_FIAT_WEBHOOK_URL": url,
        "PINCEX_FIAT_WEBHOOK_SECRET": SIGNED_WITH,
        "PINCEX_FIAT_WEBHOOK_ATTEMPTS_MAX": str(attempts),
    }
    task = asyncio.create_task(attend("test", notify, Surroundings("fiat", fiat.dsn, SystemClock(), environment)))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def came_to(fiat: Participation, reference: str, state: str) -> None:
    async def is_there() -> bool:
        return (await read(fiat, "deposit_status", bank_reference=reference)).get("notification") == state

    await until(is_there)


async def test_a_deposit_is_told_until_it_is_taken(fiat: Participation) -> None:
    """Refused and redirected, it comes again: the same id and body, each time with a signature of its time."""
    await tell(fiat, "R-1")
    receiver = Receiver(500, 302)
    async with odd_bank(receiver.answer) as url, notifying(fiat, url):
        await fiat.do(deposit("R-1"))
        await came_to(fiat, "R-1", "DELIVERED")
    ((notification_id,),) = await fiat.rows("select notification_id::text from fiat.notifications")
    assert len(receiver.received) == 3
    for headers, body in receiver.received:
        assert headers["webhook-id"] == notification_id
        signed = f"{notification_id}.{headers['webhook-timestamp']}.".encode() + body
        digest = hmac.new(SIGNED_WITH.encode(), signed, hashlib.sha256).digest()
        assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
        told = json.loads(body)
        assert told["type"] == "deposit.recorded"
        assert told["data"] == {"bank_reference": "R-1", "user_id": "ada", "currency": "EUR", "amount": "100.5"}


async def test_one_that_nobody_takes_is_given_up_and_shown_until_somebody_asks_again(fiat: Participation) -> None:
    await tell(fiat, "R-1")
    await fiat.do(deposit("R-1"))
    receiver = Receiver(500, 400)
    async with odd_bank(receiver.answer) as url:
        async with notifying(fiat, url, attempts=2):
            await came_to(fiat, "R-1", "DEAD")
        ((what, notification_id, detail),) = await fiat.rows("select * from fiat.attention")
        assert (what, detail) == ("NOTIFICATION_DEAD", "the webhook says 400")
        retry = "select fiat.retry_notification(%s::uuid, 'their server is mended')"
        assert await fiat.rows(retry, notification_id) == [(True,)]
        assert await fiat.rows(retry, notification_id) == [(False,)]
        async with notifying(fiat, url):
            await came_to(fiat, "R-1", "DELIVERED")
    assert [headers["webhook-id"] for headers, _ in receiver.received] == [notification_id] * 3
    assert await fiat.rows("select what from fiat.operator_actions") == [("RETRY_NOTIFICATION",)]


async def test_a_webhook_that_is_not_there_is_tried_again(fiat: Participation) -> None:
    """What was queued meanwhile is told, each once, when it comes back."""
    await tell(fiat, "R-1", "R-2")
    await fiat.do(deposit("R-1"), deposit("R-2"))
    async with notifying(fiat, "http://127.0.0.1:9/"):

        async def is_tried() -> bool:
            return (await fiat.rows("select min(attempts) from fiat.notifications"))[0][0] >= 2

        await until(is_tried)
    receiver = Receiver()
    async with odd_bank(receiver.answer) as url, notifying(fiat, url):
        for reference in ("R-1", "R-2"):
            await came_to(fiat, reference, "DELIVERED")
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == len(receiver.received) == 2
