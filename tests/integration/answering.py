"""A server that answers each call with whatever bytes a test wants."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

# Of a call's method, path with query, and body: the pieces of the answer.
Answer = Callable[[str, str, bytes], AsyncIterator[bytes]]

_LENGTH: Final = b"content-length:"


def whole(body: object, status: int = 200) -> bytes:
    """An HTTP answer in one piece; bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(content)) + content


async def without_end(_method: str, _path: str, _body: bytes) -> AsyncIterator[bytes]:
    """An answer that goes on and on, each piece of it in good time."""
    yield b"HTTP/1.1 200 X\r\ncontent-length: 1000000\r\n\r\n"
    while True:
        await asyncio.sleep(0.05)
        yield b" "


@asynccontextmanager
async def answering(answer: Answer) -> AsyncGenerator[str]:
    """Serve until the block ends; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.decode().split(" ", 2)
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(_LENGTH)]
                body = await reader.readexactly(int(lengths[0].removeprefix(_LENGTH)) if lengths else 0)
                async for piece in answer(method, path, body):
                    writer.write(piece)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
