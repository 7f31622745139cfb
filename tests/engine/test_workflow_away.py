"""A workflow whose participant is away goes on once that is back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from coordinator.protocol.workflow_records import StepPhase, WorkflowPhase
from coordinator.workflows import StepResult, Workflow
from participant_sdk.operations import Parameter
from tests.engine import recovering
from tests.engine.recovering import RIGHT, World, node, until
from tests.engine.workflows import Nothing, begun, credit, defined, ended, moved, phases, read, settings


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with recovering.world() as around:
        yield around


async def test_a_participant_that_is_away_is_asked_again_until_it_is_back(world: World) -> None:
    async with node(world, workflows=settings()) as here:
        await world.hosts[RIGHT].stop()
        key = await begun(here, "moves")
        await until(lambda: any(step.attempts > 1 for step in world.log.tables.workflows[key].steps))
        waiting = await here.workflows.find(key)
        await world.hosts[RIGHT].start()
        await here.workflows.retry(key, "it is back")
        stored = await ended(here, key)
    assert phases(waiting) == {"take": StepPhase.COMMITTED, "give": StepPhase.ASKED}
    assert waiting.steps[1].message
    assert stored.record.phase is WorkflowPhase.COMPLETED
    assert moved(world) == (-10, 10, 1)
    assert [action.action for action in world.log.tables.actions] == ["WORKFLOW_RETRY"]


async def test_a_participant_that_is_back_is_asked_at_once_however_long_the_pause_has_grown(world: World) -> None:
    looks: list[StepResult] = []

    def is_there(read: StepResult) -> bool:
        looks.append(read)
        return len(looks) > 1

    async def function(wf: Workflow, _: Nothing) -> Parameter:
        await wf.step("give", [credit(RIGHT, "a", "10")])
        await wf.until("there", [read(RIGHT, "a")], is_there, every_s=3_600.0)
        return None

    async with node(world, workflows=settings(defined(function), retry_first_s=3_600.0)) as here:
        await world.hosts[RIGHT].stop()
        key = await begun(here)
        await until(lambda: any(step.attempts for step in world.log.tables.workflows[key].steps))
        await world.hosts[RIGHT].start()
        await until(lambda: bool(looks))
        await world.hosts[RIGHT].stop()
        await world.hosts[RIGHT].start()
        stored = await ended(here, key)
    assert stored.record.phase is WorkflowPhase.COMPLETED
