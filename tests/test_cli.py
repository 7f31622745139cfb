"""The command line: files read exactly, what is printed, and the exit codes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from coordinator.cli import make_app
from coordinator.commands import request_file
from coordinator.commands.asking import fail_with
from coordinator.commands.request_file import InvalidFileError
from coordinator.json_text import result_text
from participant_sdk.client_errors import ClientError, OutcomeUnknown, UnavailableError, WrongPhaseError
from participant_sdk.client_results import Wait
from tests.api.doors import doors
from tests.sdk.small_system import LEFT, OPENING, RIGHT, System

YAML = f"""
operations:
  - service: {LEFT}
    operation: transfer
    parameters: {{from: a, to: b, amount: 0.10}}
  - service: {RIGHT}
    operation: read
    parameters: {{account: "007"}}
timeout_seconds: 300
request_id: from-a-file
"""


def invoke(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(make_app(), arguments, input=text)


def test_yaml_and_json_are_read_exactly() -> None:
    """0.10 is a tenth, never a float; what is quoted is text."""
    read = request_file.read(YAML)
    assert read.operations[0] == (LEFT, "transfer", {"from": "a", "to": "b", "amount": Decimal("0.10")})
    assert read.operations[1][2] == {"account": "007"}
    assert (read.timeout_s, read.request_id) == (300.0, "from-a-file")
    body = '{"operations": [{"service": "s", "operation": "o", "parameters": {"n": 1e-7, "d": "2024-01-01"}}]}'
    (only,) = request_file.read(body).operations
    assert only == ("s", "o", {"n": Decimal("1e-7"), "d": "2024-01-01"})
    assert request_file.read("operations: [{service: s, operation: o, parameters: {d: 2024-01-01}}]").operations[0][
        2
    ] == {"d": "2024-01-01"}


@pytest.mark.parametrize("number", ["1e-8", "1E-8", "1.5e3", "-2e5"])
def test_yaml_reads_the_numbers_that_json_does(number: str) -> None:
    """YAML 1.1 by itself takes them for text."""
    read = request_file.read(f"operations: [{{service: s, operation: o, parameters: {{n: {number}, t: '{number}'}}}}]")
    assert read.operations[0][2] == {"n": Decimal(number), "t": number}


@pytest.mark.parametrize(("written", "wait"), [("decided", Wait.DECIDED), ("APPLIED", Wait.APPLIED)])
def test_a_file_says_when_to_answer_in_any_case(written: str, wait: Wait) -> None:
    assert request_file.read(f"operations: []\nwait: {written}").wait is wait
    assert request_file.read(f'{{"operations": [], "wait": "{written}"}}').wait is wait


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must be a mapping"),
        ("{}", "operations: required"),
        ("operations: 7", "must be a list"),
        ("operations: [7]", "operations[0]: must be a mapping"),
        ("operations: [{service: s, operation: o}]", "operations[0].parameters: required"),
        ("operations: [{service: s, operation: o, parameters: []}]", "operations[0].parameters"),
        ("operations: [{service: 1, operation: o, parameters: {}}]", "must be text"),
        ("operations: []\ntimeout: 5", "timeout: unknown"),
        ("operations: []\ntimeout_seconds: soon", "timeout_seconds: must be a number"),
        ("operations: []\ntimeout_seconds: 3301", "timeout_seconds: must be above 0 and at most 3300"),
        ("operations: []\ntimeout_seconds: 0", "timeout_seconds: must be above 0 and at most 3300"),
        ("operations: []\ntimeout_seconds: 1e9999", "timeout_seconds: must be above 0 and at most 3300"),
        ("operations: []\ntimeout_seconds: 1e999999999999999999999999", "not an exact number"),
        ("operations: []\ntimeout_seconds: 0e99999999999999999999", "not an exact number"),
        ('{"operations": [], "timeout_seconds": 1e-999999999999999999999}', "not an exact number"),
        ("operations: [{service: s, operation: o, parameters: {a: 1e99999999999999999999}}]", "not an exact number"),
        ("operations: []\nwait: later", "wait: must be one of: applied, decided"),
        ("operations: []\nwait: 7", "wait: must be one of: applied, decided"),
        ("operations: []\nrequest_id: 5", "request_id: must be text"),
        ('{"operations": [], "operations": []}', "stands twice"),
        ("operations: []\noperations: []", "stands twice"),
        ('{"operations": NaN}', "not a number"),
        ("operations: [{service: s, operation: o, parameters: {a: .inf}}]", "not an exact number"),
        ("operations: [{service: s, operation: o, parameters: {a: 1_000}}]", "not an exact number"),
        ("operations: [{service: s, operation: o, parameters: {a: 0x1F}}]", "not an exact number"),
        ('{"operations": ', "malformed"),
        ("operations: [", "malformed"),
        ('{"a":' * 100_000, "deeply"),
    ],
)
def test_files_without_a_transaction_are_refused_by_place(text: str, told: str) -> None:
    with pytest.raises(InvalidFileError) as raised:
        request_file.read(text)
    assert told in str(raised.value)


def test_bad_files_end_with_2_before_anything_is_sent(tmp_path: Path) -> None:
    result = invoke("execute", "-f", str(tmp_path / "absent.yaml"))
    assert result.exit_code == 2
    assert "absent.yaml" in result.stderr
    result = invoke("execute", "-f", "-", "--json", text="{}")
    assert result.exit_code == 2
    assert "operations: required" in json.loads(result.stdout)["error"]


def test_nobody_to_be_reached_ends_with_4() -> None:
    result = invoke("execute", "-f", "-", "--address", "127.0.0.1:1", text=YAML)
    assert result.exit_code == 4
    assert "nothing was sent" in result.stderr


def test_a_bad_configuration_ends_with_2(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("xa_manager: {transaction_timeout: 2h}")
    for command in ("coordinator", "migrate"):
        result = invoke(command, "--config", str(path))
        assert result.exit_code == 2
        assert "xa_manager.transaction_timeout: a duration from 10ms to 55m" in result.stderr


def test_help_names_every_command() -> None:
    text = invoke("--help").stdout
    assert all(name in text for name in ("dev", "coordinator", "sidecar", "migrate", "execute", "tx"))
    assert "list" in invoke("tx", "--help").stdout


async def _run(port: int, *arguments: str, text: str = "") -> tuple[int, str]:
    """Run the command against a coordinator: in a thread of its own, since it has a loop of its own."""
    address = ("--address", f"127.0.0.1:{port}")
    result = await asyncio.to_thread(invoke, *arguments, *address, text=text)
    return result.exit_code, result.stdout


async def test_execute_prints_how_it_ended_and_exits_accordingly() -> None:
    async with doors() as opened:
        port = opened.grpc_port
        good = YAML.replace('"007"', "a")
        code, out = await _run(port, "execute", "-f", "-", "--json", text=good)
        told = json.loads(out)
        assert (code, told["state"], told["applied"]) == (0, "COMMITTED", True)
        assert told["branches"][1]["results"] == [{"balance": "1000000", "available": "1000000"}]
        assert _balance(opened.around) == OPENING - Decimal("0.10")

        code, out = await _run(port, "execute", "-f", "-", text=good)
        assert code == 0
        assert "COMMITTED" in out
        assert _balance(opened.around) == OPENING - Decimal("0.10")

        code, out = await _run(
            port, "execute", "-f", "-", "--request-id", "too-much", "--json", text=good.replace("0.10", "1e9")
        )
        assert (code, json.loads(out)["reason"]) == (1, "INSUFFICIENT_FUNDS")

        code, out = await _run(
            port, "execute", "-f", "-", "--request-id", "bad", "--json", text=good.replace("0.10", "-1")
        )
        assert (code, json.loads(out)["field"]) == (2, "operations[0].parameters.amount")


@pytest.mark.parametrize("width", ["30", "80", "200"])
async def test_a_list_cuts_no_transaction_id(width: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in a pipe, where each transaction is one line, nor in a terminal, however narrow."""
    monkeypatch.setenv("COLUMNS", width)
    async with doors() as opened:
        port = opened.grpc_port
        _, out = await _run(port, "execute", "-f", "-", "--json", text=YAML.replace('"007"', "a"))
        xid = json.loads(out)["transaction_id"]
        _, piped = await _run(port, "tx", "list")
        (line,) = [line for line in piped.splitlines() if xid in line]
        assert all(each in line for each in ("COMMITTED", LEFT, RIGHT))
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        _, shown = await _run(port, "tx", "list")
        assert xid in shown


async def test_tx_list_and_show_tell_what_was() -> None:
    async with doors() as opened:
        port = opened.grpc_port
        _, out = await _run(port, "execute", "-f", "-", "--json", text=YAML.replace('"007"', "a"))
        xid = json.loads(out)["transaction_id"]
        code, out = await _run(port, "tx", "list", "--json")
        assert code == 0
        assert [each["transaction_id"] for each in json.loads(out)] == [xid]
        code, out = await _run(port, "tx", "list", "--phase", "preparing", "--json")
        assert (code, json.loads(out)) == (0, [])
        code, out = await _run(port, "tx", "show", xid, "--json")
        assert code == 0
        assert {"began", "voted"} <= {event["event"] for event in json.loads(out)["events"]}
        code, out = await _run(port, "tx", "show", xid)
        assert (code, xid in out) == (0, True)
        code, out = await _run(port, "tx", "list")
        assert (code, "COMMITTED" in out) == (0, True)
        code, out = await _run(port, "tx", "show", "nonsense", "--json")
        assert (code, json.loads(out)["field"]) == (2, "xid")


async def test_tx_show_says_so_where_no_story_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what finished long ago there is only what the log holds."""
    monkeypatch.setattr("coordinator.running.HISTORY_MAX", 0)
    async with doors() as opened:
        port = opened.grpc_port
        _, out = await _run(port, "execute", "-f", "-", "--json", text=YAML.replace('"007"', "a"))
        xid = json.loads(out)["transaction_id"]
        code, out = await _run(port, "tx", "show", xid)
        assert (code, xid in out) == (0, True)
        assert "Its story is not kept any more" in out


def _balance(around: System) -> Decimal:
    return around.balance(LEFT, "a")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (OutcomeUnknown("nobody would say", request_id="intent-7"), 3),
        (UnavailableError("nobody answers"), 4),
        (WrongPhaseError("too late"), 2),
    ],
)
def test_each_ending_that_is_none_has_its_exit_code(
    error: ClientError, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as raised:
        fail_with(error, as_json=False)
    assert raised.value.exit_code == exit_code
    told = capsys.readouterr().err
    assert error.message in told
    assert ("--request-id intent-7" in told) is (exit_code == 3)


async def test_migrate_tells_what_it_applied(database: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"log": {"dsn": database}}))
    first = await asyncio.to_thread(invoke, "migrate", "--config", str(path), "--json")
    assert first.exit_code == 0
    assert json.loads(first.stdout)["applied"]
    second = await asyncio.to_thread(invoke, "migrate", "--config", str(path))
    assert (second.exit_code, second.stdout) == (0, "the schema is up to date\n")


def test_sidecar_hands_its_arguments_over() -> None:
    """The command becomes the sidecar's own process."""
    ended = subprocess.run(
        [sys.executable, "-m", "coordinator.cli", "sidecar", "--help"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    assert "bookkeeper" in ended.stdout
    assert "--dsn" in ended.stdout


def test_results_that_are_no_json_are_shown_as_text() -> None:
    assert [result_text(text) for text in ("", '{"a": 1.10}', "no json")] == ["null", '{"a": 1.10}', '"no json"']


@pytest.mark.parametrize("written", ["loyalty:70000", "loyalty:x", "No Body", "bookkeeper:-1", ""])
def test_a_participant_of_one_s_own_has_a_name_and_a_port(written: str, tmp_path: Path) -> None:
    refused = invoke("dev", "--data", str(tmp_path / "none"), "--participant", written)
    assert refused.exit_code == 2
    assert f"--participant {written}: " in refused.stderr
    assert not (tmp_path / "none").exists()


def test_a_participant_of_one_s_own_is_named_once(tmp_path: Path) -> None:
    refused = invoke("dev", "--data", str(tmp_path / "none"), "--participant", "loyalty", "--participant", "loyalty:1")
    assert refused.exit_code == 2
    assert "--participant loyalty:1: loyalty stands twice" in refused.stderr
