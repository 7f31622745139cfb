"""R17: one bad row in the log's batch gets its own "no", and fails nothing that travelled with it."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.log.columns import DIGEST_MAX_BYTES, SEPARATOR, is_storable, storable
from coordinator.log.group_commit import RECORD_REFUSED
from participant_sdk.ids import RequestId
from participant_sdk.xa import Decision
from tests.log.bench import Bench, Fate, virtual_time

LONG = bytes(DIGEST_MAX_BYTES + 1)


@virtual_time
async def test_the_bad_record_alone_is_rolled_back_and_the_rest_pass(bench: Bench) -> None:
    own = await bench.coordinator()
    records = [own.record(f"order-{n}") for n in range(100)]
    bad = own.record("order-bad")._replace(digest=LONG)
    own.append(*records[:37], bad, *records[37:])
    await asyncio.sleep(5)
    assert all(own.answer(record).stored is None for record in records)
    answer = own.answer(bad)
    assert answer.stored is not None
    assert answer.stored.record == bench.stored(bad).record
    assert (answer.stored.incarnation, answer.stored.sequence) == (own.number, answer.sequence)
    row = bench.stored(bad).record
    assert (row.decision, row.reason, row.request, row.digest) == (Decision.ROLLBACK, RECORD_REFUSED, None, b"")
    assert RequestId("default", "order-bad") not in bench.store.tables.requests


@virtual_time
async def test_many_bad_records_each_get_their_own_no(bench: Bench) -> None:
    own = await bench.coordinator()
    records = [own.record() if n % 3 else own.record()._replace(digest=LONG) for n in range(30)]
    own.append(*records)
    await asyncio.sleep(5)
    assert [own.answer(record).stored is None for record in records] == [bool(n % 3) for n in range(30)]


@virtual_time
async def test_a_bad_record_in_a_lost_batch_is_settled_with_the_rest(bench: Bench) -> None:
    """R5 with R17: pieces that were lost are settled before anything else is told."""
    own = await bench.coordinator()
    good, bad, other = own.record("a"), own.record()._replace(digest=LONG), own.record("b")
    own.gate.script("append", Fate.LOST_AFTER, Fate.LOST_AFTER, Fate.LOST_BEFORE, Fate.LOST_AFTER)
    own.append(good, bad, other)
    await asyncio.sleep(20)
    assert own.answer(good).stored is None
    assert own.answer(other).stored is None
    assert own.answer(bad).stored is not None
    sequences = [answer.sequence for _, answer in own.recorded]
    assert sequences == sorted(sequences)


@virtual_time
async def test_a_control_character_in_a_reason_costs_no_decision(bench: Bench) -> None:
    """A reason is for people, and may come from anybody: the intent is bound all the same."""
    own = await bench.coordinator()
    record = own.record("order-1", decision=Decision.ROLLBACK)._replace(reason=f"gave{SEPARATOR}up\x00")
    own.append(own.record(), record, own.record())
    await asyncio.sleep(1)
    assert own.answer(record).stored is None
    assert bench.stored(record).record == record._replace(reason="gave\ufffdup\ufffd")


@pytest.mark.parametrize("text", ["", "plain", "żółć", "𝄞", "\x01\x1f\x7f"])
def test_what_postgresql_keeps_stays_as_it_is(text: str) -> None:
    assert is_storable(text)
    assert storable(text) == text


@pytest.mark.parametrize("text", ["\x00", "a\x00b", "\ud800", "\udc80abc", "ż\udfff"])
def test_what_postgresql_cannot_keep_is_replaced(text: str) -> None:
    assert not is_storable(text)
    assert is_storable(storable(text))
