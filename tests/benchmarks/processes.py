"""The benchmark's processes: started on a leash, watched, ended; and the CPU that each has used."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil

from coordinator.embedded import leashed

ROOT: Final = Path(__file__).parents[2]
STOP_S: Final = 15.0
_LOG_END_BYTES: Final = 3_000


class ProcessFailedError(Exception):
    """A process ended that should not have, or did not do its work. The message ends with its log's end."""


@asynccontextmanager
async def process(
    name: str, arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str]
) -> AsyncGenerator[int]:
    """Run ``python -m arguments`` for the time of the block; gives its process id, its output goes to a log.

    ProcessFailedError when it ended by itself, or not in time after SIGTERM.
    """
    with (folder / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(  # noqa: ASYNC220 - forking takes a moment, and nothing else runs then.
            leashed((sys.executable, "-m", *arguments), death_signal=signal.SIGKILL),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            cwd=ROOT,
            start_new_session=True,
        )
    try:
        yield child.pid
        if child.poll() is not None:
            raise ProcessFailedError(f"{name} ended with {child.returncode}:\n{log_end(name, folder)}")
        child.terminate()
        await asyncio.to_thread(child.wait, STOP_S)
    except subprocess.TimeoutExpired as error:
        raise ProcessFailedError(f"{name} did not stop in {STOP_S:g} s:\n{log_end(name, folder)}") from error
    finally:
        child.kill()
        child.wait()


def log_end(name: str, folder: Path) -> str:
    """The end of a process's log."""
    return (folder / f"{name}.log").read_bytes()[-_LOG_END_BYTES:].decode(errors="replace")


async def output_of(name: str, arguments: tuple[str, ...], *, codes: tuple[int, ...] = (0,)) -> bytes:
    """Run ``python -m arguments`` to its end and return what it wrote. ProcessFailedError at another exit code."""
    child = await asyncio.create_subprocess_exec(
        *leashed((sys.executable, "-m", *arguments), death_signal=signal.SIGKILL),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    output, errors = await child.communicate()
    if child.returncode not in codes or not output:
        raise ProcessFailedError(f"{name} ended with {child.returncode}:\n{errors[-_LOG_END_BYTES:].decode()}")
    return output


def cpu_s(pids: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds used so far by each process, the children it has now, and those it had."""
    return {name: _cpu_s(psutil.Process(pid)) for name, pid in pids.items()}


def _cpu_s(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(_own_cpu_s(member) for member in family)


def _own_cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system
