"""R5: a write whose result is unknown is settled only by writing it again."""

from __future__ import annotations

import asyncio
from random import Random

from coordinator.log.ended import FencedError
from participant_sdk.xa import Decision
from tests.log.bench import Bench, Fate, Late, Slow, virtual_time


@virtual_time
async def test_done_with_the_answer_lost_is_told_once_as_it_was_written(bench: Bench) -> None:
    own = await bench.coordinator()
    records = [own.record("order-1"), own.record()]
    own.gate.script("append", Fate.LOST_AFTER)
    own.append(*records)
    await asyncio.sleep(1)
    assert [own.answer(record) for record in records] == [(own.number, 1, None), (own.number, 2, None)]
    later = own.record()
    own.append(later)
    await asyncio.sleep(1)
    assert own.answer(later).sequence == 3


@virtual_time
async def test_what_was_found_is_told_only_after_a_later_write(bench: Bench) -> None:
    """R5, R7: the row present is the truth once a later write of one's own is confirmed."""
    own = await bench.coordinator()
    record = own.record()
    # Lost, then refused because the sequence moved on; the write after the read takes five seconds.
    own.gate.script("append", Fate.LOST_AFTER, Fate.DONE, Slow(0.0, 5.0))
    own.append(record)
    await asyncio.sleep(4)
    assert bench.is_stored(record)
    assert own.gate.done.count("read") == 1
    assert not own.recorded
    await asyncio.sleep(2)
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_never_done_is_written_again(bench: Bench) -> None:
    own = await bench.coordinator()
    record = own.record()
    own.gate.script("append", *[Fate.LOST_BEFORE] * 10)
    own.append(record)
    await asyncio.sleep(60)
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_done_late_and_again_is_done_once(bench: Bench) -> None:
    """The old statement arrives after the second one: the sequence keeps it out."""
    own = await bench.coordinator()
    record = own.record("order-1")
    own.gate.script("append", Late(30.0))
    own.append(record)
    await asyncio.sleep(1)
    assert own.answer(record) == (own.number, 1, None)
    await asyncio.sleep(60)
    assert bench.store.tables.incarnations[own.number].last_sequence == 1
    assert own.ended is None


@virtual_time
async def test_the_old_statement_may_arrive_while_the_log_is_out(bench: Bench) -> None:
    """Absence proves nothing: a plain read between the two would have said "not written"."""
    own = await bench.coordinator()
    record = own.record("order-1")
    own.gate.script("append", Late(10.0), *[Fate.UNAVAILABLE] * 30)
    own.append(record)
    await asyncio.sleep(5)
    assert not bench.is_stored(record)
    assert not own.recorded
    await asyncio.sleep(60)
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_an_unavailable_retry_leaves_the_write_unknown(bench: Bench) -> None:
    own = await bench.coordinator()
    record = own.record()
    own.gate.script("append", Fate.LOST_AFTER, Fate.UNAVAILABLE, Fate.UNAVAILABLE)
    own.append(record)
    await asyncio.sleep(5)
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_conflicts_within_a_lost_batch_go_again(bench: Bench) -> None:
    """The absent rows of a settled batch are its conflicts; they meet the same answer (R3)."""
    own = await bench.coordinator()
    first, second, other = own.record("order-1"), own.record("order-1"), own.record()
    own.gate.script("append", Fate.LOST_AFTER)
    own.append(first, second, other)
    await asyncio.sleep(5)
    assert own.answer(first) == (own.number, 1, None)
    assert own.answer(other) == (own.number, 3, None)
    assert own.answer(second).stored == bench.stored(first)
    assert bench.stored(second).record.decision is Decision.ROLLBACK


@virtual_time
async def test_the_settling_read_is_repeated_until_it_answers(bench: Bench) -> None:
    own = await bench.coordinator()
    record = own.record()
    own.gate.script("append", Fate.LOST_AFTER)
    own.gate.script("read", *[Fate.UNAVAILABLE] * 5)
    own.append(record)
    await asyncio.sleep(10)
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_fenced_while_unknown_tells_nothing(bench: Bench) -> None:
    """The successor settles it: the row that it finds may be told by it alone."""
    own, heir = await bench.coordinator("own"), await bench.coordinator("heir")
    record = own.record()
    own.gate.script("append", Fate.LOST_AFTER, *[Fate.UNAVAILABLE] * 100)
    own.append(record)
    heir.live()
    await asyncio.sleep(200)
    assert bench.is_stored(record)
    assert not own.recorded
    assert isinstance(own.ended, FencedError)
    assert [(number, [row.record for row in rows]) for number, rows in heir.adopted] == [(own.number, [record])]


@virtual_time
async def test_whatever_happens_to_writes_each_record_is_told_once_and_truly(bench: Bench) -> None:
    """Invariants 1 and 11, over a long random script."""
    random = Random(5)
    fates = (Fate.DONE, Fate.UNAVAILABLE, Fate.LOST_BEFORE, Fate.LOST_AFTER, Late(0.02), Late(1.0), Slow(0.1, 0.1))
    both = [await bench.coordinator("one", batch_size=8), await bench.coordinator("two", batch_size=8)]
    given: list[list[str]] = [[], []]
    for own in both:
        own.gate.script("append", *random.choices(fates, k=600))
        own.gate.script("read", *random.choices(fates[:2], k=300))
        own.gate.script("read_requests", *random.choices(fates[:2], k=300))
    for n in range(200):
        for own, names in zip(both, given, strict=True):
            record = own.record(f"order-{random.randrange(150)}" if n % 3 else "")
            names.append(str(record.xid))
            own.append(record)
        await asyncio.sleep(random.uniform(0, 0.05))
    await asyncio.sleep(300)
    for own, names in zip(both, given, strict=True):
        assert own.ended is None
        assert sorted(str(xid) for xid in own.told) == names
        sequences = [answer.sequence for _, answer in own.recorded]
        assert sequences == sorted(sequences)
        for record, answer in own.recorded:
            row = bench.stored(record)
            assert (row.record, row.incarnation, row.sequence) == (record, own.number, answer.sequence)
            assert (answer.stored is None) == (record.reason == "")
