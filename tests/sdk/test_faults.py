"""The proxy of faults does to a link what it says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from participant_sdk.faults import FaultProxy, Way, proxying


@asynccontextmanager
async def echoing() -> AsyncGenerator[FaultProxy]:
    """A proxy before a server that sends back each line."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, proxying(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        yield proxy


async def dial(proxy: FaultProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = proxy.address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def test_it_forwards_both_ways_and_counts() -> None:
    async with echoing() as proxy:
        reader, writer = await dial(proxy)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        assert proxy.passed_bytes(Way.UP) == proxy.passed_bytes(Way.DOWN) == 6
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_comes_as_the_proxy_closes_ends_with_it(turns: int) -> None:
    """Whether it is accepted, has a transport, or is served already: nobody is left who would close it."""
    async with echoing() as proxy:
        host, _, port = proxy.address.rpartition(":")
        # Blocking: the kernel has it in the queue of the listening socket when this returns.
        dialled = socket.create_connection((host, int(port)), timeout=5)
        for _ in range(turns):
            await asyncio.sleep(0)
    with dialled, contextlib.suppress(ConnectionResetError):
        assert dialled.recv(1) == b""


@pytest.mark.parametrize("way", list(Way))
async def test_what_is_held_waits_in_order_until_it_is_released(way: Way) -> None:
    async with echoing() as proxy:
        reader, writer = await dial(proxy)
        proxy.hold(way)
        writer.write(b"one\n")
        writer.write(b"two\n")
        held = asyncio.ensure_future(reader.readline())
        done, _ = await asyncio.wait([held], timeout=0.05)
        assert not done
        proxy.release(way)
        assert await held == b"one\n"
        assert await reader.readline() == b"two\n"
        writer.close()
        await writer.wait_closed()


async def test_a_slow_link_still_delivers() -> None:
    async with echoing() as proxy:
        proxy.slow(Way.DOWN, 0.01)
        reader, writer = await dial(proxy)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()


async def test_a_cut_ends_connections_and_refuses_new_ones_until_restored() -> None:
    async with echoing() as proxy:
        reader, writer = await dial(proxy)
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        proxy.cut(refuse=True)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        again, other = await dial(proxy)
        assert await again.read() == b""
        other.close()
        await other.wait_closed()
        proxy.restore()
        reader, writer = await dial(proxy)
        writer.write(b"back\n")
        assert await reader.readline() == b"back\n"
        writer.close()
        await writer.wait_closed()


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async with proxying("127.0.0.1:1") as proxy:
        reader, writer = await dial(proxy)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
