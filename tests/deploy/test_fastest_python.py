"""`make setup` takes the fastest build of the first version on PATH, and none that is too old or broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.fastest_python import TURNS, Build, candidates, fastest, main, probe, probe_all

FIRST = Build((3, 11), 1.0, "/first/python3.11")


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_clearly_faster_build_of_the_same_version_is_taken() -> None:
    faster = Build((3, 11), 0.5, "/usr/bin/python3.11")
    assert fastest([FIRST, faster]) == faster


def test_among_equals_the_first_on_path_stays() -> None:
    assert fastest([FIRST, Build((3, 11), 0.9, "/usr/bin/python3.11")]) == FIRST


def test_another_version_is_not_taken_for_its_speed() -> None:
    assert fastest([FIRST, Build((3, 12), 0.1, "/usr/bin/python3.12")]) == FIRST


def test_what_is_too_old_is_not_taken() -> None:
    assert fastest([Build((3, 10), 0.1, "/old/python3"), FIRST]) == FIRST
    assert fastest([Build((3, 10), 0.1, "/old/python3")]) is None


def test_a_program_with_several_names_is_asked_once(tmp_path: Path) -> None:
    real = program(tmp_path, "python3.11", "exit 0")
    (tmp_path / "python3").symlink_to(real)
    assert list(candidates(str(tmp_path))) == [str(real)]


def test_candidates_are_in_the_order_of_names_then_of_path(tmp_path: Path) -> None:
    paths = [program(tmp_path / at, name, "exit 0") for at, name in (("b", "python3.11"), ("a", "python3.11"))]
    later = program(tmp_path / "b", "python3", "exit 0")
    (tmp_path / "a" / "python3").write_text("not to be run")
    path = os.pathsep.join(("", str(tmp_path / "b"), str(tmp_path / "a"), str(tmp_path / "nowhere")))
    assert list(candidates(path)) == [str(each) for each in (*paths, later)]


def test_this_python_can_be_probed() -> None:
    build = probe(sys.executable)
    assert build is not None
    assert build.version == sys.version_info[:2]
    assert build.work_s > 0
    # The one that the environment was made from, not the environment's.
    assert Path(build.path).samefile(getattr(sys, "_base_executable", sys.executable))


@pytest.mark.parametrize(
    "script",
    ["exit 1", "echo 3.11", "echo 3 11 1.0 /here; echo more", "echo three eleven fast /here", "echo 3 11 soon /here"],
)
def test_what_does_not_run_or_answers_nonsense_is_passed_over(tmp_path: Path, script: str) -> None:
    assert probe(str(program(tmp_path, "python3", script))) is None


def test_what_is_no_program_is_passed_over(tmp_path: Path) -> None:
    assert probe(str(tmp_path / "python3")) is None


def test_each_is_judged_by_the_best_of_its_turns(tmp_path: Path) -> None:
    """The machine is busy with something else in the first turn and in the last."""
    asked = tmp_path / "asked"
    busy = f'echo busy >> {asked}; set -- 4.0 1.0 3.0; shift $(($(grep -c busy {asked}) - 1)); echo 3 11 "$1" /busy'
    programs = [
        str(program(tmp_path, "python3.11", busy)),
        str(program(tmp_path, "python3", f"echo even >> {asked}; echo 3 11 2.0 /even")),
    ]
    assert probe_all(programs) == [Build((3, 11), 1.0, "/busy"), Build((3, 11), 2.0, "/even")]
    assert asked.read_text().split() == ["busy", "even"] * TURNS


def test_what_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    broken, whole = program(tmp_path, "python3", f"echo >> {asked}; exit 1"), sys.executable
    (build,) = probe_all([str(broken), whole])
    assert build.version == sys.version_info[:2]
    assert asked.read_text() == "\n"


def test_the_faster_of_two_on_path_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = program(tmp_path / "plain", "python3.11", "echo 3 11 2.0 /plain/python3.11")
    profiled = program(tmp_path / "profiled", "python3.11", "echo 3 11 1.0 /profiled python3.11")
    monkeypatch.setenv("PATH", os.pathsep.join((str(plain.parent), str(profiled.parent))))
    assert main() == 0
    assert capsys.readouterr().out == "/profiled python3.11\n"


def test_without_any_it_says_what_is_needed(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "deploy" / "fastest_python.py"
    done = subprocess.run(
        [sys.executable, script], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "Python 3.11 or later is needed\n")
