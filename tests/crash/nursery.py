"""Processes of the product that are forked from one that has imported it: importing is most of what a start costs.

    python -m tests.crash.nursery coordinator

A forked process is killed like any other, and shares nothing with the next: the nursery imports, with the crash
points put in, and runs nothing. It reads an order a line, as JSON, and answers with the pid of whom it forked. Where
nobody arms their crash points, those do nothing: so tests that kill nothing at a point start processes here too.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import gc
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, Never

from coordinator.embedded import leashed
from tests.crash import launch, trigger

_ROOT: Final = Path(__file__).parents[2]
_PR_SET_PDEATHSIG: Final = 1
_numbers: Final = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Order:
    """A process that is wanted: its command's arguments, all of its environment, and the file for what it writes.

    Beside that are two files more: what arms its crash points, and the exit code, once it has one.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: str
    number: int = 0

    @property
    def armed(self) -> Path:
        """What arms its crash points."""
        return Path(self.log).with_suffix(".armed")

    @property
    def code(self) -> Path:
        """Its exit code, as text."""
        return Path(self.log).with_suffix(f".{self.number}.code")


class Forked:
    """A process that another one forked: what ``Popen`` does of it, by its pidfd, so never to another of that pid."""

    def __init__(self, pid: int, code: Path) -> None:
        self.pid = pid
        self._code = code
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = None

    def poll(self) -> int | None:
        """None while it runs, then its exit code; of one that was killed, whoever did, that of kill -9."""
        if not self._has_ended(0.0):
            return None
        return int(self._code.read_text(encoding="ascii")) if self._code.exists() else -signal.SIGKILL

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; nothing to do where it has ended."""
        if self._pidfd is not None and not self._has_ended(0.0):
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """kill -9; nothing to do where it has ended."""
        self.send(signal.SIGKILL)

    def wait(self) -> int | None:
        """Return its exit code once it has ended."""
        self._has_ended(None)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        return self.poll()

    async def ended(self) -> int | None:
        """Return its exit code once it has ended, with the loop free until then."""
        has_ended, loop = asyncio.Event(), asyncio.get_running_loop()
        if self._pidfd is not None:
            loop.add_reader(self._pidfd, has_ended.set)
            try:
                await has_ended.wait()
            finally:
                loop.remove_reader(self._pidfd)
        return self.wait()

    def _has_ended(self, within_s: float | None) -> bool:
        return self._pidfd is None or bool(select.select([self._pidfd], [], [], within_s)[0])


class Nursery:
    """Forks processes of one module, which is what ``launch`` takes for it. They end with it, and it with us."""

    def __init__(self, module: str) -> None:
        self._running = subprocess.Popen(
            leashed((sys.executable, "-m", "tests.crash.nursery", module), death_signal=signal.SIGKILL),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            text=True,
        )

    def fork(self, order: Order) -> Forked:
        """Have a process forked; the first one only when all is imported."""
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        # Its own: whoever ended before may be asked for its code after it was started again.
        order = replace(order, number=next(_numbers))
        self._running.stdin.write(json.dumps(asdict(order)) + "\n")
        self._running.stdin.flush()
        return Forked(int(self._running.stdout.readline()), order.code)

    def end(self) -> None:
        """End it, and whom it forked."""
        with self._running:
            self._running.kill()


@cache
def nursery_of(module: str) -> Nursery:
    """The module's nursery, for as long as this process lives. Call it from the main thread (see ``leash``)."""
    nursery = Nursery(module)
    atexit.register(nursery.end)
    return nursery


def fork(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Forked:
    """Have a module's process, with these arguments, and our environment with these changes."""
    module, *arguments = command
    return nursery_of(module).fork(Order(arguments, {**os.environ, **(environment or {})}, str(log)))


def main() -> None:
    """Import the module, and fork whenever that is asked for, until nobody can ask any more."""
    module = sys.argv[1]
    launch.load(module)
    # Nobody waits for those who are forked; and none of them copies memory only to count references.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.freeze()
    parent = os.getpid()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _live(module, Order(**json.loads(line)), parent)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _live(module: str, order: Order, parent: int) -> Never:
    """Be the process that was ordered, to its end."""
    code: int | str | None = 1
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return os._exit(1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for source, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        # As an interpreter that starts would; what is on the way already came with the nursery.
        places = order.environment.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [place for place in places if place and place not in sys.path]
        os.environ.clear()
        os.environ.update({**order.environment, trigger.VARIABLE: str(order.armed)})
        code = launch.run(module, order.arguments)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 - a process of its own, whose last word this is.
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        number = code if isinstance(code, int) else int(code is not None)
        order.code.write_text(f"{number}", encoding="ascii")
        os._exit(number)


if __name__ == "__main__":
    main()
