"""kill -9 of each process in turn, at every boundary of the built-in workflows' steps and inside them.

Each resumes and ends once, completed or compensated, with nothing left behind: not at the participants, and not at the
bank or on the chain. A share of it runs with every test; all of it with ``make crash``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.crash.conftest import Servers
from tests.crash.exchange_points import CHAIN_POINTS, WALLET_POINTS
from tests.crash.processes import Cluster
from tests.crash.stories import STORIES
from tests.crash.whole_exchange import whole_exchange
from tests.crash.workflow_trials import COORDINATOR, EVERYTHING, trial

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

# Waiting for the chain asks it again and again: of what is hit so, this many are enough.
HITS_MAX: Final = 12
COMPANIES: Final = ("bank", "chain")
# Before each step, once the one before is known to be done.
BOUNDARY: Final = "STEP_ASKED"
BOUNDARIES_BACK: Final = ("WORKFLOW_FAILED", "UNDO_BEGUN", "UNDO_SETTLED")
COORDINATORS: Final = (
    *("WORKFLOW_BEGUN", "WORKFLOW_CHANGE_AFTER", BOUNDARY, "STEP_SETTLED", "READ_KEPT"),
    *("VOTES_RECEIVED", "APPEND_BEFORE", "APPEND_ANSWERED", "COMMIT_FRAME_BEFORE"),
)
PARTICIPANTS: Final = ("BATCH_BEFORE", "BATCH_AFTER", "POSTING_BEFORE", "POSTING_AFTER")
# Every workflow comes by these; others may be read-only at a participant, or have nothing to undo.
ALWAYS: Final = (*COORDINATORS[:4], *(point.name for point in (*WALLET_POINTS, *CHAIN_POINTS)))
QUICK: Final = (
    ("trade", "bookkeeper", "POSTING_BEFORE", 2),
    ("trade-refused", "trading", "UNDO_BEGUN", 1),
    ("deposit-refused", COORDINATOR, "WORKFLOW_FAILED", 1),
    ("withdrawal", "wallet", "PAYMENT_STORED", 1),
    ("withdrawal", EVERYTHING, "STEP_SETTLED", 4),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("exchange")
    async with whole_exchange(folder, servers.database) as up:
        yield up


@pytest.mark.parametrize(("name", "victim", "point", "nth"), QUICK)
async def test_it_ends_once_whoever_is_killed(exchange: Cluster, name: str, victim: str, point: str, nth: int) -> None:
    assert await trial(exchange, name, victim, point, nth), f"{name} does not come by {point} {nth} times"


def _every() -> Iterator[tuple[str, str, str]]:
    """Each story, each process that it concerns, and where that is killed: at boundaries, and inside."""
    for name, story in STORIES.items():
        back = BOUNDARIES_BACK if story.ends == "COMPENSATED" else ()
        for point in (*COORDINATORS, *back):
            yield name, COORDINATOR, point
        for victim in (*story.participants, EVERYTHING):
            for point in (BOUNDARY, *back):
                yield name, victim, point
        for victim in story.participants:
            for point in () if victim in COMPANIES else PARTICIPANTS:
                yield name, victim, point
    for point in WALLET_POINTS:
        yield "withdrawal", "wallet", point.name
    for point in CHAIN_POINTS:
        yield "withdrawal", "chain", point.name


@pytest.mark.slow
@pytest.mark.parametrize(("name", "victim", "point"), list(_every()))
async def test_it_ends_once_at_every_hit(exchange: Cluster, name: str, victim: str, point: str) -> None:
    hits = 0
    for nth in range(1, HITS_MAX + 1):
        if not await trial(exchange, name, victim, point, nth):
            break
        hits += 1
    print(f"{hits} kills of {victim} at {point} of {name}")
    is_met = point in ALWAYS and not (point == "WORKFLOW_BEGUN" and STORIES[name].turn)
    assert hits or not is_met, f"{name} does not come by {point} any more"
