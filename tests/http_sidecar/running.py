"""The sidecar as its command, killed and started again by a supervisor at the same address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import grpc

from coordinator.embedded.process import free_port
from tests.crash.nursery import Forked, fork
from tests.http_sidecar.at_work import NAME

ROOT: Final = Path(__file__).parents[2]
_START_TIMEOUT_S: Final = 60.0
_NO_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({})


def command(dsn: str, listen: str, service: str) -> tuple[str, ...]:
    """The arguments that serve the service at this address."""
    urls = (f"--{call}-url=http://{service}/{call}" for call in ("try", "confirm", "cancel"))
    return ("http", "--name", NAME, "--dsn", dsn, "--listen", listen, "--timeout", "8", *urls)


class RunningSidecar:
    """One sidecar's process. Mutable: it is killed and started again. ``lives`` counts its starts."""

    def __init__(self, dsn: str, service: str, environment: Mapping[str, str], module: str, log: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.lives = 0
        self._command = (module, *command(dsn, self.address, service))
        self._environment = environment
        self._log = log
        self._process: Forked | None = None
        self._started = asyncio.Event()

    async def supervise(self) -> None:
        """Keep it running."""
        while True:
            self._process = fork(self._command, self._log, self._environment)
            self.lives += 1
            self._started.set()
            try:
                await self._process.ended()
            except asyncio.CancelledError:
                self._process.kill()
                self._process.wait()
                raise

    async def restart(self) -> None:
        """kill -9, and return once another one is being started."""
        await self._started.wait()
        assert self._process is not None
        self._started.clear()
        self._process.kill()
        await self._started.wait()

    async def ready(self) -> None:
        """Return when it serves."""
        async with grpc.aio.insecure_channel(self.address) as channel, asyncio.timeout(_START_TIMEOUT_S):
            await channel.channel_ready()


@asynccontextmanager
async def running_sidecar(
    dsn: str,
    service: str,
    folder: Path,
    environment: Mapping[str, str] = _NO_ENVIRONMENT,
    module: str = "sidecars.main",
) -> AsyncGenerator[RunningSidecar]:
    """Keep the sidecar of a service running for the time of the block."""
    running = RunningSidecar(dsn, service, environment, module, folder / "sidecar.log")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(running.supervise())
        try:
            await running.ready()
            yield running
        finally:
            task.cancel()
