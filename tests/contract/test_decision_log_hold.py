"""The contract of ``DecisionLog``: HOLD, its end, and epochs (R15)."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from coordinator.log.decision_log import (
    Appended,
    AppendStatus,
    Checkpoint,
    DecisionLog,
    OperatorAction,
    Release,
    ReleaseRefusedError,
)
from coordinator.log.postgres_keeping import RESTORED_AT_ONCE
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from participant_sdk.ids import RequestId, Xid
from participant_sdk.xa import Decision
from tests.contract.worlds import Coordinator, World, started

NOW_MS = time.time_ns() // 1_000_000
NO_SEQUENCES: Mapping[int, int] = {}


def lost(number: int, sequence: int, request: str = "", *, decision: Decision = Decision.COMMIT) -> StoredDecision:
    """A decision that only participants remember."""
    bound = RequestId("default", request) if request else None
    record = DecisionRecord(
        Xid.make(NOW_MS, number, sequence), decision, ("bookkeeper",), bound, b"digest" * bool(bound)
    )
    return StoredDecision(record, number, sequence, NOW_MS)


async def held(log: DecisionLog) -> Coordinator:
    """A coordinator opened in HOLD."""
    await log.open("before", "before:1", 30.0)
    await log.hold("the log came from a dump")
    return await started(log)


class TestHold:
    async def test_hold_fences_everybody_who_lives(self, log: DecisionLog) -> None:
        """Invariant 7: no running append passes it, and old coordinators stop by themselves."""
        one, two = await started(log, "one"), await started(log, "two")
        await one.append(one.record())
        await log.hold("participants are ahead")
        late = one.record()
        assert (await one.append(late)).status is AppendStatus.FENCED
        assert (await two.append()).status is AppendStatus.FENCED
        snapshot = await log.read([late.xid, two.record().xid])
        assert snapshot.held
        assert all(state.fenced for state in snapshot.incarnations.values())
        assert not snapshot.decisions

    async def test_a_log_that_is_held_keeps_its_reason_and_those_who_came_since(self, log: DecisionLog) -> None:
        own = await held(log)
        before = await log.standing()
        await log.hold("another reason")
        standing = await log.standing()
        assert (standing.held_since_unix_ms, standing.held_reason) == (before.held_since_unix_ms, before.held_reason)
        assert standing.is_held
        assert abs(standing.held_since_unix_ms - time.time() * 1000) < 60_000
        assert (await own.append()).status is AppendStatus.WRITTEN

    async def test_whoever_comes_next_adopts_and_begins_an_epoch(self, log: DecisionLog) -> None:
        """Nothing that an older coordinator still says is believed."""
        one, two = await started(log, "one"), await started(log, "two")
        for old in (one, two):
            await old.append(old.record())
        await log.hold("participants are ahead")
        own, other = await started(log, "own"), await started(log, "other")
        assert own.incarnation.epoch == other.incarnation.epoch == own.number
        assert list(await log.fence_expired(own.incarnation)) == [one.number, two.number]
        assert not await log.fence_expired(other.incarnation)
        await log.release(own.incarnation, Release((), NO_SEQUENCES, "checked"))
        assert (await started(log, "later")).incarnation.epoch == own.number

    async def test_a_second_hold_begins_a_second_epoch(self, log: DecisionLog) -> None:
        own = await held(log)
        await log.release(own.incarnation, Release((), NO_SEQUENCES, "checked"))
        await log.hold("again")
        assert (await own.append()).status is AppendStatus.FENCED
        second = await started(log)
        assert second.incarnation.epoch == second.number

    @pytest.mark.parametrize("is_held", [True, False])
    async def test_what_is_drawn_after_an_epoch_was_forgotten_is_above_it(
        self, log: DecisionLog, *, is_held: bool
    ) -> None:
        """Participants hold it, and would refuse anything lower for ever. A clock may have been far ahead."""
        own = await held(log) if is_held else await started(log)
        reason = (await log.standing()).held_reason or "left is ahead"
        forgotten = own.number + 3600
        assert await log.hold_above(own.incarnation, forgotten, "left is ahead")
        assert (await log.standing()).held_reason == reason
        assert (await own.append()).status is AppendStatus.FENCED
        first, second = await started(log, "first"), await started(log, "second")
        assert first.number == first.incarnation.epoch == second.incarnation.epoch == forgotten + 1
        assert not await log.hold_above(own.incarnation, forgotten + 9, "one that is over says so")
        assert (await first.append()).status is AppendStatus.WRITTEN

    @pytest.mark.parametrize("announced", [True, False])
    async def test_a_dump_on_a_server_with_a_lower_timeline_gives_no_old_epoch(
        self, world: World, log: DecisionLog, *, announced: bool
    ) -> None:
        """The log had this timeline before, long ago: who was first on it then is the epoch of nobody now."""
        ancient, last = await started(log, "ancient"), await started(log, "last")
        await world.come_from_another_server(last.number)
        if announced:
            await log.hold("restored from a dump")
        first, second = await started(log, "first"), await started(log, "second")
        assert ancient.number < last.number < first.number
        assert first.incarnation.epoch == second.incarnation.epoch == first.number


class TestRelease:
    async def test_what_is_restored_is_there_bound_and_unfinished(self, world: World, log: DecisionLog) -> None:
        old = await started(log, "old")
        await old.append(old.record("order-0"))
        await log.hold("restored from a dump")
        own = await started(log)
        rows = (lost(old.number, 4, "order-4"), lost(old.number, 2), lost(old.number - 1, 7, "order-7"))
        await log.release(own.incarnation, Release(rows, {old.number: 5, own.number: 0}, "polled all of them"))
        standing = await log.standing()
        assert (standing.is_held, standing.held_reason) == (False, "")
        snapshot = await log.read([row.record.xid for row in rows])
        assert snapshot.decisions == {row.record.xid: row for row in rows}
        bound = await log.read_requests([RequestId("default", "order-4"), RequestId("default", "order-7")])
        assert [row.record.xid for row in bound.values()] == [rows[0].record.xid, rows[2].record.xid]
        assert {n: (s.fenced, s.last_sequence) for n, s in snapshot.incarnations.items()} == {
            old.number: (True, 5),
            old.number - 1: (True, 7),
        }
        assert list(await log.fence_expired(own.incarnation)) == [old.number - 1, old.number]
        assert [row.sequence for row in await log.unfinished(old.number)] == [1, 2, 4]
        assert await own.append(own.record()) == Appended(AppendStatus.WRITTEN, 1)
        (action,) = await world.actions()
        assert (action.action, action.reason) == ("RELEASE", "polled all of them")
        assert "restored from a dump" in action.detail

    async def test_a_checkpoint_that_came_after_the_loss_hides_nothing(self, log: DecisionLog) -> None:
        """R14: it was written by one who remembered what the log had forgotten."""
        old = await started(log, "old")
        await old.append(old.record())
        await log.checkpoint(Checkpoint(old.number, 9))
        await log.hold("restored from a dump")
        own = await started(log)
        await log.release(own.incarnation, Release((lost(old.number, 3), lost(old.number, 2)), NO_SEQUENCES, "checked"))
        assert list(await log.fence_expired(own.incarnation)) == [old.number]
        assert [row.sequence for row in await log.unfinished(old.number)] == [2, 3]

    async def test_an_incarnation_put_back_is_part_of_no_epoch(self, world: World, log: DecisionLog) -> None:
        """Whether it was drawn before ours or, by a clock that was ahead, after it."""
        await started(log)
        await world.grow_old()
        await log.hold("restored from a dump")
        own = await started(log)
        numbers = (own.number - 500, own.number + 5)
        await log.release(own.incarnation, Release(tuple(lost(n, 1) for n in numbers), NO_SEQUENCES, "checked"))
        later = await started(log)
        assert later.number == own.number + 6
        assert later.incarnation.epoch == own.incarnation.epoch

    async def test_a_row_that_is_there_already_may_be_restored_again(self, log: DecisionLog) -> None:
        old = await started(log, "old")
        record = old.record("order-1")
        await old.append(record)
        await log.hold("restored from a dump")
        own = await started(log)
        again = StoredDecision(record, old.number, 1, NOW_MS)
        await log.release(own.incarnation, Release((again,), NO_SEQUENCES, "checked"))
        assert (await log.read([record.xid])).decisions[record.xid].record == record

    async def test_a_log_that_is_not_held_is_not_released(self, log: DecisionLog) -> None:
        own = await started(log)
        with pytest.raises(ReleaseRefusedError, match="not in HOLD"):
            await log.release(own.incarnation, Release((lost(own.number - 1, 1),), NO_SEQUENCES, "checked"))
        assert not await log.list_decisions(None, 9)

    async def test_an_incarnation_that_hold_ended_releases_nothing(self, log: DecisionLog) -> None:
        old = await started(log)
        await log.hold("restored from a dump")
        with pytest.raises(ReleaseRefusedError, match="is fenced"):
            await log.release(old.incarnation, Release((), NO_SEQUENCES, "checked"))
        assert (await log.standing()).is_held

    async def test_a_contradiction_is_named_and_nothing_is_changed(self, world: World, log: DecisionLog) -> None:
        """Invariants 1 and 11: an operator looks at it; nobody guesses."""
        old = await started(log, "old")
        rolled_back, bound = old.record(decision=Decision.ROLLBACK), old.record("order-1")
        await old.append(rolled_back, bound)
        await log.hold("restored from a dump")
        own = await started(log)
        reversed_ = StoredDecision(rolled_back._replace(decision=Decision.COMMIT), old.number, 3, NOW_MS)
        many = tuple(lost(old.number, 10 + n) for n in range(RESTORED_AT_ONCE))
        for row, why in ((reversed_, "the log says ROLLBACK"), (lost(old.number, 4, "order-1"), str(bound.xid))):
            with pytest.raises(ReleaseRefusedError, match=f"{row.record.xid} was committed.*{why}"):
                await log.release(own.incarnation, Release((*many, row), {old.number: 9}, "checked"))
        assert (await log.standing()).is_held
        assert await log.read_sequences([old.number]) == {old.number: 2}
        assert len(await log.list_decisions(None, 9)) == 2
        assert not await world.actions()

    @pytest.mark.parametrize(
        ("rows", "why"),
        [
            ((lost(5, 1, decision=Decision.ROLLBACK),), "only one COMMIT"),
            ((lost(5, 1), lost(5, 1)), "only one COMMIT"),
            ((lost(5, 1, "a"), lost(5, 2, "a")), "both committed for request 'a'"),
            ((lost(5, 1), lost(6, 2)._replace(incarnation=5, sequence=1)), "both have sequence 1 of incarnation 5"),
            ((lost(2**32 - 1, 1),), "never this log's"),
            ((lost(5, 1)._replace(sequence=2**63 - 1),), "never this log's"),
            ((lost(5, 1, "a\x00"),), "request_id: a unit separator, a NUL"),
        ],
    )
    async def test_what_participants_cannot_have_applied_is_refused(
        self, log: DecisionLog, rows: tuple[StoredDecision, ...], why: str
    ) -> None:
        own = await held(log)
        with pytest.raises(ReleaseRefusedError, match=why):
            await log.release(own.incarnation, Release(rows, NO_SEQUENCES, "checked"))
        assert (await log.standing()).is_held

    async def test_one_that_lives_has_applied_nothing_that_it_never_wrote(self, log: DecisionLog) -> None:
        """Its sequence is its own: raised behind its back, it would take the log for one that moved on."""
        own = await held(log)
        with pytest.raises(ReleaseRefusedError, match=f"incarnation {own.number} lives"):
            await log.release(own.incarnation, Release((), {own.number: 3}, "checked"))

    async def test_more_than_one_statement_restores_is_restored(self, log: DecisionLog) -> None:
        own = await held(log)
        rows = tuple(lost(own.number - 1, n, f"order-{n}") for n in range(1, RESTORED_AT_ONCE + 3))
        await log.release(own.incarnation, Release(rows, NO_SEQUENCES, "checked"))
        assert await log.read_sequences([own.number - 1]) == {own.number - 1: len(rows)}
        assert len(await log.unfinished(own.number - 1)) == len(rows)

    async def test_operators_actions_are_kept(self, world: World, log: DecisionLog) -> None:
        own = await started(log)
        resolved = OperatorAction("RESOLVE", "the bank\x00 says so", own.record().xid, "fiat", "COMMIT")
        for action in (OperatorAction("HOLD", "maintenance"), resolved):
            await log.record_action(action)
        kept, other = await world.actions()
        assert kept == OperatorAction("HOLD", "maintenance")
        assert (other.reason, other.xid, other.participant) == ("the bank\ufffd says so", resolved.xid, "fiat")
