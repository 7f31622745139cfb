"""The README is run: every fenced command, in order, against one development system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.development import ROOT, Development, development

FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS: Final = FENCE.findall((ROOT / "README.md").read_text(encoding="utf-8"))
# `make run` is the fixture, `make test` is what runs this, and tests/integration/test_demo_day.py runs the rest.
ELSEWHERE: Final = ("make run", "make test", ".venv/bin/pincex demo")
_LONGEST_S: Final = 60.0


@pytest.fixture(scope="module")
def running(server_folder: Path) -> Iterator[Development]:
    with development(server_folder / "readme") as running:
        yield running


def _here(text: str, running: Development) -> str:
    """The block as it is for this system's ports and environment."""
    text = text.replace("127.0.0.1:8080", running.http).replace("127.0.0.1:50051", running.grpc)
    return text.replace(".venv/bin/", f"{Path(sys.executable).parent}/")


def _run(language: str, text: str, running: Development) -> str:
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PINCEX_ADDRESS": running.grpc},
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    assert ended.returncode == 0, f"{text}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.mark.timeout(300)
def test_every_fenced_command_does_what_the_readme_says(running: Development) -> None:
    """In their order, since each stands on what those before have done."""
    answers: list[str] = []
    # What is asked of recovery, and what a load came to.
    stuck: list[str] = []
    loaded: list[str] = []
    for language, text in BLOCKS:
        if language not in {"sh", "python"} or text.startswith(ELSEWHERE):
            continue
        if text.startswith("grpcurl") and shutil.which("grpcurl") is None:
            # Not ours to install; buf says the same over the same reflection.
            continue
        answer = _run(language, _here(text, running), running)
        (stuck if "ecovery" in text else loaded if "pincex load" in text else answers).append(answer)
    opened, placed, too_much, executed, *others, sent_again = answers
    assert '"state":"COMMITTED"' in opened
    assert '"state":"COMMITTED"' in placed
    assert '"state":"ROLLED_BACK"' in too_much
    assert "INSUFFICIENT_FUNDS" in too_much
    assert "COMMITTED" in executed
    assert all("COMMITTED" in other or "Committed" in other for other in others)
    first, second = re.findall(r'"transaction_id":\s*"([^"]+)"', sent_again)
    assert first == second
    (report,) = loaded
    assert "holds: nothing is left in doubt at bookkeeper" in report
    assert stuck
    assert all("bookkeeper" in status for status in stuck)


def test_every_command_for_make_is_a_target() -> None:
    """The README promises no target that the Makefile lacks."""
    makefile = (ROOT / "Makefile").read_text()
    promised = set(re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text()))
    promised -= {"it", "the"}
    assert {target for target in promised if f"\n{target}:" not in makefile} == set()
