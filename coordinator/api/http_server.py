"""The HTTP door: uvicorn within the coordinator's own loop, under its own signals."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI

from coordinator.api.grpc_server import CannotListenError

HEADER_MAX_BYTES: Final = 16 * 1024
CONNECTIONS_MAX: Final = 2_000
KEEP_ALIVE_S: Final = 30


class _Server(uvicorn.Server):
    """uvicorn's server, leaving signals to the coordinator."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Capture none."""
        yield


class HttpDoor:
    """The HTTP server. ``listen`` takes the port, ``run`` serves until ``stop``."""

    def __init__(self, app: FastAPI, grace_s: int) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            h11_max_incomplete_event_size=HEADER_MAX_BYTES,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=KEEP_ALIVE_S,
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
