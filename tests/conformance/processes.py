"""Participants' processes under a supervisor, which starts a killed one again at the same address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from coordinator.embedded.process import free_port
from participant_sdk.conformance import WorkOrder
from tests.crash.nursery import Forked, fork

START_TIMEOUT_S = 120.0
ROOT = Path(__file__).parents[2]


class Supervised:
    """One participant's process. Mutable: it is killed and started again."""

    def __init__(self, kind: str, dsn: str, folder: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.pid_file = folder / f"{kind}.pid"
        self._work_port = free_port()
        self._log = folder / f"{kind}.log"
        arguments = (kind, "--dsn", dsn, "--listen", self.address, "--work", str(self._work_port))
        self._command = ("tests.conformance.sidecar", *arguments)
        self._process: Forked | None = None
        self.started = asyncio.Event()

    async def supervise(self) -> None:
        """Keep it running."""
        while True:
            self._process = fork(self._command, self._log)
            self.pid_file.write_text(str(self._process.pid))
            self.started.set()
            try:
                await self._process.ended()
            except asyncio.CancelledError:
                self._process.kill()
                self._process.wait()
                raise

    async def restart(self) -> None:
        """kill -9, and return once another one is being started."""
        assert self._process is not None
        self.started.clear()
        self._process.kill()
        await self.started.wait()

    async def work(self, order: WorkOrder) -> None:
        """Have it do one operation under a branch."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._work_port)
        line = f"{order.log_id} {order.xid} {order.branch_number} {order.remaining_ms}\n"
        writer.write(line.encode())
        assert await reader.readline() == b"done\n"
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def supervised(kind: str, dsn: str, folder: Path) -> AsyncGenerator[Supervised]:
    """Keep a participant's process running for the time of the block."""
    running = Supervised(kind, dsn, folder)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(running.supervise())
        await running.started.wait()
        try:
            async with grpc.aio.insecure_channel(running.address) as channel, asyncio.timeout(START_TIMEOUT_S):
                await channel.channel_ready()
            yield running
        finally:
            task.cancel()
