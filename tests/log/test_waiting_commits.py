"""R15: a COMMIT is written only once its participants reported since the log was connected to last."""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from coordinator.log.group_commit import PARTICIPANTS_UNREPORTED
from participant_sdk.batching import QueueFullError
from participant_sdk.xa import Decision
from tests.log.bench import Bench, Coordinator, Fate, Late, Slow, virtual_time

BOTH = ("bookkeeper", "trading")


async def reporting(bench: Bench, *reported: str) -> Coordinator:
    """A coordinator with two participants, of which some have reported."""
    bench.participants = BOTH
    own = await bench.coordinator()
    report(own, *reported)
    return own


def report(own: Coordinator, *participants: str) -> None:
    for participant in participants:
        assert own.reported.add(participant, own.log.generation)


@virtual_time
async def test_a_commit_waits_for_its_participants_and_holds_up_nothing_else(bench: Bench) -> None:
    """R15, R17."""
    own = await reporting(bench, "bookkeeper")
    waiting = own.record()._replace(prepared=BOTH)
    free, undone = own.record(), own.record(decision=Decision.ROLLBACK)._replace(prepared=BOTH)
    own.append(waiting, free, undone)
    await asyncio.sleep(60)
    assert own.told == [free.xid, undone.xid]
    assert not bench.is_stored(waiting)
    assert len(own.commit) == 1
    report(own, "trading")
    await asyncio.sleep(0.002)
    assert own.answer(waiting) == (own.number, 3, None)


@virtual_time
async def test_a_commit_without_participants_waits_for_nobody(bench: Bench) -> None:
    own = await reporting(bench)
    record = own.record()._replace(prepared=())
    own.append(record)
    await asyncio.sleep(0.1)
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_a_no_that_may_not_bind_yet_binds_nothing_and_waits_for_nobody(bench: Bench) -> None:
    """R3, R15: participants may have applied a COMMIT of that request which the log lost. R17: nobody waits."""
    own = await reporting(bench, "bookkeeper")
    bound = own.record("order-1", decision=Decision.ROLLBACK)._replace(prepared=BOTH)
    known = own.record("order-2", decision=Decision.ROLLBACK)
    transient = own.record(decision=Decision.ROLLBACK)._replace(prepared=BOTH)
    own.append(bound, known, transient)
    await asyncio.sleep(1)
    assert sorted(own.told) == sorted([bound.xid, known.xid, transient.xid])
    row = bench.store.tables.decisions[bound.xid].record
    assert (row.decision, row.request, row.reason) == (Decision.ROLLBACK, None, PARTICIPANTS_UNREPORTED)
    assert bench.store.tables.decisions[known.xid].record == known
    told = own.answer(bound)
    assert told is not None
    assert told[2] is not None


async def say_no_twice(bench: Bench, *, reported_between: bool) -> None:
    own = await reporting(bench, "bookkeeper")
    first = own.record("order-1", decision=Decision.ROLLBACK)._replace(prepared=BOTH)
    own.append(first)
    await asyncio.sleep(1)
    if reported_between:
        report(own, "trading")
    own.append(first._replace(reason="TOLD_TO_FAIL"))
    await asyncio.sleep(1)
    answers = [recorded.stored for record, recorded in own.recorded if record.xid == first.xid]
    assert [stored.record.request if stored else "bound" for stored in answers] == [None, None]
    assert not bench.store.tables.requests


@virtual_time
async def test_a_second_no_of_a_transaction_whose_first_could_not_bind_binds_nothing_either(bench: Bench) -> None:
    """R3: its row is there, and binds nothing; so the request is not told to be bound."""
    await say_no_twice(bench, reported_between=True)


@virtual_time
async def test_two_noes_that_cannot_bind_bind_nothing(bench: Bench) -> None:
    """R3: the second one meets the row that was put in the place of the first."""
    await say_no_twice(bench, reported_between=False)


@virtual_time
async def test_whoever_closes_a_request_binds_it_only_when_everybody_reported(bench: Bench) -> None:
    """R3, R15: the record names no participants, and any of them may have applied the request."""
    own = await reporting(bench, "bookkeeper")
    closing = own.record("order-1", decision=Decision.ROLLBACK)._replace(prepared=())
    own.append(closing)
    await asyncio.sleep(1)
    assert bench.store.tables.decisions[closing.xid].record.request is None
    report(own, "trading")
    again = own.record("order-1", decision=Decision.ROLLBACK)._replace(prepared=())
    own.append(again)
    await asyncio.sleep(1)
    assert bench.store.tables.decisions[again.xid].record == again


@virtual_time
async def test_a_participant_that_is_not_configured_has_never_reported(bench: Bench) -> None:
    own = await reporting(bench, *BOTH)
    record = own.record()._replace(prepared=("nobody",))
    assert own.reported.is_complete
    assert own.reported.missing(record.prepared) == ("nobody",)


@virtual_time
async def test_a_report_of_before_the_log_was_connected_to_again_counts_no_more(bench: Bench) -> None:
    own = await reporting(bench, *BOTH)
    bench.store.drop_connections()
    first = own.record()
    own.append(first)
    await asyncio.sleep(60)
    assert not bench.is_stored(first)
    assert not own.reported.add("bookkeeper", own.log.generation - 1)
    assert own.reported.missing(("bookkeeper",)) == ("bookkeeper",)
    report(own, "bookkeeper")
    await asyncio.sleep(0.002)
    assert own.answer(first) == (own.number, 1, None)


@virtual_time
async def test_reports_count_from_the_moment_of_the_connection_not_of_its_discovery(bench: Bench) -> None:
    """Another statement may be the first over a new connection, and nobody has looked yet."""
    own = await reporting(bench, *BOTH)
    own.log.disconnect()
    await own.log.standing()
    assert not own.reported.is_complete
    assert own.reported.missing() == BOTH


@virtual_time
async def test_connecting_again_costs_no_pause(bench: Bench) -> None:
    """A new connection that takes no records yet is no outage."""
    own = await reporting(bench, *BOTH)
    own.reported.whenever_turned(lambda: report(own, *BOTH))
    bench.store.drop_connections()
    record = own.record()
    own.append(record)
    await asyncio.sleep(0.003)
    assert own.answer(record) == (own.number, 1, None)


@virtual_time
async def test_commits_that_wait_count_against_the_bound(bench: Bench) -> None:
    """Invariant 12."""
    bench.participants = BOTH
    own = await bench.coordinator(batch_size=2, queue_bound=3)
    own.append(*(own.record() for _ in range(3)))
    await asyncio.sleep(1)
    assert len(own.commit) == 3
    with pytest.raises(QueueFullError):
        own.append(own.record())


@virtual_time
async def test_what_waited_goes_in_its_order_and_ahead_of_what_came_later(bench: Bench) -> None:
    own = await reporting(bench)
    early = [own.record() for _ in range(5)]
    own.append(*early)
    await asyncio.sleep(1)
    own.gate.script("append", Slow(5.0))
    own.append(own.record(decision=Decision.ROLLBACK))
    await asyncio.sleep(1)
    late = own.record()
    own.append(late)
    report(own, *BOTH)
    await asyncio.sleep(10)
    assert own.told[1:] == [record.xid for record in (*early, late)]


@virtual_time
async def test_an_open_write_that_may_not_be_repeated_is_made_impossible(bench: Bench) -> None:
    """R5 with R15, nothing else to write: a burned sequence shuts the old statement out for good."""
    own = await reporting(bench, *BOTH)
    record = own.record("order-1")
    own.gate.script("append", Late(30.0))
    own.append(record)
    await asyncio.sleep(1)
    assert bench.store.tables.incarnations[own.number].last_sequence == 1
    other = own.record(decision=Decision.ROLLBACK)
    own.append(other)
    await asyncio.sleep(0.1)
    assert own.answer(other) == (own.number, 2, None), "nothing waits for the one that waits"
    await asyncio.sleep(60)
    assert not bench.is_stored(record)
    report(own, "bookkeeper")
    await asyncio.sleep(1)
    assert own.answer(record) == (own.number, 3, None)


@virtual_time
async def test_an_open_write_that_happened_is_told_though_nobody_reported(bench: Bench) -> None:
    """R5: it is in this very log, so there is nothing to wait for."""
    own = await reporting(bench, *BOTH)
    record = own.record("order-1")
    own.gate.script("append", Fate.LOST_AFTER)
    own.append(record)
    await asyncio.sleep(1)
    assert own.reported.missing() == BOTH
    assert own.answer(record) == (own.number, 1, None)


FIRST = (Fate.LOST_BEFORE, Fate.LOST_AFTER, Late(0.0015), Late(0.004), Late(0.012), Late(30.0))
NEXT = (
    (),
    (Fate.LOST_AFTER,),
    (Fate.LOST_BEFORE,),
    (Late(0.004),),
    (Fate.DONE, Fate.LOST_AFTER),
    (Fate.DONE, Fate.LOST_BEFORE),
    (Fate.DONE, Late(0.0015)),
    (Fate.DONE, Late(0.02)),
    (Fate.DONE, Fate.UNAVAILABLE, Fate.LOST_AFTER),
    (Fate.UNAVAILABLE, Late(0.002), Fate.LOST_AFTER),
)
REPORTS_AFTER_S = (0.0, 0.0035, 0.015, 5.0)
# COMMITs of each participant and ROLLBACKs that travel together in the batch that is lost.
BATCHES = ((1, 0, 0), (2, 1, 0), (1, 0, 1), (2, 2, 2))


def test_whatever_becomes_of_an_open_write_every_record_ends_once_and_truly() -> None:
    """R5 with R15: every interleaving of the lost write, what follows it, and the reports."""
    for first, following, after_s, batch in product(FIRST, NEXT, REPORTS_AFTER_S, BATCHES):
        run_case(first, following, after_s, batch)


def run_case(
    first: Fate | Late, following: tuple[Fate | Late, ...], after_s: float, batch: tuple[int, int, int]
) -> None:
    @virtual_time
    async def case(bench: Bench) -> None:
        own = await reporting(bench, *BOTH)
        records = [
            *(own.record(f"order-{n}") for n in range(batch[0])),
            *(own.record()._replace(prepared=("trading",)) for _ in range(batch[1])),
            *(own.record(decision=Decision.ROLLBACK) for _ in range(batch[2])),
        ]
        own.gate.script("append", first, *following)
        own.append(*records)
        await asyncio.sleep(after_s)
        report(own, "trading")
        free = own.record(decision=Decision.ROLLBACK)
        own.append(free)
        await asyncio.sleep(5)
        assert own.ended is None
        assert free.xid in own.told, "a COMMIT that waits holds up nobody"
        for _ in range(3):
            report(own, *BOTH)
            await asyncio.sleep(40)
        assert sorted(own.told) == sorted(record.xid for record in (*records, free))
        for record, answer in own.recorded:
            row = bench.stored(record)
            assert (row.record, row.sequence, answer.stored) == (record, answer.sequence, None)

    case()
