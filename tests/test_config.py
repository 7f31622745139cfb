"""The configuration: every key of the description, its default, and a refusal that names the key and its range."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
import yaml

from coordinator import config
from coordinator.config_sources import InvalidConfigError
from coordinator.config_values import parse_duration

SHIPPED = Path(__file__).parent.parent / "configs"
DSN = {"PINCEX_LOG__DSN": "postgresql://pincex@db/txlog"}


def written(folder: Path, text: str, name: str = "config.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def complaint(environ: dict[str, str], path: Path | None = None) -> str:
    with pytest.raises(InvalidConfigError) as raised:
        config.load(environ, path)
    return str(raised.value)


def test_defaults_are_the_described_ones() -> None:
    loaded = config.load(DSN)
    assert loaded.xa_manager.transaction_timeout == timedelta(minutes=5)
    assert loaded.xa_manager.prepare_timeout == timedelta(seconds=30)
    assert loaded.xa_manager.commit_timeout == timedelta(seconds=60)
    assert loaded.xa_manager.rollback_timeout == timedelta(seconds=30)
    assert loaded.xa_manager.max_concurrent_txns == 1000
    assert loaded.xa_manager.recovery_interval == timedelta(seconds=30)
    assert loaded.recovery.max_recovery_attempts == 3
    assert loaded.recovery.retry_backoff_initial == timedelta(seconds=1)
    assert loaded.monitoring.alert_threshold_error_rate == 0.05
    assert loaded.logging.level == "info"
    assert loaded.performance.batch_size == 512
    assert loaded.security.rate_limiting.requests_per_minute == 60
    assert loaded.server.http == "127.0.0.1:8080"


def test_shipped_files_are_equal_and_state_every_key_with_its_default() -> None:
    from_yaml = config.load({}, SHIPPED / "transaction-manager.yaml")
    assert config.load({}, SHIPPED / "transaction-manager.json") == from_yaml
    tree = yaml.safe_load((SHIPPED / "transaction-manager.yaml").read_text())
    defaults = config.Config.model_validate({"log": tree["log"], "participants": tree["participants"]})
    assert from_yaml == defaults

    assert _keys(tree) == _keys(json.loads(defaults.model_dump_json()))


def test_the_described_examples_are_accepted(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
        log: {dsn: "host=db dbname=txlog"}
        monitoring:
          email_notifications: {enabled: true, smtp_host: smtp.company.com, to_addresses: [ops@company.com]}
          slack_notifications: {enabled: true, webhook_url: "https://hooks.slack.com/..."}
        logging: {level: DEBUG, include_payload: true}
        performance: {connection_pool_size: 50, max_idle_connections: 10, batch_size: 100, worker_count: 10}
        security:
          audit_logging: {enabled: true, log_level: info, include_payload: false}
        """,
    )
    loaded = config.load({}, path)
    assert loaded.logging.level == "debug"
    assert loaded.performance.batch_size == 100
    assert loaded.monitoring.email_notifications.to_addresses == ("ops@company.com",)


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "log: {dsn: host=file}\nlogging: {level: warning}\nxa_manager: {prepare_timeout: 1s}")
    environ = {
        "TRANSACTION_CONFIG_PATH": str(path),
        "LOG_LEVEL": "debug",
        "PINCEX_XA_MANAGER__TRANSACTION_TIMEOUT": "2m",
        "PINCEX_XA_MANAGER__MAX_CONCURRENT_TXNS": "17",
        "PINCEX_RECOVERY__PARALLEL_RECOVERY": "false",
        "PINCEX_PARTICIPANTS": '[{"name": "trading", "address": "trading:50062"}]',
        "PINCEX_ADDRESS": "a client's, and none of ours",
    }
    loaded = config.load(environ)
    assert loaded.logging.level == "debug"
    assert loaded.xa_manager.transaction_timeout == timedelta(minutes=2)
    assert loaded.xa_manager.prepare_timeout == timedelta(seconds=1)
    assert loaded.xa_manager.max_concurrent_txns == 17
    assert loaded.recovery.parallel_recovery is False
    assert loaded.participants[0].address == "trading:50062"
    assert config.load(environ | {"PINCEX_LOGGING__LEVEL": "error"}).logging.level == "error"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("PINCEX_XA_MANAGER__TRANSACTION_TIMEOUT", "2h", "a duration from 10ms to 55m"),
        ("PINCEX_XA_MANAGER__TRANSACTION_TIMEOUT", "5", "not a duration"),
        ("PINCEX_XA_MANAGER__MAX_CONCURRENT_TXNS", "0", "a whole number from 1 to 100000; not '0'"),
        ("PINCEX_XA_MANAGER__MAX_CONCURRENT_TXNS", "1.5", "a whole number from 1 to 100000"),
        ("PINCEX_XA_MANAGER__MAX_CONCURRENT_TXNS", "1e999999999999999999999999", "a whole number from 1 to 100000"),
        ("PINCEX_XA_MANAGER__MAX_CONCURRENT_TXNS", "1e999999999", "a whole number from 1 to 100000"),
        ("PINCEX_XA_MANAGER__MAX_CONCURRENT_TXNS", "1e-999999999", "a whole number from 1 to 100000"),
        ("PINCEX_XA_MANAGER__MAX_CONCURRENT_TXNS", "0e99999999999999999999", "a whole number from 1 to 100000"),
        ("PINCEX_XA_MANAGER__MAX_CONCURRENT_TXNS", "9" * 5000, "a whole number from 1 to 100000"),
        ("PINCEX_XA_MANAGER__TRANSACTION_TIMEOUT", "999999999d" * 3, "more days than can be counted"),
        ("PINCEX_MONITORING__ALERT_THRESHOLD_ERROR_RATE", "1e-99999999999999999999", "a number from 0 to 1"),
        ("PINCEX_MONITORING__ALERT_THRESHOLD_ERROR_RATE", "5", "a number from 0 to 1"),
        ("PINCEX_MONITORING__ALERT_THRESHOLD_ERROR_RATE", "nan", "a number from 0 to 1"),
        ("PINCEX_RECOVERY__ENABLED", "yes please", "true or false"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("PINCEX_SERVER__GRPC", "50051", "a host:port"),
        ("PINCEX_SERVER__HTTP", "host:70000", "a host:port"),
        ("PINCEX_LOG__DSN", "postgresql://[secret", "a connection string"),
        ("PINCEX_PARTICIPANTS", '[{"name": "No Body", "address": "x:1"}]', "not a participant's name"),
        ("PINCEX_PARTICIPANTS", '[{"name": "a", "address": "x:1"}, {"name": "a", "address": "x:2"}]', "a stands twice"),
        ("PINCEX_PARTICIPANTS", '[{"name": "a"}]', "participants.0.address: required"),
        ("PINCEX_PARTICIPANTS", "[", "malformed"),
        ("PINCEX_XA_MANAGER__PREPARE_TIMEOT", "1s", "unknown key (did you mean prepare_timeout?)"),
        ("PINCEX_XA_MANGER__PREPARE_TIMEOUT", "1s", "unknown key xa_manger"),
        ("PINCEX_LOGGING", "debug", "logging"),
        ("PINCEX_LOGGING__LEVEL__DEEPER", "debug", "logging.level"),
        ("PINCEX_RECOVERY__RETRY_BACKOFF_MAX", "100ms", "must not be below retry_backoff_initial"),
        ("PINCEX_MONITORING__EMAIL_NOTIFICATIONS__ENABLED", "true", "needs smtp_host"),
        ("PINCEX_MONITORING__SLACK_NOTIFICATIONS__ENABLED", "true", "needs a webhook_url"),
        ("PINCEX_COORDINATOR__NAME", "two\nlines", "on one line"),
    ],
)
def test_bad_values_are_refused_with_what_is_allowed(name: str, value: str, told: str) -> None:
    text = complaint(DSN | {name: value})
    assert told in text
    assert "secret" not in text


def test_everything_wrong_is_told_at_once() -> None:
    text = complaint({"PINCEX_XA_MANAGER__PREPARE_TIMEOUT": "0s", "PINCEX_PERFORMANCE__BATCH_SIZE": "-1"})
    assert [line.split(":")[0].strip() for line in text.splitlines()[1:]] == [
        "log",
        "xa_manager.prepare_timeout",
        "performance.batch_size",
    ]


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("logging: {level: info, level: debug}", "config.yaml", "stands twice"),
        ('{"logging": {"level": "info", "level": "debug"}}', "config.json", "stands twice"),
        ("- a list", "config.yaml", "no mapping"),
        ("a: [", "config.yaml", "malformed"),
        ("{", "config.json", "malformed"),
        ("a: !!python/object:os.system ls", "config.yaml", "malformed"),
        ("a: " + "x" * 70_000, "config.yaml", "larger than"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, text: str, name: str, told: str) -> None:
    path = written(tmp_path, text, name)
    message = complaint(DSN, path)
    assert told in message
    assert name in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "absent.yaml" in complaint(DSN, tmp_path / "absent.yaml")


def test_an_empty_file_leaves_every_default(tmp_path: Path) -> None:
    assert config.load(DSN, written(tmp_path, "# nothing\n")) == config.load(DSN)


def test_a_name_left_out_is_the_hosts() -> None:
    assert config.load(DSN).coordinator.shown_name
    assert config.load(DSN | {"PINCEX_COORDINATOR__NAME": "c1"}).coordinator.shown_name == "c1"


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("30s", 30), ("250ms", 0.25), ("1m30s", 90), ("1.5h", 5400), ("1d", 86400)]
)
def test_durations_read_as_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-5m", "5m?", "1e3s", "s5"])
def test_other_texts_are_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


def _keys(value: object, prefix: str = "") -> set[str]:
    """The paths of all keys."""
    if not isinstance(value, dict):
        return {prefix}
    tree = cast("dict[str, object]", value)
    return {path for key, below in tree.items() for path in _keys(below, f"{prefix}.{key}")}
