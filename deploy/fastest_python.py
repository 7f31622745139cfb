"""Which Python `make setup` takes: the first on PATH, or another build of its version that is clearly faster.

CPython compiled with a profile of itself, as distributions do, runs Python code up to twice as fast as one compiled
plainly, as version managers do by default. A build does not say which it is, so each works for a moment, by turns.

Run by any Python 3.11 or later, without anything installed: ``python3 deploy/fastest_python.py`` prints a path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

NAMES = ("python3.11", "python3.12", "python3.13", "python3.14", "python3")
# The first on PATH stays the choice unless another is faster by more than what a busy machine makes of equals.
CLEARLY = 0.75
ANSWER_MAX_S = 5
TURNS = 3

# A virtual environment's Python tells of the one it was made from. Small objects and calls, as in the hot path.
_PROBE = """
import asyncio, ctypes, ssl, sys, time, venv
class Pair:
    __slots__ = ("left", "right")
    def __init__(self, left, right):
        self.left, self.right = left, right
    def sum(self, more):
        return self.left + self.right + more
def work():
    began = time.process_time()
    seen = {}
    for number in range(20_000):
        seen[number & 255] = Pair(number, 1).sum(2)
    return time.process_time() - began
if sys.implementation.name == "cpython":
    print(*sys.version_info[:2], min(work() for _ in range(10)), getattr(sys, "_base_executable", sys.executable))
"""


class Build(NamedTuple):
    """One Python of this machine. ``work_s`` is how long it took for a fixed piece of work, in seconds of CPU."""

    version: tuple[int, int]
    work_s: float
    path: str


def candidates(path: str) -> Iterable[str]:
    """Every file on PATH that is named like a Python, once, in the order of the names, and within a name of PATH."""
    folders = [folder for folder in path.split(os.pathsep) if folder]
    seen: set[Path] = set()
    for name in NAMES:
        for folder in folders:
            found = Path(folder) / name
            if os.access(found, os.X_OK) and found.resolve() not in seen:
                seen.add(found.resolve())
                yield str(found)


def probe(program: str) -> Build | None:
    """Let it work; None where it does not run, or answers nonsense."""
    try:
        done = subprocess.run(  # noqa: S603 - what runs is on the user's PATH
            [program, "-I", "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_MAX_S,
            check=True,
        )
        (line,) = done.stdout.splitlines()
        major, minor, work_s, path = line.split(" ", 3)
        return Build((int(major), int(minor)), float(work_s), path)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def probe_all(programs: Iterable[str]) -> list[Build]:
    """Those that work, each by the best of its turns: what else the machine did in one of them is no build's fault."""
    best = {program: build for program in programs if (build := probe(program)) is not None}
    for _ in range(TURNS - 1):
        for program, before in best.items():
            build = probe(program)
            if build is not None and build.work_s < before.work_s:
                best[program] = build
    return list(best.values())


def fastest(builds: Iterable[Build]) -> Build | None:
    """The first that is recent enough, or one of the same version that is clearly faster; None where there is none."""
    fitting = [build for build in builds if build.version >= (3, 11)]
    if not fitting:
        return None
    first = fitting[0]
    best = min((build for build in fitting if build.version == first.version), key=lambda build: build.work_s)
    return best if best.work_s < first.work_s * CLEARLY else first


def main() -> int:
    """Print the path of the Python to take; 1 and a word on standard error where there is none."""
    chosen = fastest(probe_all(candidates(os.environ.get("PATH", ""))))
    if chosen is None:
        print("Python 3.11 or later is needed", file=sys.stderr)
        return 1
    print(chosen.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
