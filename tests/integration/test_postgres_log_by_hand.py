"""What an operator does to a log in its database, where no coordinator can be asked (R15)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from coordinator.log.decision_log import AppendStatus, Release
from coordinator.log.postgres import PostgresLog, migrate_log
from coordinator.protocol.effects import StoredDecision
from participant_sdk.ids import RequestId
from participant_sdk.xa import Decision
from tests.contract.worlds import started
from tests.integration.log_observer import Observer, observing

ORDER = RequestId("default", "order-1")


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


async def test_hold_by_hand_is_the_coordinators_own(log: PostgresLog, operator: Observer) -> None:
    """It fences who lives, begins an epoch, and keeps the first reason, whatever the session's settings are."""
    own = await started(log)
    await operator.ask(b"SET synchronous_commit = off")
    assert await operator.ask(b"SELECT txlog.hold(%s)", "the backup of 02:00") == [(True,)]
    assert await operator.ask(b"SELECT txlog.hold(%s)", "another") == [(False,)]
    assert (await own.append(own.record())).status is AppendStatus.FENCED
    standing = await log.standing()
    assert (standing.held_reason, standing.live) == ("the backup of 02:00", ())
    later = await started(log)
    assert later.incarnation.epoch == later.number


@pytest.mark.parametrize("reason", ["", "  ", None])
async def test_hold_without_a_reason_says_so(log: PostgresLog, operator: Observer, reason: str | None) -> None:
    await started(log)
    await operator.ask(b"SELECT txlog.hold(%s)", reason)
    assert (await log.standing()).held_reason == "no reason was given"


async def test_a_request_is_unbound_so_that_the_commit_that_was_lost_has_it_back(
    log: PostgresLog, operator: Observer
) -> None:
    """Invariant 11 was broken by whoever wrote to the restored log: an operator decides which answer is told."""
    old = await started(log, "old")
    bound = old.record(ORDER.name, decision=Decision.ROLLBACK)
    await old.append(bound)
    await log.hold("restored from a dump")
    own = await started(log)
    unbound = await operator.ask(b"SELECT txlog.unbind(%s, %s)", str(bound.xid), "it did nothing")
    assert unbound == [(ORDER.name,)]
    lost = old.record(ORDER.name)
    await log.release(own.incarnation, Release((StoredDecision(lost, old.number, 7, 0),), {}, "polled all of them"))
    assert (await log.read_requests([ORDER]))[ORDER].record.xid == lost.xid
    assert (await log.read([bound.xid])).decisions[bound.xid].record.decision is Decision.ROLLBACK
    actions = await operator.ask(b"SELECT action, xid::text, detail, reason FROM txlog.operator_actions ORDER BY id")
    assert actions[0] == ("UNBIND", str(bound.xid), ORDER.name, "it did nothing")


async def test_nothing_is_unbound_without_hold_a_reason_and_a_request(log: PostgresLog, operator: Observer) -> None:
    own = await started(log)
    bound, free = own.record(ORDER.name), own.record()
    await own.append(bound, free)
    for xid, reason, refusal in (
        (bound.xid, "why not", "not in HOLD"),
        (bound.xid, " ", "a reason is required"),
        (free.xid, "why not", f"no request is bound to transaction {free.xid}"),
    ):
        with pytest.raises(psycopg.errors.RaiseException, match=refusal):
            await operator.ask(b"SELECT txlog.unbind(%s, %s)", str(xid), reason)
        await log.hold("restored from a dump")
    assert (await log.read_requests([ORDER]))[ORDER].record.xid == bound.xid
