"""Embedded PostgreSQL and Redis: real servers from wheels, under our own supervision."""

from coordinator.embedded.leash import leashed
from coordinator.embedded.postgres import EmbeddedPostgres, Shutdown
from coordinator.embedded.process import EmbeddedServerError
from coordinator.embedded.redis import EmbeddedRedis

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "EmbeddedServerError", "Shutdown", "leashed"]
