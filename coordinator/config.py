"""The configuration: one frozen object, read once, wrong in nothing or refused with the key.

Keys and defaults are those of the system's description; ``configs/transaction-manager.yaml``
lists them all. Sources, the later winning: the file that ``TRANSACTION_CONFIG_PATH`` names,
``LOG_LEVEL`` for ``logging.level``, and for any key a variable such as
``PINCEX_XA_MANAGER__TRANSACTION_TIMEOUT=2m`` (lists and mappings as YAML or JSON).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from coordinator import config_sources
from coordinator.config_sources import InvalidConfigError
from coordinator.config_values import (
    MEMORY_STORE,
    connection_string,
    host_port,
    lock_store,
    one_of,
    participant_name,
    share,
    span,
    switch,
    text,
    whole,
)

PATH_VARIABLE: Final = "TRANSACTION_CONFIG_PATH"
Switch = Annotated[bool, switch()]
Level = Annotated[str, one_of("debug", "info", "warning", "error")]


class _Section(BaseModel):
    """One part of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class XaManager(_Section):
    """Time limits and capacity of transactions. ``transaction_timeout`` is for reaching a decision."""

    transaction_timeout: Annotated[timedelta, span("10ms", "55m")] = timedelta(minutes=5)
    prepare_timeout: Annotated[timedelta, span("10ms", "55m")] = timedelta(seconds=30)
    commit_timeout: Annotated[timedelta, span("10ms", "1h")] = timedelta(seconds=60)
    rollback_timeout: Annotated[timedelta, span("10ms", "1h")] = timedelta(seconds=30)
    max_concurrent_txns: Annotated[int, whole(1, 100_000)] = 1000
    recovery_interval: Annotated[timedelta, span("100ms", "1h")] = timedelta(seconds=30)


class Recovery(_Section):
    """How unfinished work is brought to its end."""

    enabled: Switch = True
    max_recovery_attempts: Annotated[int, whole(1, 1000)] = 3
    recovery_timeout: Annotated[timedelta, span("1s", "1h")] = timedelta(minutes=2)
    retry_backoff_initial: Annotated[timedelta, span("10ms", "1m")] = timedelta(seconds=1)
    retry_backoff_max: Annotated[timedelta, span("10ms", "1h")] = timedelta(seconds=30)
    parallel_recovery: Switch = True
    circuit_breaker_enabled: Switch = True

    @model_validator(mode="after")
    def _backoff_rises(self) -> Recovery:
        if self.retry_backoff_max < self.retry_backoff_initial:
            raise ValueError("retry_backoff_max must not be below retry_backoff_initial")
        return self


class EmailNotifications(_Section):
    """Alerts by mail."""

    enabled: Switch = False
    smtp_host: Annotated[str, text(longest=253)] = ""
    to_addresses: tuple[Annotated[str, text(longest=320)], ...] = ()

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> EmailNotifications:
        if self.enabled and not (self.smtp_host and self.to_addresses):
            raise ValueError("enabled needs smtp_host and at least one of to_addresses")
        return self


class SlackNotifications(_Section):
    """Alerts to a Slack channel."""

    enabled: Switch = False
    webhook_url: Annotated[str, text(longest=2048)] = ""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> SlackNotifications:
        if self.enabled and not self.webhook_url.startswith("https://"):
            raise ValueError("enabled needs a webhook_url that begins with https://")
        return self


class Monitoring(_Section):
    """Metrics and alerts."""

    enabled: Switch = True
    metrics_interval: Annotated[timedelta, span("1s", "1h")] = timedelta(seconds=10)
    alert_threshold_error_rate: Annotated[float, share()] = 0.05
    email_notifications: EmailNotifications = EmailNotifications()
    slack_notifications: SlackNotifications = SlackNotifications()


class Logging(_Section):
    """What is written to standard error. ``include_payload`` shows operations' parameters."""

    level: Level = "info"
    include_payload: Switch = False


class Performance(_Section):
    """Sizes of pools, batches and workers."""

    connection_pool_size: Annotated[int, whole(1, 1000)] = 50
    max_idle_connections: Annotated[int, whole(0, 1000)] = 10
    batch_size: Annotated[int, whole(1, 10_000)] = 512
    worker_count: Annotated[int, whole(1, 1000)] = 10


class AuditLogging(_Section):
    """Who did what."""

    enabled: Switch = True
    log_level: Level = "info"
    include_payload: Switch = False


class RateLimiting(_Section):
    """How much one key may ask for."""

    enabled: Switch = True
    requests_per_minute: Annotated[int, whole(1, 10_000_000)] = 60
    burst_size: Annotated[int, whole(1, 1_000_000)] = 10


class Security(_Section):
    """Who may call, and what."""

    enable_authentication: Switch = True
    enable_authorization: Switch = True
    api_key_required: Switch = True
    audit_logging: AuditLogging = AuditLogging()
    rate_limiting: RateLimiting = RateLimiting()


class ParticipantAddress(_Section):
    """A participant and where it serves ResourceService."""

    name: Annotated[str, participant_name()]
    address: Annotated[str, host_port()]


class LogDatabase(_Section):
    """The decision log's PostgreSQL. ``dsn`` is libpq's, such as ``postgresql://pincex@db/txlog``.

    Decisions that are finished everywhere are kept for ``retention``: far beyond any Prepare that may still come.
    """

    dsn: Annotated[str, connection_string()]
    retention: Annotated[timedelta, span("2h", "3650d")] = timedelta(days=7)


class LocksSection(_Section):
    """Where locks are kept, and how. ``store`` is ``memory``, for one coordinator, or the address of a Redis.

    A lock whose coordinator does not keep it alive ends after ``ttl``; who names no time-out waits ``lock_timeout``.
    """

    store: Annotated[str, lock_store()] = MEMORY_STORE
    ttl: Annotated[timedelta, span("1s", "10m")] = timedelta(seconds=15)
    lock_timeout: Annotated[timedelta, span("10ms", "55m")] = timedelta(seconds=10)
    deadlock_detection: Switch = True


class Workflows(_Section):
    """Workflows. ``modules`` are Python modules whose workflows are run; ``timeout`` is for those that say nothing."""

    modules: tuple[Annotated[str, text(longest=256)], ...] = ()
    timeout: Annotated[timedelta, span("1s", "30d")] = timedelta(minutes=10)


class Server(_Section):
    """Where the doors listen; port 0 takes a free one."""

    grpc: Annotated[str, host_port()] = "127.0.0.1:50051"
    http: Annotated[str, host_port()] = "127.0.0.1:8080"


class Coordinator(_Section):
    """Who this coordinator is. ``advertise`` is the gRPC address told to others; empty: where it listens."""

    name: Annotated[str, text(longest=64)] = ""
    advertise: Annotated[str, text(longest=260)] = ""

    @property
    def shown_name(self) -> str:
        """The configured name, else the host's."""
        return self.name or socket.gethostname()[:64]


class Config(_Section):
    """Everything that is configured."""

    log: LogDatabase
    participants: tuple[ParticipantAddress, ...] = ()
    server: Server = Server()
    coordinator: Coordinator = Coordinator()
    xa_manager: XaManager = XaManager()
    recovery: Recovery = Recovery()
    workflows: Workflows = Workflows()
    monitoring: Monitoring = Monitoring()
    logging: Logging = Logging()
    performance: Performance = Performance()
    security: Security = Security()
    locks: LocksSection = LocksSection()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Config:
        names = [participant.name for participant in self.participants]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"participants: {', '.join(twice)} stands twice")
        return self


def load(environ: Mapping[str, str], path: Path | None = None) -> Config:
    """Read the configuration. InvalidConfigError names every wrong key and what is allowed there.

    ``path`` goes before ``TRANSACTION_CONFIG_PATH``; with neither, defaults and environment are all.
    """
    named = path or (Path(environ[PATH_VARIABLE]) if environ.get(PATH_VARIABLE) else None)
    tree = config_sources.read_file(named) if named else {}
    config_sources.overlay_environment(tree, environ, tuple(Config.model_fields))
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        complaints = "\n".join(f"  {complaint}" for complaint in config_sources.complaints(error, Config))
        raise InvalidConfigError(f"the configuration {named or '(environment)'} is refused:\n{complaints}") from error
