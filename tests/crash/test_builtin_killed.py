"""kill -9 of each process in turn, at every boundary of the built-in workflows' steps and inside them.

Each resumes and ends once, completed or compensated, with nothing left behind: not at the participants, and not at the
bank or on the chain. A process is the coordinator, a participant, whoever plays the bank or the chain, a PostgreSQL
server, or all of these at once. A share of it runs with every test; all of it with ``make crash``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from itertools import product
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from tests.crash.conftest import Servers
from tests.crash.exchange_points import CHAIN_POINTS, MATCHER_POINTS, WALLET_POINTS
from tests.crash.placing import Part
from tests.crash.points import named
from tests.crash.processes import Cluster
from tests.crash.stories import STORIES, Story
from tests.crash.whole_exchange import whole_exchange
from tests.crash.workflow_trials import BYSTANDERS, COORDINATOR, EVERYTHING, SERVERS, Hits, hits_of, trial

pytestmark = [pytest.mark.timeout(900), pytest.mark.asyncio(loop_scope="module")]

# Waiting for the chain asks it again and again: of what is hit so, this many are enough.
HITS_MAX: Final = 12
COMPANIES: Final = ("bank", "chain")
# Before each step, once the one before is known to be done.
BOUNDARY: Final = "STEP_ASKED"
UNDOING: Final = ("UNDO_BEGUN", "UNDO_SETTLED")
COORDINATORS: Final = ("WORKFLOW_CHANGE_AFTER", "STEP_SETTLED", "VOTES_RECEIVED", "APPEND_BEFORE", "APPEND_ANSWERED")
PARTICIPANTS: Final = ("BATCH_BEFORE", "BATCH_AFTER", "VOTE_FRAME_AFTER")
POSTING: Final = ("POSTING_BEFORE", "POSTING_AFTER")
VOIDING: Final = ("VOIDING_BEFORE", "VOIDING_AFTER")
# Inside a step: voted and not decided, decided and not told.
INSIDE: Final = ("VOTES_RECEIVED", "APPEND_ANSWERED")
OF_ITS_OWN: Final = {
    ("trade", "trading"): MATCHER_POINTS,
    ("withdrawal", "wallet"): WALLET_POINTS,
    ("withdrawal", "chain"): CHAIN_POINTS,
}
QUICK: Final = (
    ("trade", "bookkeeper", "POSTING_BEFORE", 2),
    ("trade-refused", "trading", "UNDO_BEGUN", 1),
    ("deposit-refused", COORDINATOR, "WORKFLOW_FAILED", 1),
    ("deposit-limited", "bookkeeper", "VOIDING_AFTER", 1),
    ("withdrawal", "wallet", "PAYMENT_STORED", 1),
    ("withdrawal", EVERYTHING, "STEP_SETTLED", 4),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("exchange")
    async with whole_exchange(folder, servers.database) as up:
        yield up


@pytest.mark.parametrize(("name", "victim", "point", "nth"), QUICK)
async def test_it_ends_once_whoever_is_killed(
    exchange: Cluster, servers: Servers, name: str, victim: str, point: str, nth: int
) -> None:
    assert await trial(exchange, servers, name, victim, point, nth), f"{name} does not come by {point} {nth} times"


def _every() -> Iterator[tuple[str, str, str]]:
    """Each story, each process, and where that is killed: at every boundary, forward and back, and inside."""
    for name, story in STORIES.items():
        boundaries = tuple(_boundaries(story))
        others = (*story.participants, EVERYTHING, *SERVERS)
        yield from product([name], [COORDINATOR], (*boundaries, *_of_a_coordinator(story)))
        yield from product([name], others, boundaries)
        yield name, BYSTANDERS, BOUNDARY
        yield from product([name], (EVERYTHING,) if story.turn_after else (EVERYTHING, *SERVERS), INSIDE)
        for victim in (each for each in story.participants if each not in COMPANIES):
            yield from product([name], [victim], _of_a_participant(story, victim))
    for (name, victim), points in OF_ITS_OWN.items():
        yield from product([name], [victim], [each.name for each in points])


def _boundaries(story: Story) -> Iterator[str]:
    """The boundaries of its steps, on its way forward and on its way back, where it has one."""
    yield BOUNDARY
    if story.ends == "COMPENSATED":
        yield "WORKFLOW_FAILED"
    if story.undoes:
        yield from UNDOING


def _of_a_coordinator(story: Story) -> Iterator[str]:
    """Where else a coordinator comes by that runs this story, from its turn on."""
    yield from COORDINATORS
    if not story.turn_after:
        yield "WORKFLOW_BEGUN"
    if story.reads:
        yield "READ_KEPT"
    if story.posts:
        yield "COMMIT_FRAME_BEFORE"
    if story.voids:
        yield "ROLLBACK_FRAME_BEFORE"


def _of_a_participant(story: Story, name: str) -> Iterator[str]:
    """Where a participant comes by that has a part in this story."""
    yield from PARTICIPANTS
    if name in story.posts:
        yield from POSTING
    if name in story.voids:
        yield from VOIDING


@pytest.fixture(scope="module")
def counted() -> dict[str, Hits]:
    """What stories were found to come by, by their names."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "victim", "point"), list(_every()))
async def test_it_ends_once_at_every_hit(
    exchange: Cluster, servers: Servers, counted: dict[str, Hits], name: str, victim: str, point: str
) -> None:
    if name not in counted:
        counted[name] = await hits_of(exchange, name)
    is_own = named(point).part is not Part.COORDINATOR
    there = counted[name][victim if is_own else exchange.coordinator.name][point]
    hits = 0
    for nth in range(1, min(there, HITS_MAX) + 1):
        # What waits asks now more often, and now less.
        hits += await trial(exchange, servers, name, victim, point, nth)
    print(f"{hits} kills of {victim} at {point} of {name}, then {STORIES[name].ends}")
    assert hits, f"{name} does not come by {point} any more"
