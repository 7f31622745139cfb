"""What coverage counts: most tests, and of the processes that they start those that run what no test runs by itself.

Counting takes up to twice as long again as what is counted: a test that does ten thousand times what others do once
is marked ``uncounted``, and coverage looks away while it runs. In processes it is a third of a second for each besides,
and one that ends by kill -9, as most do here, tells nothing of what it counted. So whatever tests start is not counted,
but for what is started with ``counted()`` in its environment, and ends in order.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

from coverage import Coverage
from coverage.exceptions import CoverageWarning

_VARIABLE: Final = "COVERAGE_PROCESS_CONFIG"
# What coverage told this process to hand on, where it runs at all.
_HANDED_ON: Final = os.environ.get(_VARIABLE)


def counted() -> Mapping[str, str]:
    """What the environment of a process that counts has beside the rest."""
    return {} if _HANDED_ON is None else {_VARIABLE: _HANDED_ON}


def count_no_others() -> None:
    """Have no process count that is started from now on without being told to."""
    os.environ.pop(_VARIABLE, None)


@contextmanager
def looking_away() -> Generator[None]:
    """Have coverage, where it runs at all, count nothing for the time of the block."""
    counting = Coverage.current()
    if counting is None:
        yield
        return
    counting.stop()
    try:
        yield
    finally:
        with warnings.catch_warnings():
            # All that it counts is imported by now, and was from the beginning.
            warnings.simplefilter("ignore", CoverageWarning)
            counting.start()
