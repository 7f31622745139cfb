"""The kit as a command, its exercises, and its page."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.cli import make_app
from participant_sdk.conformance import Exercise, InvalidExerciseError, example, example_names, read_exercise
from participant_sdk.conformance.catalogue import checks
from participant_sdk.conformance.command import BAD_USAGE, CONFORMS, DEVIATES, UNREACHABLE
from participant_sdk.participant import Operation
from participant_sdk.resources.memory import MemoryResource
from tests.conformance.hosts import BANK, Bank, Host, Serve, by_the_sdk
from tests.conformance.processes import ROOT
from tests.conformance.serve import UnaryServicer, served
from tests.conformance.wrong_services import OddCodes

PAGE = ROOT / "docs" / "conformance.md"
CREDIT = {"operation": "credit", "parameters": {"account": "alice", "amount": "1"}}
WRITTEN = {"participant": "bank", "yes": [CREDIT] * 3, "no": CREDIT, "invalid": CREDIT}


def written(exercise: Exercise) -> str:
    """An exercise as its file."""

    def operation(key: str) -> dict[str, object]:
        each = getattr(exercise, key)
        return {"operation": each.name, "parameters": json.loads(each.parameters)}

    yes = [{"operation": each.name, "parameters": json.loads(each.parameters)} for each in exercise.yes]
    single = {key: operation(key) for key in ("no", "invalid", "observe", "slow")}
    return json.dumps({"participant": exercise.participant, "yes": yes, **single})


@asynccontextmanager
async def hosted(kind: type[MemoryResource] = Bank, serve: Serve = by_the_sdk) -> AsyncGenerator[Host]:
    host = Host(kind, serve)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


async def command(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE, stderr=PIPE, cwd=ROOT)
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def test_reports_are_for_people_and_for_programs(tmp_path: Path) -> None:
    """The two at once, as they mostly wait."""
    file = tmp_path / "exercise.json"
    file.write_text(written(BANK))
    await asyncio.gather(_for_people(file), _for_programs(file))


async def _for_people(file: Path) -> None:
    """For a person: the findings as they are made, what the rule wants, what was sent and came; exit code 1."""
    async with hosted(serve=served(servicer=OddCodes)) as host:
        right, told, errors = await command("-m", "participant_sdk.conformance", host.address, str(file))
    assert right == DEVIATES, errors
    lines = told.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("failed"))
    assert lines[at] == "failed  R2   every answer is a word of the contract (unary)"
    assert lines[at + 1].strip().startswith("the rule: All votes and acknowledgements")
    assert lines[at + 2].strip() == "seen:     ALREADY_DONE 42: not the code of its kind"
    assert lines[-1].endswith("broken: R2")
    assert any(line.startswith("skipped R8   votes survive a kill (unary): the kit was not told") for line in lines)


async def _for_programs(file: Path) -> None:
    """Work and restarts may be commands of the shell, which find the branch in their environment."""
    orders = file.with_suffix(".orders")
    ordered = f'echo "$PINCEX_XID $PINCEX_LOG_ID $PINCEX_PARTICIPANT $PINCEX_BRANCH $PINCEX_REMAINING_MS" >> {orders}'
    async with hosted(serve=served(servicer=UnaryServicer)) as host:
        arguments = ("-m", "coordinator.cli", "conformance", host.address, str(file), "--json", "--work", ordered)
        code, told, errors = await command(*arguments, "--restart", "exit 7")
    report = json.loads(told)
    failed = {finding["check"]: finding for finding in report["findings"] if finding["verdict"] == "failed"}
    assert code == DEVIATES, errors
    # Nothing was done under the branches, and nothing restarted: that is what these say.
    assert failed["the epoch survives a kill"]["seen"] == "the command ended with 7: exit 7"
    undone = failed["work done is prepared and committed"]
    assert undone["seen"].startswith("ROLLED_BACK -4 NO_SUCH_WORK")
    assert [line.partition(" ")[0] for line in undone["exchanged"][-2:]] == ["->", "<-"]
    assert re.fullmatch(r"[0-9a-f-]{36} [0-9a-f]{16} bank 3 20000", orders.read_text().splitlines()[0])
    assert report["failed"] == len(failed)
    assert not report["conforms"]


async def test_who_cannot_be_reached_is_told() -> None:
    for module in (("participant_sdk.conformance",), ("coordinator.cli", "conformance")):
        code, _, errors = await command("-m", *module, "127.0.0.1:9")
        assert code == UNREACHABLE
        assert "127.0.0.1:9" in errors


async def test_a_name_without_an_example_wants_an_exercise() -> None:
    async with hosted() as host:
        code, _, errors = await command("-m", "participant_sdk.conformance", host.address)
    assert code == BAD_USAGE
    assert f"there is no example for 'bank'; there are {', '.join(example_names())}: write an exercise" in errors


@pytest.mark.parametrize("name", example_names())
def test_an_example_is_printed_and_can_be_read(name: str) -> None:
    result = CliRunner().invoke(make_app(), ["conformance", "--example", name])
    assert result.exit_code == CONFORMS
    assert result.stdout == example(name)
    assert read_exercise(result.stdout).participant == name


def test_bad_usage_ends_with_2(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.json")
    both = ["127.0.0.1:9", "--restart", "true", "--restart-by-hand"]
    for arguments in ([], ["--example", "nobody"], ["127.0.0.1:9", absent], both):
        result = CliRunner().invoke(make_app(), ["conformance", *arguments])
        assert result.exit_code == BAD_USAGE, result.stderr
        assert result.stderr.startswith("pincex: ")


def test_an_exercise_is_read_from_json() -> None:
    number = '{"operation": "credit", "parameters": {"amount": 1.50}}'
    exercise = read_exercise(json.dumps({**WRITTEN, "slow": CREDIT, "setup": [CREDIT]})[:-1] + f', "read": {number}}}')
    assert exercise.yes[0] == Operation("bank", "credit", '{"account":"alice","amount":"1"}')
    assert exercise.read == Operation("bank", "credit", '{"amount":1.5}'), "a number stays one"
    assert (exercise.observe, exercise.slow, exercise.setup) == (None, exercise.yes[0], exercise.yes[:1])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"participant": "No Name"}, "participant"),
        ({"yes": []}, "yes"),
        ({"yes": "credit"}, "yes"),
        ({"yes": [CREDIT, CREDIT, "credit"]}, r"yes\[2\]"),
        ({"no": None}, "no"),
        ({"no": {**CREDIT, "more": 1}}, r"no\.more"),
        ({"setup": CREDIT}, "setup"),
        ({"maybe": 1}, "maybe"),
    ],
)
def test_a_wrong_exercise_names_the_key(change: dict[str, object], key: str) -> None:
    with pytest.raises(InvalidExerciseError, match=f"^{key}: "):
        read_exercise(json.dumps({**WRITTEN, **change}))


def test_an_exercise_that_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidExerciseError, match=r"^the exercise: "):
        read_exercise("{")


def test_the_page_lists_every_check_with_its_rule() -> None:
    """What is checked is told as it is; one that was renamed or added is missed here."""
    listed = re.findall(r"^\| (R\d+) \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    made = [(check.rule, check.name) for check in checks()]
    order = sorted(made, key=lambda each: (int(each[0][1:]), each[1]))
    assert listed == order
