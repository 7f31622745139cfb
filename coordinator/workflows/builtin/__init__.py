"""The workflows that every coordinator has."""

from coordinator.workflows.builtin.every import definitions

__all__ = ["definitions"]
