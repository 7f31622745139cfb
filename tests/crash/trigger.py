"""What a crash point does in the process that reached it: nothing, until the process is armed.

Armed means that a file says which point, and at which hit of it from then on. The file is
taken away before the process is killed, so that its next life goes on. A file that counts says so, and is left.
"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

VARIABLE: Final = "PINCEX_CRASH_ARMED"
COUNTING: Final = "count"
ACTIONS: Final = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(slots=True)
class _Armed:
    """What the file said when it was read last, and how often its point was hit since. Not frozen: it counts."""

    order: str = ""
    hits: int = 0


_armed: Final = _Armed()


def arm(file: Path, point: str, nth: int, action: str = "kill") -> None:
    """Have the process that looks at this file end, or stop, at the ``nth`` hit of the point from now on."""
    unfinished = file.with_suffix(".new")
    unfinished.write_text(f"{point} {nth} {action}")
    unfinished.rename(file)


def count(file: Path) -> None:
    """Have the process that looks at this file write down every point that it comes by from now on."""
    arm(file, COUNTING, 0)


def counts_of(file: Path) -> Path:
    """Where a process that looks at this file writes them, one a line."""
    return file.with_suffix(".counts")


def hit(point: str, delay_s: float) -> None:
    """Count a hit; be killed at the one that the order names, or so long after it."""
    file = os.environ[VARIABLE]
    try:
        with open(file, encoding="ascii") as opened:  # noqa: PTH123 - the cheapest way to find nothing
            order = opened.read()
    except OSError:
        # It is not there; or the process may open no file any more, which is not ours to fail for.
        return
    name, nth, action = order.split()
    if name == COUNTING:
        with counts_of(Path(file)).open("a", encoding="ascii") as counts:
            counts.write(f"{point}\n")
    if name != point:
        return
    if order != _armed.order:
        _armed.order, _armed.hits = order, 0
    _armed.hits += 1
    if _armed.hits == int(nth):
        _armed.order = ""
        Path(file).unlink()
        if delay_s:
            threading.Timer(delay_s, os.kill, (os.getpid(), ACTIONS[action])).start()
        else:
            os.kill(os.getpid(), ACTIONS[action])
