"""The catalogue of crash points is up to date with the product, and a point does what it says."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.placing import Part, Point, Where, put
from tests.crash.points import EVERY_POINT, POINTS, named, patches
from tests.crash.trigger import arm
from tests.patching import PatchError, replacing, text_of

WORK = Point("WORK", Part.XA, "module", "Worker.work", Where.BEFORE, "done = ")
MODULE = '''class Worker:
    def work(self):
        """Works."""
        if self.ready:
            done = self.do(
                1,
            )
            return done
'''


def test_there_are_points_enough_and_each_has_its_name() -> None:
    assert len(POINTS) >= 25
    assert len({point.name for point in EVERY_POINT}) == len(EVERY_POINT)
    assert {point.part for point in EVERY_POINT} == set(Part)
    assert all(named(point.first) for point in POINTS if point.first)


@pytest.mark.parametrize("point", EVERY_POINT, ids=lambda point: point.name)
def test_every_point_has_its_place(point: Point) -> None:
    """A place that moved on would never be crashed at again, and nobody would notice."""
    compile(put([point], text_of(point.module)), point.module, "exec")


def test_points_of_one_module_stand_side_by_side() -> None:
    for module, patch in patches().items():
        text = patch(text_of(module))
        assert text.count("tests.crash.trigger") == sum(point.module == module for point in EVERY_POINT)
        compile(text, module, "exec")


def test_a_call_goes_before_or_after_the_whole_statement_or_to_the_entry() -> None:
    before = put([WORK], MODULE).splitlines()
    assert before[4].startswith("            __import__")
    assert before[5].strip() == "done = self.do("
    after = Point("AFTER", Part.XA, "module", "Worker.work", Where.AFTER, "done = ", when="done", delay_s=0.5)
    line = put([after], MODULE).splitlines()[7]
    assert line.startswith("            if done: __import__")
    assert line.endswith('.hit("AFTER", 0.5)')
    entry = Point("ENTRY", Part.XA, "module", "Worker.work", Where.ENTRY)
    assert put([entry], MODULE).splitlines()[3].startswith("        __import__")


@pytest.mark.parametrize(
    "point",
    [
        Point("GONE", Part.XA, "module", "Worker.work", Where.BEFORE, "nothing = "),
        Point("GONE", Part.XA, "module", "Worker.rest", Where.ENTRY),
        Point("GONE", Part.XA, "module", "Worker.work", Where.AFTER, "return done"),
    ],
)
def test_a_place_that_is_gone_fails_loudly(point: Point) -> None:
    with pytest.raises(PatchError, match="GONE does not apply"):
        put([point], MODULE)


def test_a_replacement_that_does_not_apply_fails_loudly() -> None:
    assert replacing("CHANGE", "a", "b")("cat") == "cbt"
    with pytest.raises(PatchError, match="CHANGE does not apply"):
        replacing("CHANGE", "x", "y")("cat")


def run_to_hit(armed: Path) -> int:
    """Hit a point three times in a process of its own; how that ended."""
    code = f"import os; os.environ['PINCEX_CRASH_ARMED'] = {str(armed)!r}; import tests.crash.trigger as t"
    command = [sys.executable, "-c", f"{code}; [t.hit('WORK', 0.0) for _ in range(3)]"]
    return subprocess.run(command, check=False).returncode


def test_a_point_kills_at_the_hit_it_was_armed_for_and_once(tmp_path: Path) -> None:
    armed = tmp_path / "armed"
    assert run_to_hit(armed) == 0, "nothing is armed"
    arm(armed, "OTHER", 1)
    assert run_to_hit(armed) == 0, "another point is armed"
    arm(armed, "WORK", 4)
    assert run_to_hit(armed) == 0, "three hits are not four"
    arm(armed, "WORK", 3)
    assert run_to_hit(armed) == -signal.SIGKILL
    assert run_to_hit(armed) == 0, "the next life goes on"
