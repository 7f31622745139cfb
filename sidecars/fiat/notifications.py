"""Recorded deposits, told to a webhook: at least once each, under an id that never changes, signed.

The headers and the signature are those of Standard Webhooks 1.0 (standardwebhooks.com): ``webhook-id``,
``webhook-timestamp`` and ``webhook-signature``, which is ``v1,`` and the base64 of HMAC-SHA256 over
``id.timestamp.body``. Whoever receives it drops an id that it has seen.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

import httpx
import structlog
from psycopg.rows import DictRow

from participant_sdk.clock import Clock
from sidecars.fiat.outbox import Outbox, idle, pause_after_s
from sidecars.fiat.settings import WebhookSettings, webhook_settings
from sidecars.fiat.statements import statement
from sidecars.sidecar import Surroundings

PAUSE_LONGEST_S: Final = 3_600.0

_QUEUED: Final = 1
_DELIVERED: Final = 2
_DEAD: Final = 3

_SETTLE: Final = statement("settle_notification")

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


async def notify(surroundings: Surroundings) -> None:
    """Deliver what is queued, until cancelled. An attendant of fiat."""
    settings = webhook_settings(surroundings.environment)
    if settings is None:
        _log.warning("webhook_not_configured", participant=surroundings.participant, variable="PINCEX_FIAT_WEBHOOK_URL")
        await idle()
        return
    async with (
        Outbox.open("notification", surroundings.dsn, settings.timeout_s + 2) as outbox,
        httpx.AsyncClient(timeout=settings.timeout_s) as client,
    ):
        sender = Sender(outbox, client, settings, surroundings.clock, surroundings.participant)
        async for rows in outbox.claims():
            async with asyncio.TaskGroup() as group:
                for row in rows:
                    group.create_task(sender.send(row))


class Sender:
    """Delivers claimed notifications, and writes down what came of them."""

    def __init__(
        self, outbox: Outbox, client: httpx.AsyncClient, settings: WebhookSettings, clock: Clock, participant: str
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._settings = settings
        self._clock = clock
        self._told: structlog.stdlib.BoundLogger = _log.bind(participant=participant)

    async def send(self, row: DictRow) -> None:
        """Deliver one; or have it sent again later, or given up."""
        notification_id, attempts = str(row["notification_id"]), row["attempts"]
        problem = await self._post(notification_id, row["body"].encode())
        state = _DELIVERED
        if problem and attempts >= self._settings.attempts_max:
            state = _DEAD
            self._told.error("notification_dead", notification_id=notification_id, attempts=attempts, error=problem)
        elif problem:
            state = _QUEUED
            self._told.warning("notification_failed", notification_id=notification_id, attempts=attempts, error=problem)
        pause_s = pause_after_s(attempts, PAUSE_LONGEST_S) if problem else 0.0
        found = {"notification_id": notification_id, "state": state, "detail": problem[:500], "pause_s": pause_s}
        await self._outbox.write(_SETTLE, found)

    async def _post(self, notification_id: str, body: bytes) -> str:
        """What went wrong; nothing if it was taken."""
        timestamp = str(self._clock.unix_ms() // 1000)
        secret = self._settings.secret.get_secret_value().encode()
        headers = {"content-type": "application/json", **signed(notification_id, timestamp, body, secret)}
        try:
            response = await self._client.post(str(self._settings.url), content=body, headers=headers)
        except httpx.RequestError as error:
            return f"{type(error).__name__}: {error}"
        return "" if response.is_success else f"the webhook says {response.status_code}"


def signed(notification_id: str, timestamp: str, body: bytes, secret: bytes) -> Mapping[str, str]:
    """The headers by which the receiver knows what it is, and from whom."""
    content = f"{notification_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
    return {"webhook-id": notification_id, "webhook-timestamp": timestamp, "webhook-signature": f"v1,{signature}"}
