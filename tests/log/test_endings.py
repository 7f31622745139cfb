"""R4 and R15: what ends an incarnation, and what only makes it wait."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.log.ended import FencedError, LogTailLostError, SequenceBrokenError
from participant_sdk.xa import DecisionState
from tests.log.bench import Bench, Fate, Late, virtual_time


@virtual_time
async def test_a_fenced_incarnation_stops_at_once_and_tells_nothing(bench: Bench) -> None:
    own = await bench.coordinator()
    bench.store.tables.incarnations[own.number].fenced_by = own.number + 1
    record = own.record()
    own.append(record)
    await own.running
    assert isinstance(own.ended, FencedError)
    assert not own.recorded
    assert not bench.is_stored(record)


@virtual_time
async def test_who_is_fenced_by_hold_says_so_and_where_to_read_on(bench: Bench) -> None:
    """R15."""
    own = await bench.coordinator()
    bench.store.hold("left is ahead")
    record = own.record()
    own.append(record)
    await own.running
    assert isinstance(own.ended, FencedError)
    assert "in HOLD: left is ahead; see the runbook" in str(own.ended)
    assert not bench.is_stored(record)


@virtual_time
async def test_who_is_fenced_stops_even_where_the_reason_cannot_be_read(bench: Bench) -> None:
    own = await bench.coordinator()
    bench.store.hold("left is ahead")
    own.gate.script("standing", Fate.UNAVAILABLE)
    own.commit.renew()
    await own.running
    assert str(own.ended) == f"incarnation {own.number} was fenced"


@virtual_time
async def test_a_promotion_ends_the_incarnation(bench: Bench) -> None:
    own = await bench.coordinator()
    bench.store.restore(bench.store.copy(), new_timeline=True)
    own.commit.renew()
    await own.running
    assert isinstance(own.ended, FencedError)


@virtual_time
async def test_a_log_that_lost_its_tail_is_put_in_hold(bench: Bench) -> None:
    """R15: a restore that keeps the timeline shows in the sequence."""
    own = await bench.coordinator()
    backup = bench.store.copy()
    own.append(own.record())
    await asyncio.sleep(0.1)
    bench.store.restore(backup, new_timeline=False)
    own.append(own.record())
    await own.running
    assert isinstance(own.ended, LogTailLostError)
    assert bench.store.tables.held
    assert len(own.recorded) == 1


@virtual_time
async def test_a_log_that_lost_the_incarnation_is_put_in_hold(bench: Bench) -> None:
    backup = bench.store.copy()
    own = await bench.coordinator()
    bench.store.restore(backup, new_timeline=False)
    own.commit.renew()
    await own.running
    assert isinstance(own.ended, LogTailLostError)
    assert bench.store.tables.held


@virtual_time
async def test_the_incarnation_stops_even_where_hold_cannot_be_written(bench: Bench) -> None:
    backup = bench.store.copy()
    own = await bench.coordinator()
    bench.store.restore(backup, new_timeline=False)
    own.gate.script("hold", Fate.UNAVAILABLE)
    own.commit.renew()
    await own.running
    assert isinstance(own.ended, LogTailLostError)
    assert not bench.store.tables.held


@virtual_time
async def test_a_sequence_that_moved_without_a_write_of_ours_stops_everything(bench: Bench) -> None:
    """R5 is the only reason for it: anything else is a defect, and going on would risk two outcomes."""
    own = await bench.coordinator()
    bench.store.tables.incarnations[own.number].last_sequence = 4
    own.append(own.record())
    await own.running
    assert isinstance(own.ended, SequenceBrokenError)
    assert not own.recorded


@virtual_time
async def test_in_hold_records_wait_while_the_lease_is_renewed_and_inquiries_are_answered(bench: Bench) -> None:
    """R4, R15."""
    own, asking = await bench.coordinator("own"), await bench.coordinator("asking")
    known = own.record()
    own.append(known)
    await asyncio.sleep(0.1)
    bench.store.tables.held = "participants are ahead"
    waiting = asking.record()
    asking.append(waiting)
    await asyncio.sleep(20)
    assert not asking.recorded
    assert asking.commit.lease.age_s(bench.clock.monotonic_s()) < 1
    assert (await asking.commit.read(known.xid)).state is DecisionState.COMMIT
    bench.store.tables.held = ""
    await asyncio.sleep(1)
    assert asking.answer(waiting) == (asking.number, 1, None)


@virtual_time
async def test_a_lost_write_is_settled_after_hold(bench: Bench) -> None:
    """R5, R15: an empty batch passes in HOLD, and settles nothing."""
    own = await bench.coordinator()
    done, undone = own.record(), own.record()
    own.gate.script("append", Fate.LOST_BEFORE)
    own.append(undone)
    await asyncio.sleep(0.003)
    bench.store.tables.held = "participants are ahead"
    await asyncio.sleep(5)
    assert not own.recorded
    bench.store.tables.held = ""
    await asyncio.sleep(1)
    assert own.answer(undone) == (own.number, 1, None)
    own.gate.script("append", Fate.LOST_AFTER)
    own.append(done)
    await asyncio.sleep(0.003)
    bench.store.tables.held = "again"
    await asyncio.sleep(5)
    assert own.answer(done) == (own.number, 2, None)


@virtual_time
async def test_an_empty_batch_does_not_settle_a_lost_one(bench: Bench) -> None:
    """R5, R15: the lost statement takes effect between the end of HOLD and the next attempt."""
    own = await bench.coordinator()
    record = own.record()
    own.gate.script("append", Late(5.0))
    own.append(record)
    await asyncio.sleep(0.003)
    bench.store.tables.held = "participants are ahead"
    await asyncio.sleep(4.99)
    bench.store.tables.held = ""
    await asyncio.sleep(1)
    assert own.ended is None
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_renewal_writes_only_where_nothing_else_was_written(bench: Bench) -> None:
    own = await bench.coordinator()
    own.commit.renew()
    await asyncio.sleep(0.1)
    own.commit.renew()
    await asyncio.sleep(0.1)
    assert own.gate.done.count("append") == 1
    await asyncio.sleep(1)
    own.commit.renew()
    await asyncio.sleep(0.1)
    assert own.gate.done.count("append") == 2


@virtual_time
async def test_a_cancelled_run_just_stops(bench: Bench) -> None:
    own = await bench.coordinator()
    own.append(own.record())
    await asyncio.sleep(0.0005)
    own.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await own.running
    assert own.ended is None
    assert not own.recorded
