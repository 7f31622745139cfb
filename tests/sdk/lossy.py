"""A TCP relay that loses what a test tells it to lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final

CHUNK_BYTES: Final = 64 * 1024


class Relay:
    """Relays connections to one address. ``replies_lost`` swallows what comes back; ``cut`` ends them all."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""
        self.replies_lost = False

    @property
    def in_use(self) -> bool:
        """Whether anything is connected."""
        return bool(self._writers)

    def cut(self) -> None:
        """End every connection, at both ends, without another word."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Relay one connection until either side ends it."""
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        both = {writer, upstream_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, upstream_writer, replies=False))
                group.create_task(self._pump(upstream_reader, writer, replies=True))
        finally:
            self._writers -= both

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(CHUNK_BYTES):
                if not (replies and self.replies_lost):
                    writer.write(chunk)
                    await writer.drain()
        writer.close()


@asynccontextmanager
async def relay(target: str) -> AsyncGenerator[Relay]:
    """Relay to an address, host:port, for the time of the block."""
    made = Relay(target)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        made.cut()
        server.close()
        await server.wait_closed()
