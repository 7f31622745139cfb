"""Processes whose lines coverage counts: those that a test starts to see what only a process of its own runs.

Counting is a third of a second for each process, and half as much again of all that it does; and one that ends by
kill -9, as most do here, tells nothing of what it counted. So whatever tests start is not counted, but for what is
started with ``counted()`` in its environment, and ends in order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

_VARIABLE: Final = "COVERAGE_PROCESS_CONFIG"
# What coverage told this process to hand on, where it runs at all.
_HANDED_ON: Final = os.environ.get(_VARIABLE)


def counted() -> Mapping[str, str]:
    """What the environment of a process that counts has beside the rest."""
    return {} if _HANDED_ON is None else {_VARIABLE: _HANDED_ON}


def count_no_others() -> None:
    """Have no process count that is started from now on without being told to."""
    os.environ.pop(_VARIABLE, None)
