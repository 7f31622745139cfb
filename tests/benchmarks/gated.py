"""Two participants in memory, behind a gate: ``python -m tests.benchmarks.gated PORT PORT``.

SIGUSR1 shuts it: no vote leaves, whatever was sent. SIGUSR2 opens it again.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from typing import Final

import uvloop

from participant_sdk.clock import SystemClock
from participant_sdk.resources.memory import MemoryResource
from participant_sdk.resources.memory_store import MemoryStore
from participant_sdk.server import serving

NAMES: Final = ("gated-payer", "gated-payee")
ACCOUNT: Final = "a"
BALANCE: Final = 1_000_000_000


async def _serve(ports: list[int]) -> None:
    """Serve until SIGTERM."""
    gate = asyncio.Event()
    gate.set()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, gate.clear)
    loop.add_signal_handler(signal.SIGUSR2, gate.set)
    loop.add_signal_handler(signal.SIGTERM, stopping.set)

    async def pass_() -> None:
        await gate.wait()

    async with AsyncExitStack() as stack:
        for name, port in zip(NAMES, ports, strict=True):
            store = MemoryStore({ACCOUNT: BALANCE}, gate=pass_)
            resource = MemoryResource(name, store, SystemClock())
            await stack.enter_async_context(serving(resource, f"127.0.0.1:{port}"))
        await stopping.wait()
        gate.set()


if __name__ == "__main__":
    uvloop.run(_serve([int(port) for port in sys.argv[1:]]))
