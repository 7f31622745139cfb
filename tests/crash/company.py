"""Whoever plays another company, started as a module of ours: ``tests.crash.company sidecars.simulators.chain …``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from sidecars.simulators import serving


def main(arguments: Sequence[str]) -> int:
    """Play the company of the module that is named first; its exit code."""
    module, *others = arguments
    return serving.main(importlib.import_module(module).COMPANY, others)
