"""Copies of the tree, patched and put right again, and witnesses run in them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutants.mutant import Patch, Seeds, Witness

ROOT: Final = Path(__file__).parents[2]
PARTS: Final = ("coordinator", "participant_sdk", "sidecars", "proto", "tests", "configs", "pyproject.toml")
WITHIN_S: Final = 300.0
# One that hangs has noticed. None of the witnesses takes a tenth of it.
TEST_WITHIN_S: Final = 60
_FAILED_TEST: Final = re.compile(r"^FAILED (\S+)", re.MULTILINE)


class PatchError(Exception):
    """A patch does not apply: what it replaces is not there, or not once. The product moved on."""


class Exit(IntEnum):
    """How a witness of seeds ends."""

    SURVIVED = 0
    # Not 1, which is Python's own for an exception.
    NOTICED = 3


class Testimony(NamedTuple):
    """What a witness said. ``is_sound`` is false where it could not do its work."""

    noticed: bool
    what: str
    is_sound: bool = True


class TreeCopy:
    """One copy of the tree in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    @contextmanager
    def made(cls) -> Generator[TreeCopy]:
        """A fresh copy, for the time of the block. Anybody may read it: PostgreSQL's account must."""
        folder = Path(tempfile.mkdtemp(prefix="pincex-mutants-"))
        folder.chmod(0o755)
        try:
            for part in PARTS:
                source = ROOT / part
                if source.is_dir():
                    shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(source, folder / part)
            yield cls(folder)
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def patched(self, patches: tuple[Patch, ...]) -> Generator[None]:
        """Have the patches in force for the time of the block. PatchError if one does not apply."""
        originals: dict[Path, str] = {}
        try:
            for patch in patches:
                file = self._folder / patch.path
                text = file.read_text(encoding="utf-8")
                originals.setdefault(file, text)
                if (count := text.count(patch.before)) != 1:
                    raise PatchError(f"{patch.path} has the text to replace {count} times")
                file.write_text(text.replace(patch.before, patch.after), encoding="utf-8")
            yield
        finally:
            for file, text in originals.items():
                file.write_text(text, encoding="utf-8")

    def ask(self, witness: Witness) -> Testimony:
        """Run a witness in the copy. One that takes too long has noticed: what it ran had no end."""
        try:
            done = subprocess.run(
                self._command(witness),
                cwd=self._folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=WITHIN_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Testimony(noticed=True, what=f"{witness}: no end within {WITHIN_S:g} s")
        if isinstance(witness, Seeds):
            return _of_seeds(witness, done)
        return _of_test(done)

    def _command(self, witness: Witness) -> list[str]:
        if isinstance(witness, Seeds):
            return [sys.executable, "-m", "tests.mutants.seeds", str(witness.first), str(witness.last)]
        pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
        return [*pytest, "-o", f"timeout={TEST_WITHIN_S}", witness.node]

    def _environment(self) -> dict[str, str]:
        # The copy goes before the tree that the environment was made from. A patch is often as long as what it
        # replaces and made within the same second, so bytecode that was kept could be taken for it.
        return {**os.environ, "PYTHONPATH": f"{self._folder}:{self._folder / 'proto'}", "PYTHONDONTWRITEBYTECODE": "1"}


def _of_seeds(witness: Seeds, done: subprocess.CompletedProcess[str]) -> Testimony:
    match done.returncode:
        case Exit.NOTICED:
            return Testimony(noticed=True, what=done.stdout.strip().splitlines()[-1])
        case Exit.SURVIVED:
            return Testimony(noticed=False, what=str(witness))
        case _:
            return Testimony(noticed=False, what=f"{witness}: {_tail(done)}", is_sound=False)


def _of_test(done: subprocess.CompletedProcess[str]) -> Testimony:
    match done.returncode:
        case 0:
            return Testimony(noticed=False, what="the tests passed")
        case 1 if found := _FAILED_TEST.search(done.stdout):
            return Testimony(noticed=True, what=found.group(1))
        case _:
            return Testimony(noticed=False, what=_tail(done), is_sound=False)


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-15:])
