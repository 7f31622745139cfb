"""The clock of the log's database is set back: who died before is taken over late, or by an operator's hand (R6)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from coordinator.log.decision_log import AppendStatus
from coordinator.log.postgres import PostgresLog, migrate_log
from tests.contract.worlds import Coordinator, started
from tests.integration.log_observer import Observer, observing

PAGE: Final = Path(__file__).parents[2] / "docs" / "runbooks" / "coordinator-dead.md"
LEASE_S: Final = 3.0
HOUR_S: Final = 3600.0


@pytest.fixture
async def operator(database: str) -> AsyncIterator[Observer]:
    await migrate_log(database)
    async with observing(database) as observer:
        yield observer


@pytest.fixture
async def log(database: str, operator: Observer) -> AsyncIterator[PostgresLog]:
    log = PostgresLog(database, name="one")
    yield log
    await log.close()


async def set_back(operator: Observer) -> None:
    """Let every lease be one that was given an hour later than it is now: the clock lost that hour."""
    await operator.ask(b"UPDATE txlog.incarnations SET lease_until = lease_until + interval '1 hour'")


async def end_lease(operator: Observer, coordinator: Coordinator) -> int:
    """Do what the runbook says; how many leases were changed."""
    (command,) = re.findall(r'-c "(UPDATE txlog\.incarnations [^"]*)"', PAGE.read_text(encoding="utf-8"))
    told = command.replace("$INCARNATION", str(coordinator.number)) + " RETURNING incarnation"
    return len(await operator.ask(told.encode()))


async def test_who_lives_notices_nothing_and_the_dead_ones_lease_is_too_long(
    log: PostgresLog, operator: Observer
) -> None:
    gone, living = await started(log, "gone", LEASE_S), await started(log, "living", LEASE_S)
    await gone.append(gone.record())
    await set_back(operator)
    assert (await living.append(living.record())).status is AppendStatus.WRITTEN
    assert not await log.fence_expired(living.incarnation)
    left_s = {live.number: live.lease_left_s for live in (await log.standing()).live}
    assert 0 < left_s[living.number] <= LEASE_S
    assert HOUR_S < left_s[gone.number] <= HOUR_S + LEASE_S
    # Starting it again draws a number of its own, and ends nothing.
    again = await started(log, "gone", LEASE_S)
    assert again.number > living.number
    assert {live.number for live in (await log.standing()).live} == {gone.number, living.number, again.number}


async def test_the_dead_ones_lease_is_ended_by_hand_and_no_others(log: PostgresLog, operator: Observer) -> None:
    gone, living = await started(log, "gone", LEASE_S), await started(log, "living", LEASE_S)
    await gone.append(gone.record())
    await set_back(operator)
    await living.append()
    assert await end_lease(operator, living) == 0
    assert await end_lease(operator, gone) == 1
    assert await log.fence_expired(living.incarnation) == [gone.number]
    assert (await living.append(living.record())).status is AppendStatus.WRITTEN


async def test_one_that_ran_on_and_whose_lease_was_ended_is_fenced_as_any_other(
    log: PostgresLog, operator: Observer
) -> None:
    """Invariant 7."""
    slow, living = await started(log, "slow", LEASE_S), await started(log, "living", LEASE_S)
    await slow.append(slow.record())
    await set_back(operator)
    await living.append()
    assert await end_lease(operator, slow) == 1
    assert await log.fence_expired(living.incarnation) == [slow.number]
    assert (await slow.append(slow.record())).status is AppendStatus.FENCED
