"""HOLD, pruning and reconnecting on a real PostgreSQL, while other sessions are in the middle of something."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from coordinator.log.decision_log import (
    AppendStatus,
    Checkpoint,
    LogUnavailableError,
    LogUncertainError,
    Release,
    ReleaseRefusedError,
)
from coordinator.log.postgres import PostgresLog, migrate_log
from participant_sdk.clock import SystemClock
from tests.contract.worlds import Coordinator, started
from tests.integration.log_observer import Observer, observing

HOUR_MS = 3_600_000
# A row of an unfinished insert, whose request_id others wait for.
RIVAL_ROW = b"""INSERT INTO txlog.decisions (xid, incarnation, sequence, decision, tenant, request_id)
                VALUES ('00000000-0000-8000-8000-000000000001', 1, 1, 1, 'default', 'order-1')"""


@pytest.fixture
async def observer(database: str) -> AsyncIterator[Observer]:
    await migrate_log(database)
    async with observing(database) as observer:
        yield observer


@pytest.fixture
async def blocker(database: str, observer: Observer) -> AsyncIterator[Observer]:
    async with observing(database) as blocker:
        yield blocker


@pytest.fixture
async def log(database: str, observer: Observer) -> AsyncIterator[PostgresLog]:
    log = PostgresLog(database, name="one")
    yield log
    await log.close()


@pytest.fixture
async def rival(database: str, observer: Observer) -> AsyncIterator[PostgresLog]:
    rival = PostgresLog(database, name="rival")
    yield rival
    await rival.close()


class TestHold:
    async def test_hold_waits_for_an_append_under_way_which_then_stands(
        self, log: PostgresLog, rival: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """R15: it came before HOLD, so whoever is polled afterwards has either all of it or nothing."""
        own = await started(log)
        record = own.record("order-1")
        await blocker.ask(b"BEGIN")
        await blocker.ask(RIVAL_ROW)
        async with asyncio.TaskGroup() as tasks:
            append = tasks.create_task(own.append(record))
            await observer.backend("one-appends", "Lock")
            hold = tasks.create_task(rival.hold("participants are ahead"))
            await observer.backend("rival-upkeep", "Lock")
            assert await observer.ask(b"SELECT FROM txlog.log WHERE held_since IS NOT NULL") == []
            await blocker.ask(b"ROLLBACK")
        assert append.result().status is AppendStatus.WRITTEN
        assert hold.result() is None
        assert (await own.append(own.record())).status is AppendStatus.FENCED
        snapshot = await log.read([record.xid])
        assert snapshot.held
        assert snapshot.decisions

    async def test_an_append_that_queued_behind_hold_does_nothing(
        self, log: PostgresLog, rival: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """R4, R15: its snapshot is older than HOLD; the fence on its own row is what it cannot miss."""
        own = await started(log)
        other = await started(rival, "other")
        await blocker.ask(b"BEGIN")
        await blocker.ask(b"SELECT FROM txlog.incarnations WHERE incarnation = %s FOR UPDATE", other.number)
        record = own.record("order-1")
        async with asyncio.TaskGroup() as tasks:
            # It has fenced our row, and waits for the other one's.
            hold = tasks.create_task(rival.hold("participants are ahead"))
            await observer.backend("rival-upkeep", "Lock")
            append = tasks.create_task(own.append(record))
            await observer.backend("one-appends", "Lock")
            await blocker.ask(b"ROLLBACK")
        assert hold.result() is None
        assert append.result().status is AppendStatus.FENCED
        assert not (await log.read([record.xid])).decisions

    async def test_hold_ends_one_that_was_being_opened(
        self, log: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """Both take the log's row first, so HOLD sees whoever was drawn before it."""
        await started(log)
        await blocker.ask(b"BEGIN")
        await blocker.ask(b"SELECT FROM txlog.log FOR UPDATE")
        await blocker.ask(
            b"INSERT INTO txlog.incarnations (incarnation, coordinator, address, timeline, lease_until)"
            b" SELECT max(incarnation) + 1, 'new', '', max(timeline), now() + interval '1 hour'"
            b" FROM txlog.incarnations"
        )
        async with asyncio.TaskGroup() as tasks:
            hold = tasks.create_task(log.hold("participants are ahead"))
            await observer.backend("one-upkeep", "Lock")
            await blocker.ask(b"COMMIT")
        assert hold.result() is None
        assert not (await log.standing()).live
        next_ = await started(log)
        assert next_.incarnation.epoch == next_.number

    async def test_a_release_that_is_lost_half_way_changes_nothing(
        self, log: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        old = await started(log)
        await log.hold("restored from a dump")
        own = await started(log)
        await blocker.ask(b"BEGIN")
        await blocker.ask(b"SELECT FROM txlog.incarnations WHERE incarnation = %s FOR UPDATE", old.number)
        async with asyncio.TaskGroup() as tasks:
            release = tasks.create_task(_done(log.release(own.incarnation, Release((), {old.number: 9}, "checked"))))
            await observer.ask(b"SELECT pg_terminate_backend(%s)", await observer.backend("one-upkeep", "Lock"))
            assert not await release
        await blocker.ask(b"ROLLBACK")
        assert (await log.standing()).is_held
        assert await log.read_sequences([old.number]) == {old.number: 0}
        await log.release(own.incarnation, Release((), {old.number: 9}, "checked"))
        assert await log.read_sequences([old.number]) == {old.number: 9}

    async def test_who_fences_and_who_holds_take_turns(
        self, log: PostgresLog, rival: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """Each locks several incarnations: without the log's row first, each would have what the other wants next."""
        await started(log, "expired", 0.0)
        own = await started(log)
        await blocker.ask(b"BEGIN")
        await blocker.ask(b"SELECT FROM txlog.incarnations WHERE incarnation = %s FOR UPDATE", own.number)
        async with asyncio.TaskGroup() as tasks:
            fence = tasks.create_task(log.fence_expired(own.incarnation))
            await observer.backend("one-upkeep", "Lock")
            hold = tasks.create_task(rival.hold("participants are ahead"))
            await observer.backend("rival-upkeep", "Lock")
            await blocker.ask(b"ROLLBACK")
        assert not fence.result()
        assert hold.result() is None

    async def test_all_that_lock_rows_at_once_never_deadlock(self, database: str, observer: Observer) -> None:
        """Appends lock their own incarnation; all others the log's row first."""
        until = time.monotonic() + 4
        deadlocks = b"SELECT deadlocks::int FROM pg_stat_database WHERE datname = current_database()"
        before = await observer.ask(deadlocks)

        async def live(name: str) -> None:
            log = PostgresLog(database, name=name)
            rounds = 0
            while time.monotonic() < until:
                own = await started(log, name, 0.2)
                for _ in range(4):
                    rounds += 1
                    await _round(log, own, rounds)
                if rounds % 3 == 0:
                    await log.resign(own.incarnation)
            await log.close()

        async with asyncio.TaskGroup() as tasks:
            for n in range(4):
                tasks.create_task(live(f"c{n}"))
        await observer.ask(b"SELECT pg_stat_clear_snapshot()")
        assert await observer.ask(deadlocks) == before


async def _round(log: PostgresLog, own: Coordinator, turn: int) -> None:
    with suppress(LogUnavailableError):
        # HOLD may end between a refusal and the look at its reason.
        await own.append(own.record(f"order-{turn}"), own.record(f"order-{turn + 1}"))
    await log.checkpoint(Checkpoint(own.number, own.sequence, applied={"bookkeeper": own.sequence}))
    await log.fence_expired(own.incarnation)
    await log.prune(-1.0, 10, SystemClock().unix_ms())
    if turn % 5 == 0:
        await log.hold("try")
    if (await log.standing()).is_held:
        with suppress(ReleaseRefusedError):
            await log.release(own.incarnation, Release((), {own.number - 1: turn}, "try"))


async def _done(work: Awaitable[None]) -> bool:
    """Whether it was done; its answer may be lost."""
    try:
        await work
    except (LogUncertainError, LogUnavailableError):
        return False
    return True


class TestPrune:
    async def test_horizon_and_deletion_are_seen_together(
        self, log: PostgresLog, rival: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """R7: a reader must not take a pruned decision for one that was never made."""
        own = await started(log)
        record = own.record(unix_ms=time.time_ns() // 1_000_000 - 3 * HOUR_MS)
        await own.append(record)
        await log.checkpoint(Checkpoint(own.number, 1))
        await blocker.ask(b"BEGIN")
        await blocker.ask(b"SELECT FROM txlog.decisions FOR UPDATE")
        async with asyncio.TaskGroup() as tasks:
            prune = tasks.create_task(rival.prune(7200.0, 10, SystemClock().unix_ms()))
            await observer.backend("rival-upkeep", "Lock")
            snapshot = await log.read([record.xid])
            assert (len(snapshot.decisions), snapshot.pruned_below_unix_ms) == (1, 0)
            await blocker.ask(b"ROLLBACK")
        assert prune.result() == 1
        snapshot = await log.read([record.xid])
        assert not snapshot.decisions
        assert snapshot.pruned_below_unix_ms > record.xid.unix_ms


class TestConnections:
    @pytest.mark.parametrize(("name", "count"), [("appends", 3), ("reads", 1), ("upkeep", 1)])
    async def test_the_generation_rises_with_every_connection_that_is_made_again(
        self, log: PostgresLog, observer: Observer, name: str, count: int
    ) -> None:
        """R15: a new connection may have met another server; each kind of statement says something of the log.

        With the one that appends go the idle others: not one after the other, each with reports of its own.
        """
        own = await started(log)
        before = log.generation
        await observer.ask(b"SELECT pg_terminate_backend(%s, 5000)", await observer.backend(f"one-{name}"))
        for _ in range(2):
            await _any_answer(log, own)
        assert log.generation == before + count

    async def test_a_refusal_that_no_retry_mends_is_told_loudly_with_its_code_and_once(
        self, log: PostgresLog, observer: Observer
    ) -> None:
        """It is tried again all the same: a person mends it, and nothing is lost."""
        own = await started(log)
        record = own.record()
        await observer.ask(b"ALTER TABLE txlog.decisions RENAME TO elsewhere")
        with capture_logs() as told:
            for _ in range(3):
                with pytest.raises(LogUnavailableError, match="SQLSTATE 42P01"):
                    await own.append(record)
        assert [(line["event"], line["sqlstate"], line["log_level"]) for line in told] == [
            ("decision_log_refuses", "42P01", "error")
        ]
        assert log.problem == 'SQLSTATE 42P01: relation "txlog.decisions" does not exist'
        await own.log.standing()
        assert log.problem, "what else it takes does not mend it"
        await observer.ask(b"ALTER TABLE txlog.elsewhere RENAME TO decisions")
        assert (await own.append(record)).status is AppendStatus.WRITTEN
        assert log.problem == ""


async def _any_answer(log: PostgresLog, own: Coordinator) -> None:
    """Send a statement over each connection."""
    for work in (own.append(), log.read([]), log.fence_expired(own.incarnation)):
        with suppress(LogUnavailableError, LogUncertainError):
            await work
