"""Embedded PostgreSQL and Redis: real servers from wheels, under our own supervision."""

from coordinator.embedded.leash import leashed
from coordinator.embedded.postgres import EmbeddedPostgres, EmbeddedServerError, Shutdown

__all__ = ["EmbeddedPostgres", "EmbeddedServerError", "Shutdown", "leashed"]
