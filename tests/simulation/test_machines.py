"""The pure machines: seeds and small cases that must pass, and broken rules that must be noticed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.simulation.machines.cases import CASES
from tests.simulation.machines.cluster import Cluster
from tests.simulation.machines.exploration import Case, Explored, explore
from tests.simulation.machines.runs import Run

pytestmark = pytest.mark.uncounted

ROOT: Final = Path(__file__).parent.parent.parent
FEW_STATES: Final = 3_000


class Broken(NamedTuple):
    """One patch of one file's text, and how it is to be noticed."""

    name: str
    path: str
    before: str
    after: str
    noticed_by: tuple[str, ...]


BROKEN_RULES: Final = (
    Broken(
        "R7: ROLLBACK is presumed while the incarnation lives",
        "coordinator/log/inquiry.py",
        "    if not ended:\n        return DecisionState.PENDING\n",
        "    if not ended:\n        return DecisionState.ROLLBACK\n",
        ("--exhaustive", "--states", "20000"),
    ),
    Broken(
        "R2: silence is a yes",
        "coordinator/protocol/transaction.py",
        "                return self._time_out(now_s)\n",
        "                return self._decide()\n",
        ("--seeds", "20"),
    ),
    Broken(
        "R10: a Rollback leaves no tombstone",
        "participant_sdk/branch.py",
        "    (_P.NONE, _C.ROLLBACK): Transition(_P.ROLLED_BACK, DONE),\n",
        "    (_P.NONE, _C.ROLLBACK): Transition(_P.NONE, DONE),\n",
        ("--seeds", "20"),
    ),
)


@pytest.mark.parametrize("seed", range(1, 11))
def test_a_seed_of_machines_shows_no_violation(seed: int) -> None:
    account = Run(seed).run()
    assert account.violations == []
    assert account.transactions == 100


def test_one_seed_of_machines_is_one_run() -> None:
    one, other = Run(7).run(), Run(7).run()
    assert (one.moves, one.committed, one.troubles) == (other.moves, other.committed, other.troubles)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_first_states_of_every_case_are_sound(case: Case) -> None:
    """The whole of each is explored by ``python -m tests.simulation.machines --exhaustive``."""
    seen = explore(case, 100, FEW_STATES, lambda _: None)
    assert seen.violations == []
    assert seen.states == FEW_STATES
    assert seen.settled > 0


def test_an_exploration_ends_where_nothing_new_can_happen() -> None:
    """One participant, one incarnation, no crash: every state is visited."""
    small = Case("small", _begin, ("a",), incarnations=1, crashes=False)
    seen: Explored = explore(small, 100, 100_000, lambda _: None)
    assert seen.is_complete
    assert seen.violations == []


def _begin(cluster: Cluster) -> None:
    cluster.begin(next(iter(cluster.coordinators)), ("a",))


@pytest.mark.parametrize("broken", BROKEN_RULES, ids=lambda broken: broken.name)
def test_a_broken_rule_is_noticed_by_the_machines(broken: Broken, tmp_path: Path) -> None:
    """A patch that no longer applies fails here too."""
    for folder in ("coordinator", "participant_sdk", "proto", "tests/simulation/machines"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "*.sql"))
    text = (tmp_path / broken.path).read_text()
    assert text.count(broken.before) == 1
    (tmp_path / broken.path).write_text(text.replace(broken.before, broken.after))
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.machines", *broken.noticed_by],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{tmp_path / 'proto'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "violation" in done.stdout or "seed" in done.stdout, done.stdout + done.stderr
