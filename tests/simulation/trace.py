"""What happened in a run, line by line, as a hash and a tail: two runs of a seed must agree on it."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Final

from tests.simulation.loop import SimulatedLoop

TAIL_LINES: Final = 2_000


class Trace:
    """Lines with the virtual time and the loop's step, so that a difference in schedule shows at the next line.

    ``detailed`` adds what a reader wants and the hash does not need; the hash is the same either way.
    """

    def __init__(self, loop: SimulatedLoop, *, detailed: bool = False) -> None:
        self._loop = loop
        self._hash = hashlib.sha256()
        self._detailed = detailed
        self.lines: deque[str] = deque(maxlen=None if detailed else TAIL_LINES)
        self.count = 0

    def note(self, line: str, detail: Callable[[], str] | None = None) -> None:
        """Add a line."""
        text = f"{self._loop.time():.6f} {self._loop.steps} {line}"
        self._hash.update(text.encode())
        self._hash.update(b"\n")
        self.count += 1
        self.lines.append(f"{text} {detail()}" if self._detailed and detail else text)

    def digest(self) -> str:
        """The hash of all lines so far."""
        return self._hash.hexdigest()
