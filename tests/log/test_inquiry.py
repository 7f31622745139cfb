"""R7: what an inquiry is answered, and when."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.log.decision_log import Incarnation, IncarnationState, LogUnavailableError, Snapshot
from coordinator.log.inquiry import Answer, judge
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from participant_sdk.ids import Xid
from participant_sdk.xa import Decision, DecisionState
from tests.log.bench import Bench, Coordinator, Fate, Slow, virtual_time

OWN = Incarnation("0123456789abcdef", 100, "own", "own:1", 90, 1, 3.0)
HORIZON_MS = 1_000_000


def snapshot(xid: Xid, *, fenced: bool | None = None, decision: Decision | None = None, held: bool = False) -> Snapshot:
    """A snapshot with the xid's incarnation fenced, live or (None) unknown, and its row if it has one."""
    state = IncarnationState(xid.incarnation, "other", "other:1", bool(fenced), 7)
    row = None if decision is None else StoredDecision(DecisionRecord(xid, decision), xid.incarnation, 7, 0)
    return Snapshot(
        {} if row is None else {xid: row}, {} if fenced is None else {xid.incarnation: state}, HORIZON_MS, held
    )


YOUNG = Xid.make(HORIZON_MS, 50, 1)
OLD = Xid.make(HORIZON_MS - 1, 50, 1)
OWN_YOUNG = Xid.make(HORIZON_MS, 100, 1)
OWN_OLD = Xid.make(HORIZON_MS - 1, 100, 1)
ABOVE = Xid.make(HORIZON_MS, 200, 1)


@pytest.mark.parametrize(
    ("xid", "seen", "state"),
    [
        (YOUNG, snapshot(YOUNG, fenced=True, decision=Decision.COMMIT), DecisionState.COMMIT),
        (YOUNG, snapshot(YOUNG, fenced=False, decision=Decision.ROLLBACK), DecisionState.ROLLBACK),
        (OLD, snapshot(OLD, fenced=True, decision=Decision.COMMIT, held=True), DecisionState.COMMIT),
        (YOUNG, snapshot(YOUNG, fenced=True), DecisionState.ROLLBACK),
        (YOUNG, snapshot(YOUNG, fenced=False), DecisionState.PENDING),
        (OLD, snapshot(OLD, fenced=False), DecisionState.PENDING),
        (OLD, snapshot(OLD, fenced=True), DecisionState.FORGOTTEN),
        (YOUNG, snapshot(YOUNG), DecisionState.ROLLBACK),
        (OLD, snapshot(OLD), DecisionState.FORGOTTEN),
        (ABOVE, snapshot(ABOVE), DecisionState.PENDING),
        (YOUNG, snapshot(YOUNG, fenced=True, held=True), DecisionState.PENDING),
        (YOUNG, snapshot(YOUNG, held=True), DecisionState.PENDING),
        (OWN_YOUNG, snapshot(OWN_YOUNG, fenced=False), DecisionState.PENDING),
        (OWN_OLD, snapshot(OWN_OLD, fenced=False), DecisionState.FORGOTTEN),
    ],
)
def test_no_row_means_rollback_only_when_fenced_young_and_not_held(
    xid: Xid, seen: Snapshot, state: DecisionState
) -> None:
    answer = judge(xid, seen, OWN)
    assert answer.state is state
    assert answer.stored == seen.decisions.get(xid)
    assert answer.owner == seen.incarnations.get(xid.incarnation)
    assert answer.held is seen.held
    assert answer.is_final is (state in {DecisionState.COMMIT, DecisionState.ROLLBACK})


@pytest.mark.parametrize("fenced", [True, None])
def test_rollback_is_not_presumed_before_every_participant_has_reported(*, fenced: bool | None) -> None:
    """R15: one of them may have applied what the log lost. What is there needs no report."""
    answer = judge(YOUNG, snapshot(YOUNG, fenced=fenced), OWN, ("trading",))
    assert (answer.state, answer.unreported) == (DecisionState.PENDING, ("trading",))
    for decision in Decision:
        seen = snapshot(YOUNG, fenced=fenced, decision=decision)
        assert judge(YOUNG, seen, OWN, ("trading",)) == judge(YOUNG, seen, OWN)
    assert judge(OLD, snapshot(OLD, fenced=fenced), OWN, ("trading",)).state is DecisionState.FORGOTTEN
    assert judge(OWN_YOUNG, snapshot(OWN_YOUNG, fenced=False), OWN, ("trading",)).unreported == ()


def asked(own: Coordinator, record: DecisionRecord) -> asyncio.Task[Answer]:
    return asyncio.get_running_loop().create_task(own.commit.read(record.xid))


@virtual_time
async def test_an_answer_that_ends_a_doubt_waits_for_a_write_that_began_after_the_read(bench: Bench) -> None:
    """A write under way when the row was read proves nothing of the row."""
    own, asking = await bench.coordinator("own"), await bench.coordinator("asking")
    record = own.record()
    own.append(record)
    await asyncio.sleep(0.1)
    asking.gate.script("append", Slow(0.0, 5.0), Slow(0.0, 5.0))
    asking.append(asking.record())
    await asyncio.sleep(1)
    answer = asked(asking, record)
    await asyncio.sleep(5)
    assert len(asking.recorded) == 1
    assert not answer.done()
    await asyncio.sleep(5)
    assert (await answer).state is DecisionState.COMMIT
    assert (await answer).stored == bench.stored(record)


@virtual_time
async def test_the_answer_waits_for_as_long_as_writes_fail(bench: Bench) -> None:
    own, asking = await bench.coordinator("own"), await bench.coordinator("asking")
    record = own.record()
    own.append(record)
    await asyncio.sleep(0.1)
    asking.gate.script("append", Fate.LOST_BEFORE, Fate.UNAVAILABLE, Fate.LOST_BEFORE, Slow(3.0))
    answer = asked(asking, record)
    await asyncio.sleep(3)
    assert not answer.done()
    await asyncio.sleep(2)
    assert (await answer).state is DecisionState.COMMIT


@virtual_time
async def test_pending_is_told_at_once_with_the_owner(bench: Bench) -> None:
    own, asking = await bench.coordinator("own"), await bench.coordinator("asking")
    asking.gate.script("append", Slow(100.0))
    async with asyncio.timeout(1):
        answer = await asking.commit.read(own.record().xid)
    assert answer.state is DecisionState.PENDING
    assert answer.owner is not None
    assert answer.owner.address == "own:50051"


@virtual_time
async def test_inquiries_that_queued_together_are_one_read(bench: Bench) -> None:
    own = await bench.coordinator()
    records = [own.record() for _ in range(20)]
    own.append(*records)
    await asyncio.sleep(0.1)
    answers = await asyncio.gather(*(own.commit.read(record.xid) for record in records * 3))
    assert [answer.stored for answer in answers] == [bench.stored(record) for record in records] * 3
    assert own.gate.done.count("read") == 1
    # One empty batch confirmed them all.
    assert own.gate.done.count("append") == 2


@virtual_time
async def test_a_failed_read_is_no_answer(bench: Bench) -> None:
    own = await bench.coordinator()
    own.gate.script("read", Fate.UNAVAILABLE)
    with pytest.raises(LogUnavailableError):
        await own.commit.read(own.record().xid)
    assert (await own.commit.read(own.record().xid)).state is DecisionState.PENDING


@virtual_time
async def test_a_cancelled_inquiry_leaves_the_others_theirs(bench: Bench) -> None:
    own = await bench.coordinator()
    record = own.record()
    own.append(record)
    await asyncio.sleep(0.1)
    first, second = asked(own, record), asked(own, record)
    await asyncio.sleep(0.0005)
    first.cancel()
    assert (await second).state is DecisionState.COMMIT
    assert first.cancelled()


@virtual_time
async def test_an_ended_incarnation_answers_nothing(bench: Bench) -> None:
    own, other = await bench.coordinator("own"), await bench.coordinator("other")
    record = other.record()
    other.append(record)
    await asyncio.sleep(0.1)
    waiting = asked(own, record)
    own.gate.script("append", Fate.UNAVAILABLE, Fate.DONE)
    bench.store.tables.incarnations[own.number].fenced_by = other.number
    with pytest.raises(LogUnavailableError):
        await waiting
    with pytest.raises(LogUnavailableError):
        await own.commit.read(record.xid)
    with pytest.raises(LogUnavailableError):
        await own.commit.confirm()


async def presumable(bench: Bench) -> tuple[Coordinator, Xid]:
    """A coordinator that waits for two reports, and an xid that a fenced one left without a row."""
    other = await bench.coordinator("other")
    bench.participants = ("bookkeeper", "trading")
    own = await bench.coordinator("own")
    bench.store.tables.incarnations[other.number].fenced_by = own.number
    return own, other.record().xid


@virtual_time
async def test_the_reports_wanted_are_those_of_the_named_participants_or_everybodys(bench: Bench) -> None:
    """R15."""
    own, xid = await presumable(bench)
    assert own.reported.add("trading", own.log.generation)
    assert (await own.commit.read(xid, ("trading",))).state is DecisionState.ROLLBACK
    for names in ((), ("bookkeeper", "trading"), ("trading", "nobody")):
        assert (await own.commit.read(xid, names)).state is DecisionState.PENDING
    assert own.reported.add("bookkeeper", own.log.generation)
    assert (await own.commit.read(xid)).state is DecisionState.ROLLBACK
    assert (await own.commit.read(xid, ("trading", "nobody"))).unreported == ("nobody",)


@virtual_time
async def test_reports_and_snapshot_are_of_one_connection(bench: Bench) -> None:
    """R15: the read itself found a new connection, and the reports came over the one before."""
    own, xid = await presumable(bench)
    for participant in bench.participants:
        assert own.reported.add(participant, own.log.generation)
    own.log.disconnect()
    assert (await own.commit.read(xid)).state is DecisionState.PENDING


@virtual_time
async def test_an_answer_that_a_new_connection_confirms_is_asked_for_again(bench: Bench) -> None:
    """R7, R15: the fence that it rests on may be gone with the tail of the log."""
    own, xid = await presumable(bench)
    for participant in bench.participants:
        assert own.reported.add(participant, own.log.generation)
    backup = bench.store.copy()
    backup.incarnations[xid.incarnation].fenced_by = None
    own.gate.script("append", Slow(2.0))
    answer = asyncio.get_running_loop().create_task(own.commit.read(xid))
    await asyncio.sleep(1)
    bench.store.restore(backup, new_timeline=False)
    assert (await answer).state is DecisionState.PENDING
    assert own.gate.done.count("read") == 2


@virtual_time
async def test_a_snapshot_of_an_earlier_connection_is_not_judged_by_later_reports(bench: Bench) -> None:
    """R15: it was on its way while the log was connected to anew, and everybody had reported again."""
    own, xid = await presumable(bench)
    own.gate.script("read", Slow(1.0))
    answer = asyncio.get_running_loop().create_task(own.commit.read(xid))
    await asyncio.sleep(0.5)
    own.log.disconnect()
    await own.log.standing()
    for participant in bench.participants:
        assert own.reported.add(participant, own.log.generation)
    assert (await answer).unreported == ("bookkeeper", "trading")
