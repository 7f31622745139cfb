"""Who is told of deposits: a webhook that fails now and then, and keeps what it hears before it says that it did.

What it is told must be signed as Standard Webhooks 1.0 (standardwebhooks.com) has it, which is reckoned here anew.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from random import Random
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from coordinator.api.http_server import HttpDoor
from coordinator.demo.record import Record

_LISTEN: Final = "127.0.0.1:0"
# How many calls are refused, of those that were not heard, and of those that were.
_DEAF_SHARE: Final = 0.08
_SILENT_SHARE: Final = 0.08
_GRACE_S: Final = 1
_HEARD: Final = 204
_BROKEN: Final = 503


class Webhook:
    """It takes a port at once, and answers while ``run`` does."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._secret = secrets.token_hex()
        self._record: Record | None = None
        app = FastAPI(routes=[Route("/", self._hear, methods=["POST"])], openapi_url=None)
        self._server = HttpDoor(app, _GRACE_S)
        self._server.listen(_LISTEN)

    @property
    def environment(self) -> Mapping[str, str]:
        """By which fiat finds it."""
        return {
            "PINCEX_FIAT_WEBHOOK_URL": f"http://127.0.0.1:{self._server.port}/",
            "PINCEX_FIAT_WEBHOOK_SECRET": self._secret,
        }

    async def run(self, record: Record) -> None:
        """Hear, and keep what is heard in the record, until ``stop``."""
        self._record = record
        await self._server.run()

    def stop(self) -> None:
        """Hear no more."""
        self._server.stop()

    async def _hear(self, request: Request) -> Response:
        assert self._record is not None  # noqa: S101 - it serves only in ``run``
        body = await request.body()
        if self._random.random() < _DEAF_SHARE:
            return Response(status_code=_BROKEN)
        name, when = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
        digest = hmac.digest(self._secret.encode(), f"{name}.{when}.".encode() + body, hashlib.sha256)
        is_signed = hmac.compare_digest(
            request.headers.get("webhook-signature", ""), f"v1,{base64.b64encode(digest).decode()}"
        )
        await self._record.noticed(name, body.decode(), is_signed=is_signed)
        return Response(status_code=_BROKEN if self._random.random() < _SILENT_SHARE else _HEARD)
