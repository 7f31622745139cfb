"""A simulator's process as a test has it: told to misbehave, killed, started again on its books."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from coordinator.embedded.process import free_port
from tests.crash.nursery import Forked, fork


class Company:
    """One simulator, at one address for all its lives. Mutable: it has one life after another."""

    def __init__(self, name: str, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self._name = name
        self._folder = folder
        self._process: Forked | None = None

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        listen = self.url.removeprefix("http://")
        module = ("tests.crash.company", f"sidecars.simulators.{self._name}")
        options = ("--listen", listen, "--folder", str(self._folder), "--seed", "7")
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = fork((*module, *options), self._log)
        await until(self._serves)

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        await self._process.ended()

    async def stop(self) -> int:
        """Stop it in order, and return its exit code."""
        assert self._process is not None
        self._process.send(signal.SIGTERM)
        code = await self._process.ended()
        assert code is not None
        return code

    @property
    def _log(self) -> Path:
        return self._folder / f"{self._name}.log"

    async def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        host, _, port = self.url.removeprefix("http://").partition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        writer.close()
        return True

    async def misbehave(self, *faults: dict[str, Any]) -> None:
        """Have these go wrong from now on, and nothing else."""
        await self.ask("PUT", "/behaviour", {"faults": list(faults)})

    async def ask(
        self, method: str, path: str, body: object = None, *, expect: tuple[int, ...] = (200, 201), **more: Any
    ) -> Any:
        """Call it, and read its answer."""
        async with httpx.AsyncClient(base_url=self.url, timeout=60) as client:
            response = await client.request(method, path, json=body, **more)
        assert response.status_code in expect, response.text
        return response.json()

    async def violations(self) -> list[str]:
        """What its own invariants find wrong."""
        return (await self.ask("GET", "/invariants"))["violations"]


@asynccontextmanager
async def playing(name: str, folder: Path) -> AsyncGenerator[Company]:
    """A simulator, killed at the end of the block; by then its books are sound."""
    company = Company(name, folder)
    await company.start()
    try:
        yield company
        assert await company.violations() == []
    finally:
        await company.kill()


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 90.0) -> None:
    """Return once the condition holds, of other processes, which have no event for us."""
    deadline_s = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline_s, "it did not come true in time"
        await asyncio.sleep(0.05)
