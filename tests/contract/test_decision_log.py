"""The contract of ``DecisionLog``: opening, appending, binding requests, refusing values, reading."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from coordinator.log.columns import COLUMN_MAX_CHARS, DIGEST_MAX_BYTES, SEPARATOR, TEXT_MAX_CHARS
from coordinator.log.decision_log import (
    Appended,
    AppendStatus,
    BadRecordError,
    DecisionLog,
    LogUnavailableError,
)
from coordinator.protocol.effects import DecisionRecord
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision
from tests.contract.worlds import LEASE_S, SHORT_LEASE_S, MemoryWorld, World, fenced_by, started


class TestOpen:
    async def test_numbers_rise_and_are_no_less_than_the_logs_unix_seconds(self, world: World) -> None:
        before = int(time.time()) - 2
        first, second = await started(world.handle()), await started(world.handle(), "two")
        assert before < first.number < second.number

    async def test_the_first_incarnation_of_a_timeline_is_its_epoch(self, world: World) -> None:
        """R15."""
        log = world.handle()
        first, second = await started(log), await started(log)
        assert (first.incarnation.epoch, second.incarnation.epoch) == (first.number, first.number)

    async def test_the_log_keeps_its_id(self, world: World) -> None:
        first, second = await started(world.handle()), await started(world.handle())
        assert first.incarnation.log_id == second.incarnation.log_id
        assert len(first.incarnation.log_id) == 16

    async def test_those_who_open_at_once_draw_different_numbers(self, world: World) -> None:
        drawn = await asyncio.gather(*(world.handle().open(f"c{n}", "", LEASE_S) for n in range(5)))
        assert len({incarnation.number for incarnation in drawn}) == 5
        assert len({incarnation.epoch for incarnation in drawn}) == 1

    async def test_a_new_timeline_ends_the_incarnations_of_others_and_starts_an_epoch(
        self, world: World, log: DecisionLog
    ) -> None:
        """R15."""
        old = await started(log)
        assert (await old.append(old.record())).status is AppendStatus.WRITTEN
        await world.end_timeline(old.incarnation)
        new = await started(log)
        assert new.incarnation.epoch == new.number
        states = (await log.read([old.record()[0]])).incarnations
        assert states[old.number].fenced
        assert list(await log.fence_expired(new.incarnation)) == [old.number]


class TestAppend:
    async def test_records_get_consecutive_sequences_and_read_back_as_written(self, log: DecisionLog) -> None:
        own = await started(log)
        full = DecisionRecord(
            own.record().xid,
            Decision.ROLLBACK,
            ("bookkeeper", "trading"),
            RequestId("default", "order-1"),
            bytes(range(32)),
            "INSUFFICIENT_FUNDS",
            '[{"participant":"bookkeeper","message":"żółć \\u0001\n"}]',
        )
        bare = DecisionRecord(own.record().xid, Decision.COMMIT)
        assert await own.append(bare, full) == Appended(AppendStatus.WRITTEN, 2)
        assert await own.append(own.record()) == Appended(AppendStatus.WRITTEN, 3)
        rows = (await log.read([full.xid, bare.xid])).decisions
        assert rows[bare.xid][:3] == (bare, own.number, 1)
        assert rows[full.xid][:3] == (full, own.number, 2)
        assert abs(rows[full.xid].decided_unix_ms - time.time() * 1000) < 60_000

    async def test_an_empty_batch_renews_and_advances_nothing(self, log: DecisionLog) -> None:
        own = await started(log)
        assert await own.append() == Appended(AppendStatus.WRITTEN, 0)
        await own.append(own.record())
        assert await own.append() == Appended(AppendStatus.WRITTEN, 1)

    async def test_a_batch_that_was_written_is_not_written_again(self, log: DecisionLog) -> None:
        """R4, R5: the sequence moved on."""
        own = await started(log)
        batch = [own.record(), own.record()]
        await log.append(own.incarnation, 0, batch)
        assert await log.append(own.incarnation, 0, batch) == Appended(AppendStatus.SEQUENCE_AHEAD, 2)

    async def test_a_sequence_that_went_back_is_seen(self, log: DecisionLog) -> None:
        """R4, R15."""
        own = await started(log)
        record = own.record()
        assert await log.append(own.incarnation, 5, [record]) == Appended(AppendStatus.SEQUENCE_BEHIND, 0)
        assert await log.append(own.incarnation, 5, []) == Appended(AppendStatus.SEQUENCE_BEHIND, 0)
        assert not (await log.read([record.xid])).decisions

    async def test_a_missing_incarnation_is_seen(self, log: DecisionLog) -> None:
        """R4, R15."""
        own = await started(log)
        lost = replace(own.incarnation, number=own.number + 1)
        assert await log.append(lost, 0, [own.record()]) == Appended(AppendStatus.SEQUENCE_BEHIND, 0)

    async def test_a_fenced_incarnation_writes_nothing(self, log: DecisionLog) -> None:
        """R4, invariant 7."""
        old, new = await started(log, "old", SHORT_LEASE_S), await started(log, "new")
        await old.append(old.record())
        await fenced_by(log, new, [old.number])
        late = old.record()
        assert (await old.append(late)).status is AppendStatus.FENCED
        assert (await old.append()).status is AppendStatus.FENCED
        snapshot = await log.read([late.xid])
        assert not snapshot.decisions
        assert snapshot.incarnations[old.number].fenced

    async def test_an_incarnation_of_another_timeline_writes_nothing(self, world: World, log: DecisionLog) -> None:
        """R4, R15."""
        own = await started(log)
        await own.append(own.record())
        own.incarnation = await world.end_timeline(own.incarnation)
        late = own.record()
        assert (await own.append(late)).status is AppendStatus.TIMELINE_CHANGED
        assert not (await log.read([late.xid])).decisions

    async def test_in_hold_only_an_empty_batch_passes(self, world: World, log: DecisionLog) -> None:
        """R4, R15."""
        await log.open("before", "", LEASE_S)
        await log.hold("participants are ahead")
        own = await started(log)
        record = own.record()
        assert await own.append(record) == Appended(AppendStatus.HELD, 0)
        assert (await own.append()).status is AppendStatus.WRITTEN
        assert (await log.read([record.xid])).held
        await world.release()
        assert (await own.append(record)).status is AppendStatus.WRITTEN
        assert not (await log.read([])).held


class TestRequests:
    async def test_a_bound_request_keeps_its_row_and_the_rest_of_the_batch_passes(self, world: World) -> None:
        """R3, R17: whoever comes second is a conflict; its sequence stays unused."""
        one, two = await started(world.handle(), "one"), await started(world.handle(), "two")
        first = one.record("order-1")
        await one.append(first)
        second, other = two.record("order-1"), two.record("order-2")
        assert await two.append(second, other) == Appended(AppendStatus.WRITTEN, 2, frozenset({second.xid}))
        rows = await two.log.read_requests([RequestId("default", "order-1"), RequestId("default", "none")])
        assert {request.name: row.record.xid for request, row in rows.items()} == {"order-1": first.xid}
        decisions = (await two.log.read([second.xid, other.xid])).decisions
        assert {xid: row.sequence for xid, row in decisions.items()} == {other.xid: 2}

    async def test_of_two_equal_requests_in_one_batch_the_first_is_bound(self, log: DecisionLog) -> None:
        """R3."""
        own = await started(log)
        records = [own.record("b"), own.record("a"), own.record("b"), own.record("a")]
        appended = await own.append(*records)
        assert appended == Appended(AppendStatus.WRITTEN, 4, frozenset({records[2].xid, records[3].xid}))

    async def test_a_batch_of_nothing_but_conflicts_still_advances(self, log: DecisionLog) -> None:
        own = await started(log)
        await own.append(own.record("a"))
        again = own.record("a")
        assert await own.append(again) == Appended(AppendStatus.WRITTEN, 2, frozenset({again.xid}))

    async def test_the_same_name_of_two_tenants_is_two_requests(self, log: DecisionLog) -> None:
        own = await started(log)
        theirs = own.record("a")._replace(request=RequestId("other", "a"))
        assert not (await own.append(own.record("a"), theirs)).conflicts

    async def test_an_xid_is_written_once(self, log: DecisionLog) -> None:
        """Invariant 1."""
        own = await started(log)
        record = own.record()
        await own.append(record)
        reversed_ = record._replace(decision=Decision.ROLLBACK)
        assert (await own.append(reversed_)).conflicts == {record.xid}
        assert (await log.read([record.xid])).decisions[record.xid].record == record

    async def test_overlapping_batches_in_opposite_order_neither_deadlock_nor_bind_twice(self, world: World) -> None:
        """R3, invariant 11: the statement sorts."""
        names = [f"order-{n}" for n in range(60)]
        one, two = await started(world.handle(), "one"), await started(world.handle(), "two")
        for turn in range(10):
            ours = [one.record(f"{turn}-{name}") for name in names]
            theirs = [two.record(f"{turn}-{name}") for name in reversed(names)]
            mine, other = await asyncio.gather(one.append(*ours), two.append(*theirs))
            assert len(mine.conflicts) + len(other.conflicts) == len(names)

    async def test_a_request_that_cannot_be_stored_is_bound_to_nothing(self, log: DecisionLog) -> None:
        await started(log)
        assert not await log.read_requests([RequestId("default", "a\x00"), RequestId("default", "\ud800")])


BAD_RECORDS = {
    "separator in request": {"request": RequestId("default", f"a{SEPARATOR}")},
    "surrogate in request": {"request": RequestId("default", "\ud800")},
    "NUL in request": {"request": RequestId("default", "a\x00")},
    "empty request": {"request": RequestId("default", "")},
    "empty tenant": {"request": RequestId("", "a")},
    "long digest": {"digest": bytes(DIGEST_MAX_BYTES + 1)},
    "long results": {"results": "x" * (TEXT_MAX_CHARS + 1)},
}


class TestBadRecords:
    @pytest.mark.parametrize("bad", list(BAD_RECORDS.values()), ids=list(BAD_RECORDS))
    async def test_a_refused_value_fails_the_batch_whole_and_nothing_after_it(
        self, log: DecisionLog, bad: dict[str, str]
    ) -> None:
        """R17: the batch can go again without it."""
        own = await started(log)
        good, refused = own.record("a"), own.record()._replace(**bad)  # pyright: ignore[reportArgumentType] # By name.
        with pytest.raises(BadRecordError):
            await own.append(good, refused)
        with pytest.raises(BadRecordError):
            await own.append(refused)
        assert await own.append(good) == Appended(AppendStatus.WRITTEN, 1)

    async def test_what_cannot_be_kept_of_a_text_for_people_is_replaced_and_costs_no_decision(
        self, log: DecisionLog
    ) -> None:
        """R17: a reason may come from anybody."""
        own = await started(log)
        plain = own.record("a")
        strange = own.record("b")._replace(reason=f"a\x00b{SEPARATOR}c\ud800", results=f'["{SEPARATOR}"]')
        assert await own.append(plain, strange, own.record()) == Appended(AppendStatus.WRITTEN, 3)
        rows = (await log.read([plain.xid, strange.xid])).decisions
        assert rows[plain.xid].record == plain
        assert rows[strange.xid].record == strange._replace(reason="a\ufffdb\ufffdc?", results='["\ufffd"]')

    async def test_a_batch_too_large_for_one_statement_passes_in_parts(self, log: DecisionLog) -> None:
        """R17: each of its records is one that the log keeps."""
        own = await started(log)
        records = [own.record()._replace(results="x" * (COLUMN_MAX_CHARS // 3 + 1)) for _ in range(3)]
        with pytest.raises(BadRecordError, match="in one batch"):
            await own.append(*records)
        assert await own.append(*records[:2]) == Appended(AppendStatus.WRITTEN, 2)

    async def test_the_longest_allowed_values_pass(self, log: DecisionLog) -> None:
        own = await started(log)
        record = own.record("x" * 128)._replace(digest=bytes(DIGEST_MAX_BYTES), results="ü" * TEXT_MAX_CHARS)
        await own.append(record)
        assert (await log.read([record.xid])).decisions[record.xid].record == record


class TestRead:
    async def test_a_snapshot_shows_each_known_incarnation_and_the_horizon(
        self, world: World, log: DecisionLog
    ) -> None:
        """R7."""
        one, two = await started(log, "one"), await started(log, "two")
        await one.append(one.record(), one.record())
        await world.prune_below(12345)
        unknown = Xid.make(1, two.number + 1000, 1)
        snapshot = await log.read([one.record().xid, two.record().xid, two.record().xid, unknown])
        assert sorted(snapshot.incarnations) == [one.number, two.number]
        state = snapshot.incarnations[one.number]
        assert (state.coordinator, state.address, state.fenced, state.last_sequence) == ("one", "one:50051", False, 2)
        assert snapshot.pruned_below_unix_ms == 12345
        assert not snapshot.decisions

    async def test_no_xids_still_tell_horizon_and_hold(self, log: DecisionLog) -> None:
        await started(log)
        snapshot = await log.read([])
        assert (snapshot.decisions, snapshot.incarnations, snapshot.held) == ({}, {}, False)

    async def test_decisions_are_listed_newest_first_in_pages(self, log: DecisionLog) -> None:
        own = await started(log)
        records = [own.record() for _ in range(5)]
        await own.append(*records)
        newest = [record.xid for record in reversed(records)]
        first = await log.list_decisions(None, 3)
        rest = await log.list_decisions(first[-1].record.xid, 3)
        assert [row.record.xid for row in (*first, *rest)] == newest

    async def test_decisions_of_one_kind_are_listed_alone(self, log: DecisionLog) -> None:
        own = await started(log)
        commit, rollback = own.record(), own.record()._replace(decision=Decision.ROLLBACK)
        await own.append(commit, rollback)
        for decision, xid in ((Decision.COMMIT, commit.xid), (Decision.ROLLBACK, rollback.xid)):
            assert [row.record.xid for row in await log.list_decisions(None, 9, decision)] == [xid]


class TestClose:
    async def test_closing_writes_nothing_and_may_be_repeated(self, world: World) -> None:
        log = world.handle()
        own = await started(log)
        await log.close()
        await log.close()
        assert not (await world.handle().read([own.record().xid])).incarnations[own.number].fenced

    async def test_a_log_never_opened_gives_no_answer(self, world: World) -> None:
        """R7: a failed read is no answer."""
        if isinstance(world, MemoryWorld):
            pytest.skip("a store in memory has its row from the start")
        with pytest.raises(LogUnavailableError):
            await world.handle().read([Xid.make(1, 1, 1)])
