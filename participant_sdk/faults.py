"""Faults for tests and drills: a TCP proxy whose links can be held, cut and slowed, one way or both.

Loopback only: it listens on 127.0.0.1 and forwards to one address.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
# Of the loop, from when a connection is accepted until it is served.
_TURNS: Final = 5


class Way(Enum):
    """A direction through the proxy: ``UP`` from the client to the server, ``DOWN`` back."""

    UP = "up"
    DOWN = "down"


class _Valve:
    """One direction: open, or held, with a delay for every chunk. Counts what has passed."""

    __slots__ = ("_open", "delay_s", "passed_bytes")

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.delay_s = 0.0
        self.passed_bytes = 0

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward until either side ends. What is held stays in order, and waits."""
        while chunk := await reader.read(CHUNK_BYTES):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._open.wait()
            writer.write(chunk)
            await writer.drain()
            self.passed_bytes += len(chunk)


class FaultProxy:
    """A TCP proxy in front of one server. Use ``proxying`` to run one.

    ``hold`` makes a link half open: bytes of that way wait, nobody is told. ``cut`` ends all
    connections; with ``refuse`` new ones end at once too, until ``restore``.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._valves = {way: _Valve() for way in Way}
        # The two ways of each connection, and the tasks that own them.
        self._ways: dict[asyncio.Task[None], None] = {}
        self._serving: dict[asyncio.Task[None], None] = {}
        self._refusing = False
        self.address = ""

    def hold(self, way: Way) -> None:
        """Let no byte through this way, from now on."""
        self._valves[way].hold()

    def release(self, way: Way) -> None:
        """Let through this way what was held and what comes."""
        self._valves[way].release()

    def slow(self, way: Way, delay_s: float) -> None:
        """Delay every chunk this way by so many seconds; 0 for no delay."""
        self._valves[way].delay_s = delay_s

    def passed_bytes(self, way: Way) -> int:
        """How much has gone through this way."""
        return self._valves[way].passed_bytes

    def cut(self, *, refuse: bool = False) -> None:
        """End every connection now; with ``refuse``, new ones too, until ``restore``."""
        self._refusing = refuse
        for way in list(self._ways):
            way.cancel()

    def restore(self) -> None:
        """Undo every fault."""
        self._refusing = False
        for valve in self._valves.values():
            valve.delay_s = 0.0
            valve.release()

    async def close(self) -> None:
        """End every connection and wait until all have ended, those too that were accepted just now."""
        self._refusing = True
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        while self._serving:
            self.cut(refuse=True)
            await asyncio.wait(list(self._serving))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a connection is served by a task")
        self._serving[task] = None
        try:
            if not self._refusing:
                await self._join(reader, writer)
        finally:
            await _close(writer)
            del self._serving[task]

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            # A server that is not there: the client sees its connection end.
            return
        ways = (
            asyncio.create_task(self._valves[Way.UP].carry(reader, server_writer)),
            asyncio.create_task(self._valves[Way.DOWN].carry(server_reader, writer)),
        )
        self._ways.update(dict.fromkeys(ways))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
                del self._ways[way]
            await asyncio.gather(*ways, return_exceptions=True)
            await _close(server_writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, whatever it still had to send."""
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def proxying(address: str) -> AsyncGenerator[FaultProxy]:
    """Run a proxy in front of host:port for the time of the block; its own address is ``proxy.address``."""
    host, _, port = address.rpartition(":")
    proxy = FaultProxy(host, int(port))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        # Before the server closes, for asyncio forgets a connection that is not served yet by then.
        await proxy.close()
        server.close()
        await proxy.close()
        await server.wait_closed()
