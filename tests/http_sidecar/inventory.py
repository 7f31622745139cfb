"""The example service in Go, built and run: ``docs/examples/inventory``."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest

from coordinator.embedded import leashed
from coordinator.embedded.process import free_port
from sidecars.http.target import Target

SOURCE: Final = Path(__file__).parents[2] / "docs" / "examples" / "inventory"
BUILT: Final = Path(__file__).parents[2] / "build" / "inventory"
SECRET: Final = "a secret of the tests, long enough for one"  # noqa: S105 - of the tests
_NO_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({})


def target_at(address: str, **settings: Any) -> Target:
    """The three URLs of a service at this address."""
    return Target(f"http://{address}/try", f"http://{address}/confirm", f"http://{address}/cancel", **settings)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 60.0) -> None:
    """Return once the condition holds, of other processes, which have no event for us."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)


@cache
def _go() -> str:
    go = shutil.which("go")
    if go is None:
        pytest.skip("go is not installed: the example service in Go cannot be built")
    return go


async def built() -> Path:
    """Build the example; its test is skipped only where there is no Go."""
    go = _go()
    BUILT.parent.mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(go, "build", "-o", str(BUILT), ".", cwd=SOURCE)
    assert await process.wait() == 0
    return BUILT


class Inventory:
    """One running example. Mutable: it is killed and started again, over the same journal at the same address."""

    def __init__(self, program: Path, journal: Path, environment: Mapping[str, str]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._program = program
        self._journal = journal
        self._environment = environment
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it, and return when it listens."""
        command = [str(self._program), "-listen", self.address, "-journal", str(self._journal)]
        self._process = await asyncio.create_subprocess_exec(
            *leashed(command, death_signal=signal.SIGKILL), env={**os.environ, **self._environment}
        )
        await until(self._listens)

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def records(self) -> list[dict[str, Any]]:
        """What its journal says, line by line."""
        return [json.loads(line) for line in self._journal.read_text().splitlines()]

    def ends(self) -> Counter[str]:
        """How many branches stand where."""
        return Counter({record["branch"]: record["state"] for record in self.records()}.values())

    def stock(self, sku: str) -> int:
        """How much is there, counted from the journal as whoever reads it would, in its own way."""
        confirmed = [record for record in self.records() if record["state"] == "confirmed"]
        last = {record["branch"]: record for record in self.records()}
        brought = sum(record.get("brought", {}).get(sku, 0) for record in confirmed)
        taken = [it.get("taken", {}).get(sku, 0) for it in last.values() if it["state"] in ("held", "confirmed")]
        return brought - sum(taken)

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(*self.address.split(":"))
        except OSError:
            return False
        writer.close()
        return True


@asynccontextmanager
async def inventory(folder: Path, environment: Mapping[str, str] = _NO_ENVIRONMENT) -> AsyncGenerator[Inventory]:
    """Run the example for the time of the block."""
    running = Inventory(await built(), folder / "inventory.journal", environment)
    await running.start()
    try:
        yield running
    finally:
        await running.kill()
