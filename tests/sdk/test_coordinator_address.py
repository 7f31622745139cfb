"""Where a suite finds the coordinator that a configuration describes."""

from __future__ import annotations

from pathlib import Path

import pytest

from participant_sdk.coordinator_address import InvalidAddressError, configured_address
from tests.development import ROOT


def _written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "environ", "address"),
    [
        ("", {}, "127.0.0.1:50051"),
        ("server: {grpc: 'db:1', http: 'db:2'}\nunknown: [1]", {}, "db:1"),
        ("server: {grpc: '0.0.0.0:1'}\ncoordinator: {advertise: 'one:1', name: one}", {}, "one:1"),
        ("server: {grpc: 'db:1'}", {"PINCEX_SERVER__GRPC": "two:2"}, "two:2"),
        ("server: {grpc: 'db:1'}", {"PINCEX_COORDINATOR__ADVERTISE": "[::1]:3"}, "[::1]:3"),
        ("coordinator: {advertise: 'one:1'}", {"PINCEX_COORDINATOR__ADVERTISE": ""}, "127.0.0.1:50051"),
        ('{"server": {"grpc": "json:4"}}', {}, "json:4"),
    ],
)
def test_what_is_advertised_goes_before_where_it_listens(
    text: str, environ: dict[str, str], address: str, tmp_path: Path
) -> None:
    path = _written(tmp_path, text)
    assert configured_address(path, environ) == address
    assert configured_address(None, {**environ, "TRANSACTION_CONFIG_PATH": str(path)}) == address


def test_without_a_file_the_environment_and_the_default_are_all() -> None:
    assert configured_address(None, {}) == "127.0.0.1:50051"
    assert configured_address(None, {"PINCEX_SERVER__GRPC": "two:2"}) == "two:2"


@pytest.mark.parametrize("name", ["transaction-manager.yaml", "transaction-manager.json"])
def test_the_shipped_configurations_are_read(name: str) -> None:
    assert configured_address(ROOT / "configs" / name, {}) == "127.0.0.1:50051"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {grpc: '0.0.0.0:50051'}", "server.grpc is '0.0.0.0:50051', no one host: set coordinator.advertise"),
        ("server: {grpc: ':50051'}", "server.grpc is ':50051', no one host"),
        ("server: {grpc: 'db:0'}", "server.grpc is 'db:0', which is no host:port that can be called"),
        ("server: {grpc: 'db:65536'}", "which is no host:port"),
        ("server: {grpc: db}", "server.grpc is 'db', which is no host:port"),
        ("coordinator: {advertise: 'db:x'}", "coordinator.advertise is 'db:x', which is no host:port"),
        ("server: {grpc: 1}", "server.grpc: Input should be a valid string"),
        ("server: [1]", "server: Input should be"),
        ("- 1", "it: Input should be"),
        ("server: {", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(InvalidAddressError) as refused:
        configured_address(path, {})
    assert message in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidAddressError, match=r"missing\.yaml cannot be read"):
        configured_address(tmp_path / "missing.yaml", {})
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidAddressError, match=r"binary\.yaml cannot be read"):
        configured_address(tmp_path / "binary.yaml", {})
