"""What the runbooks name is there: commands and their options, routes, RPCs, metrics, log events, refusals' codes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pincex.tx.v1 import recovery_pb2, resource_pb2
from typer.testing import CliRunner

from coordinator.api.http_recovery_schema import SCHEMAS
from coordinator.cli import make_app
from coordinator.metrics import Metrics

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
TEXT: Final = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
SHELL: Final = "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```$", TEXT, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
PRODUCT: Final = ("coordinator", "participant_sdk", "sidecars")


def commands(name: str) -> Iterator[list[str]]:
    """The words of every command line that runs this program."""
    for line in SHELL.splitlines():
        if line.strip().startswith(f"{name} "):
            yield shlex.split(line)


def strings() -> frozenset[str]:
    """Every text that stands in the product's code."""
    return frozenset(
        node.value
        for top in PRODUCT
        for path in (ROOT / top).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_the_pages_hold_commands() -> None:
    """Else the other tests see nothing."""
    assert len(list(commands("pincex"))) >= 20
    assert len(list(commands("curl"))) >= 10
    assert len(list(commands("grpcurl"))) >= 5


@pytest.mark.parametrize("words", list(commands("pincex")), ids=" ".join)
def test_every_command_and_option_is_there(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its help names each option; the values are an operator's own."""
    monkeypatch.setenv("COLUMNS", "300")
    if words[1] == "sidecar":
        # It hands its arguments over to a process of its own.
        assert words[2] in {"bookkeeper", "trading"}
        return
    names = [word for word in words[1:3] if not word.startswith(("-", "$"))]
    told = CliRunner().invoke(make_app(), [*names, "--help"])
    assert told.exit_code == 0, told.output
    assert [word for word in words if word.startswith("--") and word not in told.stdout] == []


def test_every_route_is_served() -> None:
    below = r"127\.0\.0\.1:8080/api/v1/transactions/([\w\-/$]+)"
    named = {path.replace("$XID", "{transaction_id}") for path in re.findall(below, SHELL)}
    assert named - set(SCHEMAS) == {"health"}


def test_every_rpc_is_in_the_contract() -> None:
    services = {**recovery_pb2.DESCRIPTOR.services_by_name, **resource_pb2.DESCRIPTOR.services_by_name}
    known = {method.full_name.rpartition(".")[::2] for each in services.values() for method in each.methods}
    named = set(re.findall(r"(pincex\.tx\.v1\.\w+)/(\w+)", SHELL))
    assert named
    assert named - known == set()


def test_every_metric_is_exposed() -> None:
    named = set(re.findall(r"\bpincex_[a-z_]+", TEXT))
    exposed = Metrics().render().decode()
    assert {name for name in named if f"# TYPE {name} " not in exposed} == set()


def test_every_event_and_code_is_in_the_code() -> None:
    """As log lines and refusals spell them."""
    known = strings()
    told = " ".join(known)
    events = set(re.findall(r'"message": "([a-z_]+)"', TEXT)) | set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT))
    codes = set(re.findall(r"\b([A-Z]+(?:_[A-Z]+)+)\b", TEXT)) - {"BOOKKEEPER_DSN", "LOG_ID", "PINCEX_ADDRESS"}
    fields = {"pruned_below", "retry_in_s", "pg_prepared_xacts", "max_concurrent_txns"}
    elsewhere = {"pg_wal", "max_prepared_transactions", "DEADLINE_EXCEEDED", "ROLLED_BACK", "READ_ONLY"}
    metrics = {event for event in events if event.startswith("pincex_")}
    assert {event for event in events - metrics - fields - elsewhere if event not in known} == set()
    assert {code for code in codes - elsewhere if code not in told} == set()


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and f"]({page.name})" not in index] == []
