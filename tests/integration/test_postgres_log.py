"""The decision log on a real PostgreSQL whose sessions are killed, stopped and kept waiting."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random

import pytest

from coordinator.log.decision_log import AppendStatus, DecisionLog, LogUnavailableError, LogUncertainError
from coordinator.log.postgres import PostgresLog, migrate_log
from coordinator.protocol.effects import DecisionRecord
from coordinator.protocol.events import Recorded
from participant_sdk.ids import RequestId
from tests.contract.worlds import LEASE_S, Coordinator, started
from tests.integration.log_observer import IMPATIENT, Commits, Observer, committing, observing, outcome


@pytest.fixture
async def observer(database: str) -> AsyncIterator[Observer]:
    await migrate_log(database)
    async with observing(database) as observer:
        yield observer


@pytest.fixture
async def blocker(database: str, observer: Observer) -> AsyncIterator[Observer]:
    """A session for an open transaction: the observer's own would see the same activity for ever."""
    async with observing(database) as blocker:
        yield blocker


@pytest.fixture
async def log(database: str, observer: Observer) -> AsyncIterator[PostgresLog]:
    log = PostgresLog(database, name="one")
    yield log
    await log.close()


class TestLostConnections:
    async def test_a_terminated_append_is_unknown_and_writing_again_settles_it(
        self, log: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """R5: here it was not done."""
        own = await started(log)
        record = own.record("order-1")
        await blocker.ask(b"BEGIN")
        await blocker.ask(b"SELECT FROM txlog.incarnations FOR UPDATE")
        async with asyncio.TaskGroup() as tasks:
            append = tasks.create_task(outcome(own.append(record)))
            await observer.ask(b"SELECT pg_terminate_backend(%s)", await observer.backend("one-appends", "Lock"))
            assert isinstance(await append, LogUncertainError)
        await blocker.ask(b"ROLLBACK")
        assert (await own.append(record)).status is AppendStatus.WRITTEN

    async def test_group_commit_settles_a_terminated_append_by_itself(
        self, log: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """R5: it waits behind whoever holds the row, and tells once."""
        own = await started(log)
        record = own.record("order-1")
        await blocker.ask(b"BEGIN")
        await blocker.ask(b"SELECT FROM txlog.incarnations FOR UPDATE")
        async with committing(own) as commits:
            commits.commit.append(record)
            for _ in range(2):
                await observer.ask(b"SELECT pg_terminate_backend(%s)", await observer.backend("one-appends", "Lock"))
            assert not commits.recorded
            await blocker.ask(b"COMMIT")
            await commits.told(1)
        assert commits.recorded == [(record, Recorded(own.number, 1))]

    async def test_a_statement_that_arrives_after_the_second_attempt_does_nothing(
        self, database: str, observer: Observer
    ) -> None:
        """R4, R5: the old backend is stopped with the statement before it, and wakes too late."""
        log = PostgresLog(database, name="two", timeouts=IMPATIENT)
        own = await started(log)
        await own.append()
        stopped = await observer.backend("two-appends")
        os.kill(stopped, signal.SIGSTOP)
        record = own.record("order-1")
        try:
            with pytest.raises(LogUncertainError):
                await own.append(record)
            assert (await own.append(record)).status is AppendStatus.WRITTEN
        finally:
            os.kill(stopped, signal.SIGCONT)
        await observer.until(lambda rows: not rows, b"SELECT pid FROM pg_stat_activity WHERE pid = %s", stopped)
        assert await observer.ask(b"SELECT last_sequence FROM txlog.incarnations") == [(1,)]
        assert await observer.ask(b"SELECT count(*) FROM txlog.decisions") == [(1,)]
        await log.close()

    async def test_a_statement_that_the_server_gave_up_did_nothing(self, database: str, blocker: Observer) -> None:
        log = PostgresLog(database, name="two", timeouts=IMPATIENT)
        own = await started(log)
        await blocker.ask(b"BEGIN")
        await blocker.ask(b"SELECT FROM txlog.incarnations FOR UPDATE")
        with pytest.raises(LogUnavailableError):
            await own.append(own.record())
        await blocker.ask(b"COMMIT")
        assert (await own.append(own.record())).last_sequence == 1
        await log.close()

    async def test_a_lost_read_is_no_answer_and_the_next_one_connects_again(
        self, log: PostgresLog, observer: Observer
    ) -> None:
        """R7."""
        own = await started(log)
        xid = own.record().xid
        await log.read([xid])
        await observer.ask(b"SELECT pg_terminate_backend(%s, 5000)", await observer.backend("one-reads"))
        with pytest.raises(LogUnavailableError):
            await log.read([xid])
        assert not (await log.read([xid])).decisions

    async def test_a_fence_waits_for_a_write_under_way_and_sees_its_renewal(
        self, database: str, log: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """R4, R6: fence and write queue for one row, so one of them comes first."""
        slow, rival = await started(log, lease_s=0.0), PostgresLog(database, name="rival")
        slow.incarnation = replace(slow.incarnation, lease_s=LEASE_S)
        heir = await started(rival, "heir")
        await blocker.ask(b"BEGIN")
        await blocker.ask(
            b"INSERT INTO txlog.decisions (xid, incarnation, sequence, decision, tenant, request_id)"
            b" VALUES ('00000000-0000-8000-8000-000000000001', 1, 1, 1, 'default', 'order-1')"
        )
        async with asyncio.TaskGroup() as tasks:
            append = tasks.create_task(slow.append(slow.record("order-1"), slow.record("order-2")))
            await observer.backend("one-appends", "Lock")
            fence = tasks.create_task(rival.fence_expired(heir.incarnation))
            await observer.backend("rival-upkeep", "Lock")
            await blocker.ask(b"ROLLBACK")
        assert append.result().status is AppendStatus.WRITTEN
        assert not fence.result()
        assert (await slow.append()).status is AppendStatus.WRITTEN
        await rival.close()

    async def test_batches_in_opposite_order_that_meet_half_way_do_not_deadlock(
        self, database: str, log: PostgresLog, observer: Observer, blocker: Observer
    ) -> None:
        """R3: unsorted, each would hold what the other wants next."""
        one, rival = await started(log), PostgresLog(database, name="rival")
        two = await started(rival, "two")
        names = ["order-1", "order-2", "order-3"]
        await blocker.ask(b"BEGIN")
        await blocker.ask(
            b"INSERT INTO txlog.decisions (xid, incarnation, sequence, decision, tenant, request_id)"
            b" VALUES ('00000000-0000-8000-8000-000000000001', 1, 1, 1, 'default', 'order-2')"
        )
        async with asyncio.TaskGroup() as tasks:
            ours = tasks.create_task(one.append(*map(one.record, names)))
            await observer.backend("one-appends", "Lock")
            theirs = tasks.create_task(two.append(*map(two.record, reversed(names))))
            await observer.backend("rival-appends", "Lock")
            await blocker.ask(b"ROLLBACK")
        assert not ours.result().conflicts
        assert len(theirs.result().conflicts) == 3
        await rival.close()

    async def test_under_dying_connections_every_record_is_told_once_and_truly(
        self, database: str, observer: Observer
    ) -> None:
        """R3, R5, invariants 1 and 11, with two coordinators after the same requests."""
        random = Random(11)
        async with AsyncExitStack() as stack:
            both: list[tuple[Coordinator, Commits]] = []
            for name in ("one", "two"):
                log = PostgresLog(database, name=name)
                stack.push_async_callback(log.close)
                own = await started(log, name)
                both.append((own, await stack.enter_async_context(committing(own))))
            for turn in range(40):
                for own, commits in both:
                    for _ in range(10):
                        commits.commit.append(own.record(f"order-{random.randrange(500)}"))
                if turn % 4 == 0:
                    victim = random.choice(("one-appends", "two-appends", "one-reads"))
                    await observer.ask(
                        b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", victim
                    )
                await asyncio.sleep(0.002)
            for _, commits in both:
                await commits.told(400)
            await _check_told(both[0][0].log, [commits.recorded for _, commits in both])


async def _check_told(log: DecisionLog, told: Sequence[list[tuple[DecisionRecord, Recorded]]]) -> None:
    bound: dict[RequestId, DecisionRecord] = {}
    for recorded in told:
        assert len({record.xid for record, _ in recorded}) == len(recorded) == 400
        rows = (await log.read([record.xid for record, _ in recorded])).decisions
        for record, answer in recorded:
            row = rows[record.xid]
            assert (row.record, row.incarnation, row.sequence) == (record, answer.incarnation, answer.sequence)
            if answer.stored is None:
                assert record.request is not None
                assert bound.setdefault(record.request, record) is record
    for recorded in told:
        for _, answer in recorded:
            if answer.stored is not None:
                assert answer.stored.record.request is not None
                assert bound[answer.stored.record.request] == answer.stored.record
