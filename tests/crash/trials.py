"""A trial: the cluster under load for a while, whatever is done to it meanwhile, and the judgement at rest."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from participant_sdk.client_results import Committed
from tests.crash.checks import broken_invariants, everything, losses, unsettled
from tests.crash.load import CLIENTS, Load
from tests.crash.processes import LOOK_AGAIN_S, Cluster

WARM_COMMITS: Final = 12
SETTLED_WITHIN_S: Final = 60.0
WITHIN_S: Final = 30.0


@dataclass(slots=True)
class Findings:
    """What a trial found. Not frozen: it is filled as it is found.

    ``lost`` are disagreements between databases and clients, ``broken`` invariants that do not hold, ``late``
    what took longer than it may. ``intents`` counts the clients' transactions.
    """

    intents: int = 0
    lost: list[str] = field(default_factory=list[str])
    broken: list[str] = field(default_factory=list[str])
    late: list[str] = field(default_factory=list[str])

    @property
    def complaints(self) -> list[str]:
        """All that is wrong."""
        return [*self.lost, *self.broken, *self.late]


@asynccontextmanager
async def trial(
    up: Cluster,
    findings: Findings,
    prefix: str,
    seed: int,
    *,
    heuristics: Callable[[], int] = int,
    clients: int = CLIENTS,
) -> AsyncGenerator[Load]:
    """Load the cluster for the time of the block; then start what is down, wait until all rests, and judge.

    ``prefix`` is this trial's own, in its cluster. ``heuristics`` tells at the end how many there must be.
    """
    load = Load([each.grpc for each in up.coordinators], list(up.sidecars), prefix, seed)
    load.start(clients)
    await load.until_committed(WARM_COMMITS, SETTLED_WITHIN_S)
    try:
        yield load
    except TimeoutError:
        findings.late.append(f"what was waited for did not come: {traceback.format_exc(limit=-4)}")
    finally:
        up.start_all()
        await load.stop(SETTLED_WITHIN_S)
    try:
        await up.until_ready()
        await until_all_settled(up)
    except (TimeoutError, AssertionError) as error:
        left = await unsettled(up, everything())
        findings.late.append(f"it did not come to rest in {SETTLED_WITHIN_S:g} s: {left} {error}")
    findings.intents = len(load.intents)
    findings.lost += await losses(up, load.intents, prefix)
    findings.broken += await broken_invariants(up, heuristics=heuristics())


async def until_settled(up: Cluster, below: str) -> None:
    """Wait until nothing below this xid is in doubt or unfinished. TimeoutError."""

    async def is_settled() -> bool:
        return not await unsettled(up, below)

    await up.until(is_settled, SETTLED_WITHIN_S)


@asynccontextmanager
async def judged(up: Cluster, prefix: str, *, heuristics: Callable[[], int] = int) -> AsyncGenerator[Load]:
    """A trial for tests: with a supervisor, and nothing wrong at its end."""
    findings = Findings()
    async with supervised(up), trial(up, findings, prefix, seed=len(prefix), heuristics=heuristics) as load:
        yield load
    assert findings.intents > 0
    assert not findings.complaints, "\n".join(findings.complaints)


async def go_on(load: Load, commits: int = 20) -> None:
    """Wait until so many more were told COMMITTED. TimeoutError."""
    await load.until_committed(load.committed + commits, WITHIN_S)


async def commits_of(load: Load, participants: Sequence[str]) -> None:
    """Wait until two that begin from now on, of just these participants, were told COMMITTED. TimeoutError."""
    start = len(load.intents)
    async with asyncio.timeout(WITHIN_S):
        found = 0
        while found < 2:
            await load.until_committed(load.committed + 1, WITHIN_S)
            since = load.intents[start:]
            found = sum(isinstance(i.ending, Committed) and set(i.participants) == set(participants) for i in since)


async def until_all_settled(up: Cluster) -> None:
    """Wait until nothing at all is in doubt or unfinished. TimeoutError."""
    await until_settled(up, everything())


@asynccontextmanager
async def supervised(up: Cluster) -> AsyncGenerator[None]:
    """Start again whatever ends, for the time of the block, as a supervisor does."""
    task = asyncio.create_task(_supervise(up))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _supervise(up: Cluster) -> None:
    while True:
        up.start_all()
        await asyncio.sleep(LOOK_AGAIN_S)
