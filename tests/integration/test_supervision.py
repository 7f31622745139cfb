"""Children are kept running, end in order, and never outlive their owner."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.embedded.process import free_port, processes_in
from coordinator.embedded.redis import EmbeddedRedis
from coordinator.embedded.supervision import Child, await_port, keep_child, keep_server

_LISTEN = (
    "import socket,sys; s=socket.create_server(('127.0.0.1',int(sys.argv[1]))); print('up',flush=True); s.accept()"
)
_DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"


def _child(folder: Path, code: str, *arguments: str) -> Child:
    return Child("child", (sys.executable, "-c", code, *arguments), folder / "child.log", {"GIVEN": "value"})


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what another process does is no event here.
            await asyncio.sleep(0.01)


async def test_a_child_that_ends_is_started_again_and_told(tmp_path: Path) -> None:
    """A crashed process comes back by itself; who watches is told how it ended, with its last words."""
    told: asyncio.Queue[str] = asyncio.Queue()
    stopping = asyncio.Event()
    child = _child(tmp_path, "import os; print('last words', os.environ['GIVEN']); raise SystemExit(3)")
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_child(child, stopping, told.put_nowait))
        for _ in range(2):
            message = await told.get()
            assert "ended with code 3" in message
            assert message.endswith("last words value")
        stopping.set()
    assert child.log.read_text().count("last words") == 2


async def test_a_child_is_ended_when_told(tmp_path: Path) -> None:
    told: list[str] = []
    stopping = asyncio.Event()
    port = free_port()
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_child(_child(tmp_path, _LISTEN, str(port)), stopping, told.append))
        await await_port(port)
        stopping.set()
    assert told == []


async def test_a_killed_child_is_told_with_its_signal(tmp_path: Path) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    stopping = asyncio.Event()
    child = _child(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    async with asyncio.TaskGroup() as group:
        group.create_task(keep_child(child, stopping, told.put_nowait))
        assert "ended by SIGKILL" in await told.get()
        stopping.set()


async def test_a_cancelled_watch_kills_even_a_deaf_child(tmp_path: Path) -> None:
    """Cancellation leaves no child behind, whatever it does with signals."""
    child = _child(tmp_path, f"import os; os.chdir({str(tmp_path)!r}); {_DEAF}")
    watch = asyncio.create_task(keep_child(child, asyncio.Event(), print))
    await _until(lambda: child.log.exists() and "up" in child.log.read_text())
    assert len(processes_in(tmp_path)) == 1
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
    assert processes_in(tmp_path) == []


async def test_a_server_that_was_killed_is_started_again_on_its_data(server_folder: Path) -> None:
    server = EmbeddedRedis(server_folder / "kept")
    server.start()
    told: asyncio.Queue[str] = asyncio.Queue()
    watch = asyncio.create_task(keep_server("Redis", server, told.put_nowait))
    (first,) = processes_in(server.data)
    os.kill(first, signal.SIGKILL)
    assert "Redis ended" in await told.get()
    await await_port(server.port)
    (second,) = processes_in(server.data)
    assert second != first
    watch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watch
    server.stop()


def test_no_port_is_given_twice() -> None:
    """A server may listen on its port only seconds after it was given it."""
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == len(ports)
