"""The workflows that every coordinator has."""

from coordinator.workflows.builtin.every import BUILT_IN, definitions

__all__ = ["BUILT_IN", "definitions"]
