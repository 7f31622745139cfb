"""docs/testing-your-service.md is run as it is written: its files in a folder, and pytest there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from participant_sdk.testing import StartError, running_system
from tests.development import ROOT, until
from tests.pages import blocks

CONFTEST, TRANSFERS, OWN, LOYALTY_TESTS = blocks("testing-your-service.md", "python")
SERVICE, *_ = blocks("own-service.md", "python")

pytestmark = pytest.mark.timeout(300)


def test_the_page_is_run_as_it_is_written_after_tests_that_were_killed(tmp_path: Path) -> None:
    """What was killed leaves no process, and whoever comes next removes its folder."""
    left = _killed()
    until(lambda: not _anybody_in(left))
    _run_the_page(tmp_path)
    assert not left.exists()


def _killed() -> Path:
    """Kill tests while their system runs; what they leave of it."""
    program = (
        "import os, signal\n"
        "from participant_sdk.testing import running_system\n"
        "with running_system() as system:\n"
        "    print(os.getpid(), flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as tests:
        assert tests.stdout is not None
        # Other tests may remove it as soon as these are dead.
        (left,) = Path(tempfile.gettempdir()).glob(f"pincex-testing-{int(tests.stdout.readline())}-*")
        tests.kill()
    return left


def _run_the_page(tmp_path: Path) -> None:
    """A project of its own, which has nothing of ours but what is installed."""
    (tmp_path / "migrations").mkdir()
    for name, text in (
        ("conftest.py", CONFTEST + OWN),
        ("test_transfers.py", TRANSFERS),
        ("test_loyalty.py", LOYALTY_TESTS),
        ("loyalty.py", SERVICE),
        ("migrations/0001_points.sql", blocks("own-service.md", "sql")[0]),
        ("exercise.json", blocks("own-service.md", "json")[0]),
        ("pytest.ini", blocks("testing-your-service.md", "ini")[0] + "filterwarnings = error\n"),
    ):
        (tmp_path / name).write_text(text)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    # Every test of the page, and none of a class that is called Test….
    assert "6 passed" in ended.stdout


def test_a_system_that_does_not_start_says_why() -> None:
    with (
        pytest.raises(StartError, match="bookkeeper: names of what runs here already"),
        running_system(participants=["bookkeeper"]),
    ):
        pass
    with pytest.raises(StartError, match="not a participant's name"), running_system(participants=["No Body"]):
        pass
    assert list(Path(tempfile.gettempdir()).glob(f"pincex-testing-{os.getpid()}-*")) == []


def _anybody_in(folder: Path) -> bool:
    """Whether a process has the folder on its command line."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in entry.read_text(errors="replace"):
                return True
        except OSError:
            continue
    return False
