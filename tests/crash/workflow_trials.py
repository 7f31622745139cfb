"""One workflow while one process dies: at a boundary of its steps, or inside one; and what must be true afterwards.

A coordinator and whoever has crash points of its own ends by itself at the hit. Everybody else is killed while the
coordinator stands still at a boundary: it is stopped there, and goes on when the other is dead.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from coordinator.embedded import EmbeddedPostgres, Shutdown
from tests.crash.conftest import Servers
from tests.crash.placing import Part
from tests.crash.points import named
from tests.crash.processes import Cluster, Process
from tests.crash.stories import STORIES, Parameters, Story
from tests.crash.whole_exchange import are_companies_up, faults_at_rest, is_standing_still, new_user, until_stopped
from tests.crash.workflow_calls import ENDED, ENDS_WITHIN_S, LOOK_EVERY_S, Json, begin, ended, post, workflow_of

COORDINATOR: Final = "coordinator"
# All processes at once; and all that have no part in the workflow.
EVERYTHING: Final = "everything"
BYSTANDERS: Final = "bystanders"
# PostgreSQL: the log's, and the participants'.
LOG_SERVER: Final = "log-server"
THEIR_SERVER: Final = "participants-server"
SERVERS: Final = (LOG_SERVER, THEIR_SERVER)


Hits = Mapping[str, Counter[str]]


async def hits_of(up: Cluster, name: str) -> Hits:
    """Run a story's workflow, and kill nobody: how often each process comes by each point, from the story's turn on."""
    story, user = STORIES[name], new_user()
    parameters = await story.arrange(up, user)

    def count() -> None:
        for process in up.processes:
            process.count()

    async with asyncio.TaskGroup() as tasks:
        await _begin(up, story, user, parameters, tasks, count)
        await judged(up, story, user)
    return {process.name: process.counted() for process in up.processes}


async def trial(up: Cluster, servers: Servers, name: str, victim: str, point: str, nth: int) -> bool:
    """Run a story's workflow, and kill the victim at this hit; whether it came to it. AssertionError, TimeoutError."""
    story, user = STORIES[name], new_user()
    parameters = await story.arrange(up, user)
    victims, server = _victims(up, servers, story, victim)
    is_coordinators = named(point).part is Part.COORDINATOR
    armed = up.coordinator if is_coordinators else victims[0]
    action = "stop" if is_coordinators and victim != COORDINATOR else "kill"
    async with _mended(up, servers), asyncio.TaskGroup() as tasks:
        await _begin(up, story, user, parameters, tasks, lambda: armed.arm(point, nth, action))
        was_hit = await _until_hit(up, user, armed)
        armed.disarm()
        if was_hit and action == "stop":
            for process in victims:
                process.kill()
            if server is not None:
                await asyncio.to_thread(server.stop, Shutdown.KILL)
            if up.coordinator.is_running:
                up.coordinator.send(signal.SIGCONT)
    assert await workflow_of(up, user) != {}, "a workflow that was begun is gone"
    told = await judged(up, story, user)
    await _asked_again(up, story, user, parameters, told)
    return was_hit


async def _begin(
    up: Cluster, story: Story, user: str, parameters: Parameters, tasks: asyncio.TaskGroup, arm: Callable[[], None]
) -> None:
    """Begin a story's workflow, with whom it concerns armed from its turn on."""
    if not story.turn_after:
        arm()
        tasks.create_task(begin(up, user, story.kind, parameters))
        return
    up.coordinator.arm("STEP_SETTLED", story.turn_after, "stop")
    tasks.create_task(begin(up, user, story.kind, parameters))
    await until_stopped(up)
    if story.turn is not None:
        await story.turn(up)
    arm()
    up.coordinator.send(signal.SIGCONT)


async def judged(up: Cluster, story: Story, user: str) -> Json:
    """Wait for the workflow's end, and assert that it is the story's, and that nothing else is left; what it told."""
    told = await ended(up, user)
    assert (told["state"], told["stuck"]) == (story.ends, None), told
    await at_rest(up)
    await story.judge(up, user, told)
    return told


async def _asked_again(up: Cluster, story: Story, user: str, parameters: Parameters, told: Json) -> None:
    """Whoever asks again by the request_id hears of the workflow that has ended, and begins no other."""
    again = await post(up, {"workflow_type": story.kind, "parameters": parameters, "request_id": user})
    assert (again.json()["workflow_id"], again.json()["state"]) == (told["workflow_id"], story.ends), again.text


async def at_rest(up: Cluster) -> None:
    """Wait until nothing is broken, locked, reserved or unsettled."""
    found = ["nobody could look"]

    async def is_at_rest() -> bool:
        nonlocal found
        found = await faults_at_rest(up)
        return not found

    try:
        await up.until(is_at_rest, ENDS_WITHIN_S, LOOK_EVERY_S)
    except TimeoutError:
        assert found == []


def _victims(
    up: Cluster, servers: Servers, story: Story, victim: str
) -> tuple[Sequence[Process], EmbeddedPostgres | None]:
    """The processes that are meant, or the server."""
    meant: Mapping[str, EmbeddedPostgres] = {LOG_SERVER: servers.log, THEIR_SERVER: servers.participants}
    if victim in meant:
        return (), meant[victim]
    if victim == EVERYTHING:
        return up.processes, None
    if victim == BYSTANDERS:
        concerned = (up.coordinator.name, *story.participants)
        return [process for process in up.processes if process.name not in concerned], None
    wanted = up.coordinator.name if victim == COORDINATOR else victim
    found = [process for process in up.processes if process.name == wanted]
    assert found, f"there is no {victim}"
    return found, None


async def _until_hit(up: Cluster, user: str, armed: Process) -> bool:
    """Wait until the armed process has come to its point, or the workflow to its end; whether it was the point."""

    def is_hit() -> bool:
        return not armed.is_running or is_standing_still(up)

    async def is_over() -> bool:
        if is_hit():
            return True
        found = await workflow_of(up, user) if up.coordinator.is_running else None
        return found is not None and found.get("state") in ENDED

    await up.until(is_over, ENDS_WITHIN_S, LOOK_EVERY_S)
    if not is_hit():
        # The last ones may be hit after the end was shown.
        await at_rest(up)
    return is_hit()


@asynccontextmanager
async def _mended(up: Cluster, servers: Servers) -> AsyncGenerator[None]:
    """Have everything run again after the block, however that ended: the next trial finds nobody armed or dead."""
    try:
        yield
    finally:
        for process in up.processes:
            process.disarm()
        if is_standing_still(up):
            up.coordinator.send(signal.SIGCONT)
        for server in (servers.log, servers.participants):
            if not server.is_running:
                # In this thread, whose end is what the kernel would tell the server.
                server.start()
        for process in up.processes:
            if not process.is_running:
                process.kill()
        up.start_all()
        await up.until_ready()
        await up.until(lambda: are_companies_up(up))
