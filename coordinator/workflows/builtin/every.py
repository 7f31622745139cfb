"""The built-in workflows, together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coordinator.workflows.definitions import Definition

BUILT_IN: Final[tuple[Definition, ...]] = ()


def definitions() -> Mapping[str, Definition]:
    """All of them, by kind."""
    return {definition.kind: definition for definition in BUILT_IN}
