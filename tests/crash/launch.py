"""A process of the product with crash points in it.

    python -m tests.crash.launch --armed FILE -- coordinator --config coordinator.yaml
    python -m tests.crash.launch --armed FILE -- sidecars.main trading --dsn … --listen …

The points are put into the text of the modules as they are imported, all of them. None does
anything until the file is there, which says ``NAME NTH kill``; ``--point`` and ``--nth`` write it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests import patching
from tests.crash import trigger
from tests.crash.points import EVERY_POINT, parts_of, patches

COORDINATOR: Final = "coordinator"
# The command line imports what a command needs when that is called.
_COORDINATOR: Final = ("coordinator.cli", "coordinator.config", "coordinator.daemon")


def main() -> int:
    """Become the process; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.launch")
    parser.add_argument("--armed", type=Path, required=True, help="the file that arms the process")
    parser.add_argument("--point", choices=[point.name for point in EVERY_POINT], help="arm it from the start")
    parser.add_argument("--nth", type=int, default=1, help="the hit that kills")
    parser.add_argument("command", nargs="+", help="coordinator, or a module that has a main, and its arguments")
    options = parser.parse_args()
    os.environ[trigger.VARIABLE] = str(options.armed)
    if options.point:
        trigger.arm(options.armed, options.point, options.nth)
    module, *arguments = options.command
    load(module)
    return run(module, arguments)


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


if __name__ == "__main__":
    sys.exit(main())
