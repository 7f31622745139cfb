"""An incarnation's life: renewing, fencing only when entitled to (R6), adopting, checkpoints (R14)."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.log.completion import STRAGGLERS_MAX, Completion
from coordinator.log.decision_log import Checkpoint
from coordinator.log.lease import Lease
from participant_sdk.ids import Xid
from tests.log.bench import LEASE_S, Bench, Coordinator, Fate, Slow, virtual_time


def fenced(bench: Bench, coordinator: Coordinator) -> bool:
    return bench.store.tables.incarnations[coordinator.number].fenced_by is not None


@virtual_time
async def test_a_living_incarnation_is_renewed_and_not_fenced(bench: Bench) -> None:
    one, two = await bench.coordinator("one"), await bench.coordinator("two")
    one.live()
    two.live()
    await asyncio.sleep(100)
    assert not fenced(bench, one)
    assert not fenced(bench, two)
    # An empty append for each third of a lease, and no more.
    assert one.gate.done.count("append") == pytest.approx(100 / (LEASE_S / 3), abs=2)


@virtual_time
async def test_nobody_is_fenced_before_ones_own_lease_was_renewed_for_its_whole_length(bench: Bench) -> None:
    """R6."""
    gone, own = await bench.coordinator("gone"), await bench.coordinator("own")
    record = gone.record()
    gone.append(record)
    await asyncio.sleep(10 * LEASE_S)
    own.live()
    await asyncio.sleep(LEASE_S * 0.99)
    assert not fenced(bench, gone)
    assert not own.adopted
    await asyncio.sleep(LEASE_S)
    assert fenced(bench, gone)
    assert own.adopted == [(gone.number, [bench.stored(record)])]


@virtual_time
async def test_after_an_outage_everybody_waits_a_lease_before_fencing(bench: Bench) -> None:
    """R6: a log outage does not make everybody fence everybody."""
    both = [await bench.coordinator("one"), await bench.coordinator("two")]
    for own in both:
        own.append(own.record())
        own.live()
    await asyncio.sleep(20)
    for own in both:
        own.gate.is_out = True
    await asyncio.sleep(60)
    for own in both:
        own.gate.is_out = False
    await asyncio.sleep(20)
    assert not any(fenced(bench, own) for own in both)
    assert not any(own.adopted for own in both)


@virtual_time
async def test_one_that_wakes_after_its_fence_writes_nothing(bench: Bench) -> None:
    """R4, R6, invariant 7."""
    sleeper, heir = await bench.coordinator("sleeper"), await bench.coordinator("heir")
    sleeper.append(sleeper.record())
    heir.live()
    await asyncio.sleep(10)
    assert fenced(bench, sleeper)
    late = sleeper.record()
    sleeper.append(late)
    await sleeper.running
    assert sleeper.ended is not None
    assert not bench.is_stored(late)


@virtual_time
async def test_a_failed_takeover_is_tried_again_and_told_once(bench: Bench) -> None:
    gone, own = await bench.coordinator("gone"), await bench.coordinator("own")
    gone.append(gone.record())
    own.gate.script("fence_expired", Fate.UNAVAILABLE, Fate.LOST_AFTER)
    own.gate.script("unfinished", Fate.UNAVAILABLE)
    own.live()
    await asyncio.sleep(60)
    assert [number for number, _ in own.adopted] == [gone.number]


@virtual_time
async def test_what_was_adopted_is_handed_over_only_after_a_later_write(bench: Bench) -> None:
    """R7: a decision that is visible is not yet durable, and commits must not be sent for it."""
    gone, own = await bench.coordinator("gone"), await bench.coordinator("own")
    gone.append(gone.record())
    own.gate.script("unfinished", Slow(5.0))
    own.live()
    await asyncio.sleep(6)
    assert fenced(bench, gone)
    own.gate.script("append", *[Fate.UNAVAILABLE] * 20)
    await asyncio.sleep(6)
    assert own.gate.done.count("unfinished") == 1
    assert not own.adopted
    await asyncio.sleep(30)
    assert [number for number, _ in own.adopted] == [gone.number]


@virtual_time
async def test_finished_decisions_are_checkpointed_within_a_second_or_two(bench: Bench) -> None:
    """R14."""
    own = await bench.coordinator()
    own.live()
    own.append(*(own.record() for _ in range(5)))
    await asyncio.sleep(0.1)
    for sequence in (1, 2, 4, 5):
        own.life.finished(own.number, sequence)
    await asyncio.sleep(2.5)
    assert [row.sequence for row in bench.store.unfinished(own.number)] == [3]
    written = own.gate.done.count("checkpoint")
    await asyncio.sleep(10)
    assert own.gate.done.count("checkpoint") == written
    own.life.finished(own.number, 3)
    await asyncio.sleep(1.5)
    assert not bench.store.unfinished(own.number)


@virtual_time
async def test_a_failed_checkpoint_is_written_the_next_time(bench: Bench) -> None:
    own = await bench.coordinator()
    own.gate.script("checkpoint", Fate.UNAVAILABLE, Fate.LOST_BEFORE)
    own.live()
    own.append(own.record())
    await asyncio.sleep(0.1)
    own.life.finished(own.number, 1)
    await asyncio.sleep(5)
    assert not bench.store.unfinished(own.number)


@virtual_time
async def test_what_an_adopted_incarnation_left_is_finished_once_for_all(bench: Bench) -> None:
    """R6, R14: a second recovery changes nothing (invariant 8)."""
    gone, own = await bench.coordinator("gone"), await bench.coordinator("own")
    gone.append(*(gone.record() for _ in range(3)))
    life = own.live()
    await asyncio.sleep(10)
    ((number, rows),) = own.adopted
    own.life.finished(number, 2)
    await asyncio.sleep(2)
    # The prefix is not lost behind the first of them: all of them straggle.
    assert bench.store.tables.checkpoints[number].finished_through == 3
    assert [row.sequence for row in bench.store.unfinished(number)] == [1, 3]
    for row in rows:
        own.life.finished(number, row.sequence)
    await asyncio.sleep(2)
    assert not bench.store.unfinished(number)
    life.cancel()
    own.running.cancel()
    second = await bench.coordinator("second")
    second.live()
    await asyncio.sleep(20)
    assert not second.adopted


def test_a_lease_is_unbroken_from_the_first_renewal_without_a_gap() -> None:
    """R6: measured from the beginning of a renewal to the beginning of the last one, on one's own clock."""
    lease = Lease(3.0)
    assert (lease.unbroken_s(5.0), lease.age_s(5.0)) == (0.0, float("inf"))
    lease.renewed(10.0, 10.1)
    assert lease.unbroken_s(10.2) == 0.0
    lease.renewed(11.0, 11.1)
    lease.renewed(13.0, 13.9)
    assert lease.unbroken_s(13.9) == 3.0
    assert lease.age_s(13.9) == pytest.approx(0.9)
    # As old as a lease: it may have lapsed.
    assert lease.unbroken_s(16.0) == 0.0
    # Answered a lease after the last began: it starts anew.
    lease.renewed(15.0, 16.0)
    assert lease.unbroken_s(16.0) == 0.0
    lease.renewed(17.0, 17.9)
    lease.renewed(18.0, 18.5)
    assert lease.unbroken_s(18.5) == 3.0


def xid(sequence: int) -> Xid:
    return Xid.make(1, 1, sequence)


def decided(*sequences: int) -> Completion:
    completion = Completion(1)
    for sequence in sequences:
        completion.decided(sequence, xid(sequence))
    return completion


def test_the_prefix_ends_before_the_first_fresh_decision_and_names_those_that_straggle() -> None:
    """R14: a stuck transaction pins the prefix for one checkpoint only."""
    completion = decided(1, 2, 3, 7)
    completion.finished(1)
    assert completion.checkpoint() == Checkpoint(1, 1)
    completion.finished(3)
    completion.decided(8, xid(8))
    assert completion.checkpoint() == Checkpoint(1, 7, frozenset({xid(2), xid(7)}))
    for sequence in (2, 7, 8):
        completion.finished(sequence)
    assert completion.checkpoint() == Checkpoint(1, 8)
    assert len(completion) == 0


def test_an_unchanged_checkpoint_is_not_written_again() -> None:
    completion = decided(1)
    completion.checkpoint()
    checkpoint = completion.checkpoint()
    assert checkpoint is not None
    assert checkpoint == Checkpoint(1, 1, frozenset({xid(1)}))
    completion.wrote(checkpoint)
    assert completion.checkpoint() is None


def test_stragglers_are_bounded() -> None:
    """Invariant 12: past the bound the prefix waits."""
    completion = decided(*range(1, STRAGGLERS_MAX + 10))
    completion.checkpoint()
    checkpoint = completion.checkpoint()
    assert checkpoint is not None
    assert (checkpoint.finished_through, len(checkpoint.stragglers)) == (STRAGGLERS_MAX, STRAGGLERS_MAX)


def test_sequences_only_rise() -> None:
    """A decision counted late could be hidden below a prefix that was written already."""
    with pytest.raises(ValueError, match="comes after"):
        decided(2, 1)
