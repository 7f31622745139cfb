"""A process of the product with crash points in it: the coordinator's command, or a module that has a main.

The points are put into the text of the modules as they are imported, all of them. None does
anything until the file that arms the process is there, which says ``NAME NTH kill``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Final

from tests import patching
from tests.crash.points import parts_of, patches

COORDINATOR: Final = "coordinator"
# The command line imports what a command needs when that is called.
_COORDINATOR: Final = ("coordinator.cli", "coordinator.config", "coordinator.daemon")


def load(module: str) -> None:
    """Import what the process runs, with the crash points in it."""
    patching.install(patches(parts_of(module)))
    for name in _COORDINATOR if module == COORDINATOR else (module,):
        importlib.import_module(name)


def run(module: str, arguments: Sequence[str]) -> int:
    """Be the process, to its end; its exit code."""
    if module == COORDINATOR:
        sys.argv = ["pincex", module, *arguments]
        importlib.import_module("coordinator.cli").main()
        return 0
    code: int = importlib.import_module(module).main(arguments)
    return code
