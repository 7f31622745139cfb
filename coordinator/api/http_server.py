"""The HTTP door: uvicorn within the coordinator's own loop, under its own signals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from coordinator.api.grpc_server import CannotListenError

HEADER_MAX_BYTES: Final = 16 * 1024
CONNECTIONS_MAX: Final = 2_000
IDLE_S: Final = 30


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with a bound on the wait for a whole head too, so that no silent client keeps its place.

    uvicorn's own bound begins with the first answer, and ends with the next byte.
    """

    _giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  As uvicorn has it.
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take what came; go on waiting, no longer than before, unless it completed a head."""
        super().data_received(data)
        if self._has_request():
            self._stop_waiting()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _has_request(self) -> bool:
        # It is None until the first, which uvicorn's types do not tell.
        return bool(self.cycle) and not self.cycle.response_complete

    def _await_head(self) -> None:
        if self._giving_up is None and not self.transport.is_closing():
            self._giving_up = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None


class _Server(uvicorn.Server):
    """uvicorn's server, leaving signals to the coordinator."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class HttpDoor:
    """The HTTP server. ``listen`` takes the port, ``run`` serves until ``stop``.

    A connection on which no request is served is closed after ``idle_s``, whatever part of a head has come.
    """

    def __init__(self, app: FastAPI, grace_s: int, *, idle_s: int = IDLE_S) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            http=_Protocol,
            ws="none",
            h11_max_incomplete_event_size=HEADER_MAX_BYTES,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=idle_s,
            timeout_graceful_shutdown=grace_s,
        )
        self._server = _Server(config)
        self._socket: socket.socket | None = None
        self.port = 0

    def listen(self, address: str) -> None:
        """Take the address ``host:port``; ``port`` is the port taken. CannotListenError."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, int(port)), family=family, backlog=1024)
        except OSError as error:
            raise CannotListenError(f"cannot listen for HTTP on {address} (server.http): {error}") from error
        self.port = self._socket.getsockname()[1]

    async def run(self) -> None:
        """Serve until ``stop``; then finish what is in flight, up to the bound."""
        if self._socket is None:
            raise RuntimeError("listen comes first")
        await self._server.serve([self._socket])

    def stop(self) -> None:
        """Take no more connections, and have ``run`` return."""
        self._server.should_exit = True
