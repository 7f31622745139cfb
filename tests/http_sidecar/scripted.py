"""A service that answers whatever a test wants, byte by byte, or not at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

CUT: Final = b""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came."""

    name: str
    branch: str
    body: dict[str, Any]
    headers: dict[str, str]
    raw: bytes


# What to send back; CUT ends the connection without an answer.
Answer = Callable[[Call], Awaitable[bytes]]


def answer(status: int, body: object = None, *, raw: bytes | None = None, headers: str = "") -> bytes:
    """Write an HTTP answer."""
    content = json.dumps({} if body is None else body).encode() if raw is None else raw
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n{headers}\r\n".encode() + content


async def yes(_: Call) -> bytes:
    """200, of everything."""
    return answer(200)


@dataclass(slots=True)
class Scripted:
    """Where it listens, what it was asked, and what it answers. Mutable: tests change their mind."""

    address: str = ""
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    calls: list[Call] = field(default_factory=list[Call])
    at_once: int = 0
    most_at_once: int = 0
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    def named(self, name: str, branch: str = "") -> list[Call]:
        """The calls of this name so far, of a branch or of all."""
        return [call for call in self.calls if call.name == name and branch in call.branch]

    async def until(self, name: str, count: int = 1, branch: str = "") -> None:
        """Return once it was called so often by this name."""
        async with self._came, asyncio.timeout(30):
            await self._came.wait_for(lambda: len(self.named(name, branch)) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's calls."""
        try:
            while answered := await self._serve_one(reader):
                writer.write(answered)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader) -> bytes:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in head[1:])}
        raw = await reader.readexactly(int(headers["content-length"]))
        body = json.loads(raw)
        call = Call(head[0].split()[1].rpartition("/")[2], body["branch_id"], body, headers, raw)
        assert call.name == body["call"]
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        async with self._came:
            self.calls.append(call)
            self._came.notify_all()
        try:
            return await self.answers.get(call.name, yes)(call)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def scripted(**answers: Answer) -> AsyncGenerator[Scripted]:
    """Serve on the loopback for the time of the block; ``answers`` by the call's name, and yes to the others."""
    service = Scripted(answers=answers)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await service.serve(reader, writer)
        finally:
            connections.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    service.address = f"{host}:{port}"
    try:
        yield service
    finally:
        # A connection that was accepted is served a few turns of the loop later, unless the server is closed by then.
        for _ in range(5):
            await asyncio.sleep(0)
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
