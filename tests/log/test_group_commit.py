"""Group commit: what rides together, when it is told, and what a bound request_id answers."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from coordinator.log.group_commit import REQUEST_BOUND
from participant_sdk.batching import QueueFullError
from participant_sdk.ids import RequestId
from participant_sdk.xa import Decision
from tests.log.bench import Bench, Fate, Slow, virtual_time


@virtual_time
async def test_a_record_is_told_only_after_the_log_has_it(bench: Bench) -> None:
    """R1."""
    own = await bench.coordinator()
    record = own.record()
    own.gate.script("append", Slow(5.0, 5.0))
    own.append(record)
    await asyncio.sleep(4.9)
    assert not bench.is_stored(record)
    await asyncio.sleep(5.0)
    assert bench.is_stored(record)
    assert not own.recorded
    await asyncio.sleep(0.2)
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_all_that_queued_during_a_flush_rides_in_the_next(bench: Bench) -> None:
    own = await bench.coordinator()
    records = [own.record() for _ in range(100)]
    own.append(records[0])
    await asyncio.sleep(0.0005)
    own.append(*records[1:])
    await asyncio.sleep(0.01)
    assert own.flushes == [1, 99]
    assert own.told == [record.xid for record in records]
    assert [answer.sequence for _, answer in own.recorded] == list(range(1, 101))


@virtual_time
async def test_a_batch_has_at_most_its_size(bench: Bench) -> None:
    """Invariant 12."""
    own = await bench.coordinator(batch_size=10)
    own.append(*(own.record() for _ in range(25)))
    await asyncio.sleep(0.1)
    assert own.flushes == [10, 10, 5]


@virtual_time
async def test_a_full_queue_refuses_and_keeps_what_it_has(bench: Bench) -> None:
    """Invariant 12."""
    own = await bench.coordinator(batch_size=2, queue_bound=3)
    records = [own.record() for _ in range(4)]
    own.append(*records[:3])
    with pytest.raises(QueueFullError):
        own.append(records[3])
    assert len(own.commit) == 3
    await asyncio.sleep(0.1)
    assert own.told == [record.xid for record in records[:3]]


@virtual_time
async def test_an_unavailable_log_gets_the_same_batch_again(bench: Bench) -> None:
    own = await bench.coordinator()
    records = [own.record() for _ in range(3)]
    own.gate.script("append", *[Fate.UNAVAILABLE] * 20)
    own.append(*records)
    await asyncio.sleep(60)
    assert own.told == [record.xid for record in records]
    assert own.flushes == [3]


@virtual_time
async def test_a_bound_request_answers_with_the_stored_row_after_the_own_rollback_is_durable(bench: Bench) -> None:
    """R3."""
    one, two = await bench.coordinator("one"), await bench.coordinator("two")
    first, second, bystander = one.record("order-1"), two.record("order-1"), two.record("order-2")
    one.append(first)
    await asyncio.sleep(0.1)
    two.gate.script("append", Slow(0.001), Slow(5.0))
    two.append(second, bystander)
    await asyncio.sleep(1)
    assert two.told == [bystander.xid]
    await asyncio.sleep(5)
    answer = two.answer(second)
    assert answer.stored == bench.stored(first)
    own_row = bench.stored(second)
    assert own_row.record.decision is Decision.ROLLBACK
    assert (own_row.record.request, own_row.record.reason, own_row.sequence) == (None, REQUEST_BOUND, answer.sequence)
    assert own_row.record.prepared == ("bookkeeper",)
    assert bench.store.tables.requests[RequestId("default", "order-1")] == first.xid


@virtual_time
async def test_the_same_request_twice_in_one_batch_commits_once(bench: Bench) -> None:
    """R3, invariant 11."""
    own = await bench.coordinator()
    records = [own.record("order-1") for _ in range(3)]
    own.append(*records)
    await asyncio.sleep(1)
    assert own.answer(records[0]).stored is None
    assert [own.answer(record).stored for record in records[1:]] == [bench.stored(records[0])] * 2
    assert [bench.stored(r).record.decision for r in records] == [Decision.COMMIT] + [Decision.ROLLBACK] * 2


@virtual_time
async def test_a_conflict_is_answered_however_often_the_read_fails(bench: Bench) -> None:
    """R3: an outage between the two statements costs time only."""
    own = await bench.coordinator()
    first, second = own.record("order-1"), own.record("order-1")
    own.gate.script("read_requests", *[Fate.UNAVAILABLE] * 5)
    own.append(first, second)
    await asyncio.sleep(10)
    assert own.answer(second).stored == bench.stored(first)


@virtual_time
async def test_an_xid_appended_twice_meets_its_own_row(bench: Bench) -> None:
    """Invariant 1: two inquiries may both insert the ROLLBACK of one lost transaction (R7)."""
    own = await bench.coordinator()
    record = own.record(decision=Decision.ROLLBACK)
    own.append(record, record)
    await asyncio.sleep(1)
    assert [answer for _, answer in own.recorded] == [(own.number, 1, None)] * 2
    own.append(record._replace(decision=Decision.COMMIT))
    await asyncio.sleep(1)
    assert own.recorded[2] == (record, (own.number, 1, bench.stored(record)))


@virtual_time
async def test_an_own_row_that_was_met_is_told_only_after_a_later_write(bench: Bench) -> None:
    """R7: visible is not yet durable."""
    own = await bench.coordinator()
    record = own.record(decision=Decision.ROLLBACK)
    own.append(record)
    await asyncio.sleep(1)
    own.gate.script("append", Fate.DONE, Slow(5.0))
    own.append(record)
    await asyncio.sleep(4)
    assert own.gate.scripts["append"] == deque(), "the row was met, and the later write is under way"
    assert len(own.recorded) == 1
    await asyncio.sleep(3)
    assert len(own.recorded) == 2


@virtual_time
async def test_an_unbound_request_is_told_at_once(bench: Bench) -> None:
    """R3: it promises nothing that a crash could take back."""
    own = await bench.coordinator()
    own.gate.script("append", Slow(100.0))
    own.commit.lookup(RequestId("default", "order-1"))
    await asyncio.sleep(1)
    assert own.looked_up == [(RequestId("default", "order-1"), None)]


@virtual_time
async def test_a_bound_request_is_told_only_after_a_later_write(bench: Bench) -> None:
    """R3, R7: visible is not yet durable."""
    one, two = await bench.coordinator("one"), await bench.coordinator("two")
    record = one.record("order-1")
    one.append(record)
    await asyncio.sleep(0.1)
    two.gate.script("append", Slow(5.0))
    two.commit.lookup(RequestId("default", "order-1"))
    await asyncio.sleep(4)
    assert not two.looked_up
    await asyncio.sleep(2)
    assert two.looked_up == [(RequestId("default", "order-1"), bench.stored(record))]


@virtual_time
async def test_lookups_that_queued_together_are_one_statement(bench: Bench) -> None:
    own = await bench.coordinator()
    own.append(own.record("order-1"))
    await asyncio.sleep(0.1)
    for n in range(50):
        own.commit.lookup(RequestId("default", f"order-{n % 10}"))
    await asyncio.sleep(0.1)
    assert len(own.looked_up) == 50
    assert sum(stored is not None for _, stored in own.looked_up) == 5
    assert own.gate.done.count("read_requests") == 1


@virtual_time
async def test_a_full_queue_of_lookups_leaves_room_for_conflicts(bench: Bench) -> None:
    """Invariant 12, R3: what was appended is answered, however many ask."""
    own = await bench.coordinator(batch_size=2, queue_bound=4)
    own.gate.script("read_requests", Slow(5.0))
    first, second = own.record("order-1"), own.record("order-1")
    for n in range(2):
        own.commit.lookup(RequestId("default", f"early-{n}"))
    await asyncio.sleep(0.1)
    for n in range(4):
        own.commit.lookup(RequestId("default", f"order-{n}"))
    with pytest.raises(QueueFullError):
        own.commit.lookup(RequestId("default", "order-5"))
    own.append(first, second)
    await asyncio.sleep(10)
    assert own.answer(second).stored == bench.stored(first)
    assert len(own.looked_up) == 6


@virtual_time
async def test_a_failed_lookup_is_asked_again(bench: Bench) -> None:
    own = await bench.coordinator()
    own.gate.script("read_requests", *[Fate.UNAVAILABLE] * 5)
    own.commit.lookup(RequestId("default", "order-1"))
    await asyncio.sleep(10)
    assert own.looked_up == [(RequestId("default", "order-1"), None)]


@virtual_time
async def test_every_report_is_counted_as_unfinished_until_it_is_finished(bench: Bench) -> None:
    """R14."""
    own = await bench.coordinator()
    own.append(*(own.record() for _ in range(3)))
    await asyncio.sleep(0.1)
    assert len(own.commit.completion) == 3
    own.life.finished(own.number, 2)
    own.life.finished(own.number, 2)
    own.life.finished(12345, 1)
    assert len(own.commit.completion) == 2
