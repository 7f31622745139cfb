"""The contract of ``DecisionLog``: connections, resigning, what is acknowledged, pruning, heuristics kept."""

from __future__ import annotations

import time

import pytest

from coordinator.log.decision_log import (
    Appended,
    AppendStatus,
    Checkpoint,
    DecisionLog,
    LogUnavailableError,
    OperatorAction,
    Release,
)
from coordinator.protocol.effects import HeuristicRecord
from participant_sdk.ids import RequestId
from participant_sdk.xa import Decision, Heuristic
from tests.contract.worlds import SHORT_LEASE_S, Coordinator, World, fenced_by, started

HOUR_S = 3600.0
HOUR_MS = 3_600_000


def ago_ms(hours: float) -> int:
    return time.time_ns() // 1_000_000 - round(hours * HOUR_MS)


def now_ms() -> int:
    """Now by the caller's clock, past every time that the log has put down."""
    return time.time_ns() // 1_000_000 + 1


class TestConnections:
    async def test_opening_connects_for_a_whole_life(self, log: DecisionLog) -> None:
        """R15: while the generation stays the same, what was read and written was one log's."""
        own = await started(log)
        generation = log.generation
        assert generation > 0
        await own.append(own.record())
        await log.read([own.record().xid])
        await log.fence_expired(own.incarnation)
        await log.checkpoint(Checkpoint(own.number, 1))
        assert log.generation == generation

    @pytest.mark.parametrize("burned", [0, 2])
    async def test_an_append_that_decides_is_never_the_first_of_a_connection(
        self, world: World, log: DecisionLog, burned: int
    ) -> None:
        """R15: whoever writes hears first that the log was connected to anew."""
        own = await started(log)
        fresh = world.handle()
        records = [] if burned else [own.record()]
        with pytest.raises(LogUnavailableError, match="connected to again"):
            await fresh.append(own.incarnation, 0, records, burned=burned)
        generation = fresh.generation
        assert generation > 0
        assert await log.read_sequences([own.number]) == {own.number: 0}
        assert (await fresh.append(own.incarnation, 0, records, burned=burned)).status is AppendStatus.WRITTEN
        await fresh.read([])
        assert fresh.generation == generation

    async def test_an_empty_append_may_be_the_first(self, world: World, log: DecisionLog) -> None:
        own = await started(log)
        assert (await world.handle().append(own.incarnation, 0, [])).status is AppendStatus.WRITTEN


class TestBurnedSequences:
    async def test_they_stay_unused_and_end_what_was_open_with_them(self, log: DecisionLog) -> None:
        """R5: a write with the same expected sequence can never happen any more."""
        own = await started(log)
        await log.append(own.incarnation, 0, [], burned=1)
        assert await log.append(own.incarnation, 0, [own.record()]) == Appended(AppendStatus.SEQUENCE_AHEAD, 1)
        first, second = own.record("a"), own.record("a")
        appended = await log.append(own.incarnation, 1, [first, second], burned=3)
        assert appended == Appended(AppendStatus.WRITTEN, 6, frozenset({second.xid}))
        await log.append(own.incarnation, 6, [own.record()])
        assert [row.sequence for row in await log.unfinished(own.number)] == [2, 7]

    async def test_hold_lets_none_pass(self, log: DecisionLog) -> None:
        await started(log)
        await log.hold("participants are ahead")
        own = await started(log)
        assert (await log.append(own.incarnation, 0, [], burned=1)).status is AppendStatus.HELD


class TestStanding:
    async def test_it_names_those_who_live_by_number(self, world: World, log: DecisionLog) -> None:
        one, two = await started(log, "one", 0.0), await started(log, "two")
        gone = await started(log, "gone")
        await log.resign(gone.incarnation)
        await world.prune_below(12345)
        standing = await log.standing()
        assert (standing.is_held, standing.held_reason, standing.pruned_below_unix_ms) == (False, "", 12345)
        assert [(live.number, live.coordinator, live.address) for live in standing.live] == [
            (one.number, "one", "one:50051"),
            (two.number, "two", "two:50051"),
        ]
        assert standing.live[0].lease_left_s <= 0 < standing.live[1].lease_left_s <= 30.0

    async def test_sequences_of_those_that_the_log_knows(self, log: DecisionLog) -> None:
        one, two = await started(log), await started(log)
        await one.append(one.record(), one.record())
        assert await log.read_sequences([one.number, two.number, two.number + 9]) == {one.number: 2, two.number: 0}
        assert not await log.read_sequences([])


class TestResign:
    async def test_one_that_resigned_writes_nothing_and_is_adopted_at_once(self, log: DecisionLog) -> None:
        """Its lease has not expired, and nobody needs to wait for that."""
        gone, idle, own = await started(log, "gone"), await started(log, "idle", 0.0), await started(log, "own")
        await gone.append(gone.record())
        await idle.append(idle.record())
        await log.resign(gone.incarnation)
        await log.resign(gone.incarnation)
        assert (await gone.append(gone.record())).status is AppendStatus.FENCED
        assert list(await log.fence_expired(own.incarnation, resigned_only=True)) == [gone.number]
        # R6: not the one whose lease expired.
        assert not (await log.read([idle.record().xid])).incarnations[idle.number].fenced

    async def test_whoever_opens_next_adopts_it(self, log: DecisionLog) -> None:
        gone, other = await started(log, "gone"), await started(log, "other")
        await gone.append(gone.record())
        await log.resign(gone.incarnation)
        own = await started(log)
        assert not await log.fence_expired(other.incarnation)
        assert list(await log.fence_expired(own.incarnation)) == [gone.number]

    async def test_what_it_had_adopted_goes_with_it(self, log: DecisionLog) -> None:
        first, second = await started(log, "first"), await started(log, "second")
        await first.append(first.record())
        await log.resign(first.incarnation)
        assert list(await log.fence_expired(second.incarnation, resigned_only=True)) == [first.number]
        await log.resign(second.incarnation)
        assert list(await log.fence_expired((await started(log)).incarnation)) == [first.number]


class TestAcknowledged:
    async def test_what_participants_acknowledged_only_rises(self, log: DecisionLog) -> None:
        """R15: a participant that reports less has lost its tail."""
        one, two = await started(log), await started(log)
        await log.checkpoint(Checkpoint(one.number, 3, applied={"bookkeeper": 3, "trading": 2}))
        await log.checkpoint(Checkpoint(one.number, 2, applied={"bookkeeper": 1, "trading": 4}))
        await log.checkpoint(Checkpoint(two.number, 1, applied={"bookkeeper": 1}))
        assert await log.read_applied("bookkeeper") == {one.number: 3, two.number: 1}
        assert await log.read_applied("trading") == {one.number: 4}
        assert not await log.read_applied("wallet")

    async def test_commits_above_sequences_come_in_order_and_in_pages(self, log: DecisionLog) -> None:
        one, two, other = await started(log), await started(log), await started(log)
        records = [one.record() for _ in range(4)]
        records[1] = records[1]._replace(decision=Decision.ROLLBACK)
        records[2] = records[2]._replace(prepared=("trading", "bookkeeper"))
        await one.append(*records)
        await two.append(two.record()._replace(prepared=("trading",)), two.record())
        await other.append(other.record())
        above = {two.number: 0, one.number: 1}
        rows = await log.commits_above("bookkeeper", above, 2)
        assert [(row.incarnation, row.sequence) for row in rows] == [(one.number, 3), (one.number, 4)]
        above[one.number] = 4
        assert [(row.incarnation, row.sequence) for row in await log.commits_above("bookkeeper", above, 2)] == [
            (two.number, 2)
        ]
        assert not await log.commits_above("bookkeeper", {}, 9)


class TestPrune:
    async def test_what_ended_everywhere_and_is_older_than_the_retention_goes_with_its_binding(
        self, log: DecisionLog
    ) -> None:
        """R14: horizon and deletion are seen together."""
        own = await started(log)
        old, young = own.record("order-1", unix_ms=ago_ms(3)), own.record("order-2", unix_ms=ago_ms(1))
        await own.append(old, young)
        await log.checkpoint(Checkpoint(own.number, 2))
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 1
        snapshot = await log.read([old.xid, young.xid])
        assert list(snapshot.decisions) == [young.xid]
        assert abs(snapshot.pruned_below_unix_ms - ago_ms(2)) < 60_000
        assert old.xid.unix_ms < snapshot.pruned_below_unix_ms <= young.xid.unix_ms
        assert [r.name for r in await log.read_requests([RequestId("default", "order-1"), young.request or NONE])] == [
            "order-2"
        ]
        # Its sequences and its row stay for ever: R7 needs them.
        assert snapshot.incarnations[own.number].last_sequence == 2
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 0

    async def test_at_most_so_many_go_at_once_the_oldest_first(self, log: DecisionLog) -> None:
        own = await started(log)
        records = [own.record(unix_ms=ago_ms(9 - n)) for n in range(5)]
        await own.append(*records)
        await log.checkpoint(Checkpoint(own.number, 5))
        assert await log.prune(2 * HOUR_S, 2, now_ms()) == 2
        assert [row.record.xid for row in await log.list_decisions(None, 9)] == [r.xid for r in reversed(records[2:])]
        assert [await log.prune(2 * HOUR_S, 2, now_ms()) for _ in range(2)] == [2, 1]

    @pytest.mark.parametrize("ahead", ["the log's clock", "the caller's clock"])
    async def test_of_two_clocks_the_one_that_is_behind_is_believed(self, log: DecisionLog, ahead: str) -> None:
        """R7, R14: set forward, one alone would forget what is undecided, for good."""
        gone, own = await started(log, "gone", SHORT_LEASE_S), await started(log)
        undecided, old = gone.record(unix_ms=ago_ms(6)), own.record(unix_ms=ago_ms(9))
        await own.append(old)
        await log.checkpoint(Checkpoint(own.number, 1))
        await log.resign(gone.incarnation)
        # Four hours apart. The log's horizon is at seven hours ago, or at eight, by the clock that is behind.
        retention_s, now_unix_ms = (3 * HOUR_S, ago_ms(4)) if ahead == "the log's clock" else (8 * HOUR_S, ago_ms(-4))
        assert await log.prune(retention_s, 100, now_unix_ms) == 1
        snapshot = await log.read([undecided.xid])
        assert old.xid.unix_ms < snapshot.pruned_below_unix_ms <= undecided.xid.unix_ms
        # Nor does it fall again.
        await log.prune(retention_s, 100, ago_ms(20))
        assert (await log.standing()).pruned_below_unix_ms == snapshot.pruned_below_unix_ms

    @pytest.mark.parametrize("straggles", [True, False])
    async def test_an_unfinished_decision_holds_the_horizon_back_for_all(
        self, log: DecisionLog, *, straggles: bool
    ) -> None:
        """R14: whether above its checkpoint or named in it; also one of an incarnation that is fenced."""
        gone, own = await started(log, "gone"), await started(log)
        older, stuck = own.record(unix_ms=ago_ms(9)), gone.record(unix_ms=ago_ms(8))
        newer = own.record(unix_ms=ago_ms(7))
        await gone.append(gone.record(unix_ms=ago_ms(9)), stuck)
        await own.append(older, newer)
        await log.checkpoint(Checkpoint(own.number, 2))
        checkpoint = Checkpoint(gone.number, 2, frozenset({stuck.xid})) if straggles else Checkpoint(gone.number, 1)
        await log.checkpoint(checkpoint)
        await log.resign(gone.incarnation)
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 2
        snapshot = await log.read([stuck.xid, newer.xid])
        assert len(snapshot.decisions) == 2
        assert snapshot.pruned_below_unix_ms == stuck.xid.unix_ms
        await log.checkpoint(Checkpoint(gone.number, 2))
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 2

    async def test_a_heuristic_end_holds_the_horizon_back_until_it_is_forgotten(self, log: DecisionLog) -> None:
        """Invariant 10."""
        own = await started(log)
        records = [own.record(unix_ms=ago_ms(9 - n)) for n in range(3)]
        await own.append(*records)
        await log.checkpoint(Checkpoint(own.number, 3))
        xid = records[1].xid
        await log.record_heuristics([HeuristicRecord(xid, "trading", Heuristic.HAZARD, "no marker")])
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 1
        assert (await log.read([])).pruned_below_unix_ms == xid.unix_ms
        await log.forget_heuristics(xid, "looked at")
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 2
        assert len(await log.read_heuristics(xid)) == 1

    async def test_the_horizon_never_goes_back_and_spares_what_is_decided_late(self, log: DecisionLog) -> None:
        """A coordinator may have waited for the log for longer than the retention."""
        own = await started(log)
        await log.prune(2 * HOUR_S, 100, now_ms())
        before = (await log.standing()).pruned_below_unix_ms
        late = own.record(unix_ms=ago_ms(5))
        await own.append(late)
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 0
        assert await log.prune(9 * HOUR_S, 100, now_ms()) == 0
        assert (await log.standing()).pruned_below_unix_ms == before
        assert (await log.read([late.xid])).decisions

    async def test_one_that_lives_and_cannot_reach_the_log_holds_the_horizon_back(self, log: DecisionLog) -> None:
        """It may still decide what it began before."""
        own = await started(log)
        away = await started(log, "away", -5 * HOUR_S)
        await log.prune(2 * HOUR_S, 100, now_ms())
        assert abs((await log.standing()).pruned_below_unix_ms - ago_ms(7)) < 60_000
        await fenced_by(log, own, [])
        assert (await log.read([away.record().xid])).incarnations[away.number].fenced
        await log.prune(2 * HOUR_S, 100, now_ms())
        assert abs((await log.standing()).pruned_below_unix_ms - ago_ms(2)) < 60_000

    async def test_a_log_in_hold_is_not_pruned(self, log: DecisionLog) -> None:
        """R15: what is finished is not certain before the participants were asked."""
        own = await started(log)
        await own.append(own.record(unix_ms=ago_ms(9)))
        await log.checkpoint(Checkpoint(own.number, 1))
        await log.hold("restored from a dump")
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 0
        assert (await log.standing()).pruned_below_unix_ms == 0

    async def test_the_horizon_stays_for_a_retention_after_hold(self, log: DecisionLog) -> None:
        """R14, R15: what nobody could decide in HOLD must not be forgotten the moment it ends."""
        gone = await started(log, "gone")
        in_doubt = gone.record(unix_ms=ago_ms(9))
        await gone.append(gone.record(unix_ms=ago_ms(9)))
        await log.checkpoint(Checkpoint(gone.number, 1))
        await log.hold("restored from a dump")
        own = await started(log)
        await log.release(own.incarnation, Release((), {}, "polled all of them"))
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 0
        assert (await log.standing()).pruned_below_unix_ms <= in_doubt.xid.unix_ms
        # A retention that has passed since the release.
        assert await log.prune(0.0, 100, now_ms()) == 1
        assert (await log.standing()).pruned_below_unix_ms > in_doubt.xid.unix_ms

    async def test_a_straggler_that_is_pruned_is_nobodys_work_any_more(self, log: DecisionLog) -> None:
        """A checkpoint of the dead one may land on top of its heir's."""
        gone = await started(log, "gone", SHORT_LEASE_S)
        record = gone.record(unix_ms=ago_ms(9))
        await gone.append(record)
        await log.checkpoint(Checkpoint(gone.number, 1))
        own = await started(log)
        await log.resign(gone.incarnation)
        assert await log.prune(2 * HOUR_S, 100, now_ms()) == 1
        await log.checkpoint(Checkpoint(gone.number, 1, frozenset({record.xid})))
        assert not await log.fence_expired(own.incarnation)
        assert not await log.unfinished(gone.number)
        await log.prune(2 * HOUR_S, 100, now_ms())
        assert (await log.standing()).pruned_below_unix_ms > record.xid.unix_ms


NONE = RequestId("default", "none")


class TestHeuristics:
    async def kept(self, own: Coordinator, count: int) -> list[HeuristicRecord]:
        records = [HeuristicRecord(own.record().xid, "trading", Heuristic.HAZARD, str(n)) for n in range(count)]
        records.insert(1, records[0]._replace(participant="wallet"))
        await own.log.record_heuristics(list(reversed(records)))
        return records

    async def test_those_not_forgotten_are_listed_in_pages(self, log: DecisionLog) -> None:
        own = await started(log)
        records = await self.kept(own, 4)
        first = await log.list_heuristics(None, 3)
        assert list(first) == records[:3]
        assert list(await log.list_heuristics(first[-1].xid, 9)) == records[3:]

    async def test_forgotten_ones_are_listed_no_more_and_kept_for_good(self, world: World, log: DecisionLog) -> None:
        """Invariant 10."""
        own = await started(log)
        records = await self.kept(own, 2)
        assert list(await log.forget_heuristics(records[0].xid, "booked\x00 by hand")) == records[:2]
        assert not await log.forget_heuristics(records[0].xid, "again")
        assert await world.actions() == [
            OperatorAction("FORGET", "booked\ufffd by hand", record.xid, record.participant) for record in records[:2]
        ]
        assert list(await log.list_heuristics(None, 9)) == records[2:]
        assert list(await log.read_heuristics(records[0].xid)) == records[:2]
        # Reported once more, it stays forgotten.
        await log.record_heuristics(records[:1])
        assert list(await log.list_heuristics(None, 9)) == records[2:]
