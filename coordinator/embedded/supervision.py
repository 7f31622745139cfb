"""Keeps child processes and embedded servers running, and ends them with their owner.

A child that ends by itself is started again, after a pause that doubles up to a bound. Its
output goes to its log. None outlives this process: the kernel kills those that a kill -9 of
the owner would leave behind, which a system that survives kill -9 can bear.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from pydantic import BaseModel, ValidationError

from coordinator.embedded.leash import leashed
from coordinator.embedded.postgres import EmbeddedPostgres
from coordinator.embedded.process import EmbeddedServerError, log_end
from coordinator.embedded.redis import EmbeddedRedis

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_STEADY_S: Final = 30.0
_STOP_S: Final = 15.0
_LOOK_AGAIN_S: Final = 0.05
_ANSWER_S: Final = 2.0

Tell = Callable[[str], None]


class _Participant(BaseModel):
    """A participant, of a health answer."""

    name: str
    status: str


class _Health(BaseModel):
    """What is read of a health answer. Of one that cannot be had, nothing is up."""

    status: str = "DOWN"
    participants: tuple[_Participant, ...] = ()

    def is_up(self, without: Collection[str]) -> bool:
        """Whether everything is, whatever is said of the participants ``without``."""
        others = [each.status for each in self.participants if each.name not in without]
        return self.status == "UP" or (self.status == "DEGRADED" and bool(without) and set(others) <= {"UP"})


@dataclass(frozen=True, slots=True)
class Child:
    """A command to keep running. ``environment`` goes over our own.

    While it runs, its process id is in a file beside its log, ``NAME.pid``.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def pid_file(self) -> Path:
        """Where whoever wants to kill it finds which process it is."""
        return self.log.with_suffix(".pid")


async def keep_child(child: Child, stopping: asyncio.Event, tell: Tell) -> None:
    """Run the child until ``stopping``, again and again; then end it, by force after fifteen seconds.

    Cancelled, it kills the child and waits for its end.
    """
    loop = asyncio.get_running_loop()
    pause_s = _FIRST_PAUSE_S
    while not stopping.is_set():
        began_s = loop.time()
        process = await _start(child)
        child.pid_file.write_text(f"{process.pid}\n")
        try:
            code = await _until_ended(process, stopping)
        finally:
            child.pid_file.unlink(missing_ok=True)
        if stopping.is_set():
            return
        if loop.time() - began_s > _STEADY_S:
            pause_s = _FIRST_PAUSE_S
        tell(f"{child.name} {_ended_how(code)}; again in {pause_s:g} s. Its log ends:\n{log_end(child.log)}")
        await _pause(pause_s, stopping)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


async def keep_server(name: str, server: EmbeddedPostgres | EmbeddedRedis, tell: Tell) -> None:
    """Start the server again on its data whenever it ends, until cancelled, which leaves it running."""
    while True:
        await _server_ended(server)
        tell(f"{name} ended; it is started again on its data")
        server.stop()
        while not _starts(server, tell):  # noqa: ASYNC110 - trying again is all that can be done.
            await asyncio.sleep(_LONGEST_PAUSE_S)


async def await_port(port: int) -> None:
    """Return when something listens on the loopback's port."""
    while not await _listens(port):  # noqa: ASYNC110 - another process has no event for us.
        await asyncio.sleep(_LOOK_AGAIN_S)


async def await_up(url: str, without: Collection[str] = ()) -> None:
    """Return when the health at this URL says that everything is UP, but for the participants ``without``."""
    async with httpx.AsyncClient(timeout=_ANSWER_S) as client:
        while not (await _health(client, url)).is_up(without):  # noqa: ASYNC110 - as above.
            await asyncio.sleep(_LOOK_AGAIN_S)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _health(client: httpx.AsyncClient, url: str) -> _Health:
    try:
        return _Health.model_validate_json((await client.get(url)).content)
    except (httpx.TransportError, ValidationError):
        return _Health()


def _starts(server: EmbeddedPostgres | EmbeddedRedis, tell: Tell) -> bool:
    """Start the server in this thread, whose end is what the kernel would tell it; False where it does not start."""
    try:
        server.start()
    except EmbeddedServerError as error:
        tell(f"{error}\nIt is tried again in {_LONGEST_PAUSE_S:g} s.")
        return False
    return True


async def _server_ended(server: EmbeddedPostgres | EmbeddedRedis) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def watch() -> None:
        server.wait()
        # The loop may be gone: then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(ended.set)

    # Not one of the loop's own threads, for whose end the loop would wait when it closes.
    threading.Thread(target=watch, daemon=True).start()
    await ended.wait()


async def _start(child: Child) -> asyncio.subprocess.Process:
    with child.log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *leashed(child.command, death_signal=signal.SIGKILL),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **child.environment},
            # A Ctrl-C at the terminal is for us, who stop children in order.
            start_new_session=True,
        )


async def _until_ended(process: asyncio.subprocess.Process, stopping: asyncio.Event) -> int:
    """The exit code of a child that ended by itself, or because ``stopping`` was set."""
    try:
        async with asyncio.TaskGroup() as group:
            ended = group.create_task(process.wait())
            stop = group.create_task(stopping.wait())
            await asyncio.wait((ended, stop), return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not ended.done():
                process.terminate()
                await asyncio.wait((ended,), timeout=_STOP_S)
            if not ended.done():
                process.kill()
            return await ended
    finally:
        # Only a cancelled wait leaves it running.
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _pause(pause_s: float, stopping: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(pause_s):
            await stopping.wait()
    except TimeoutError:
        return


def _ended_how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
