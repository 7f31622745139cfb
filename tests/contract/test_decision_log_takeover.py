"""The contract of ``DecisionLog``: fencing and taking over, what is unfinished, heuristics."""

from __future__ import annotations

from dataclasses import replace

from coordinator.log.decision_log import AppendStatus, Checkpoint, DecisionLog
from coordinator.protocol.effects import HeuristicRecord
from participant_sdk.xa import Heuristic
from tests.contract.worlds import LEASE_S, SHORT_LEASE_S, World, fenced_by, started


class TestTakeover:
    async def test_a_live_incarnation_is_not_fenced(self, log: DecisionLog) -> None:
        """R6."""
        one, two = await started(log), await started(log)
        await one.append(one.record())
        assert not await log.fence_expired(two.incarnation)
        assert (await one.append()).status is AppendStatus.WRITTEN

    async def test_an_append_renews_the_lease(self, log: DecisionLog) -> None:
        """R6: whoever appends again and again is not fenced, however short the lease at its start."""
        one, two = await started(log, "one", SHORT_LEASE_S), await started(log, "two")
        one.incarnation = replace(one.incarnation, lease_s=LEASE_S)
        await one.append(one.record())
        gone = await started(log, "gone", SHORT_LEASE_S)
        await gone.append(gone.record())
        await fenced_by(log, two, [gone.number])
        assert (await one.append()).status is AppendStatus.WRITTEN

    async def test_one_whose_own_lease_expired_fences_nobody(self, log: DecisionLog) -> None:
        """R6: until it has renewed its own."""
        gone, late = await started(log, "gone", 0.0), await started(log, "late", 0.0)
        await gone.append(gone.record())
        assert not await log.fence_expired(late.incarnation)
        assert not (await log.read([gone.record().xid])).incarnations[gone.number].fenced
        late.incarnation = replace(late.incarnation, lease_s=LEASE_S)
        await late.append()
        await fenced_by(log, late, [gone.number])

    async def test_one_that_is_fenced_fences_nobody(self, log: DecisionLog) -> None:
        """R6."""
        fenced, witness = await started(log, "fenced", SHORT_LEASE_S), await started(log, "witness")
        await fenced.append(fenced.record())
        await fenced_by(log, witness, [fenced.number])
        gone = await started(log, "gone", 0.0)
        await gone.append(gone.record())
        assert not await log.fence_expired(fenced.incarnation)
        assert not (await log.read([gone.record().xid])).incarnations[gone.number].fenced

    async def test_one_of_another_timeline_fences_nobody(self, world: World, log: DecisionLog) -> None:
        """R6, R15."""
        gone, own = await started(log, "gone", 0.0), await started(log, "own")
        await gone.append(gone.record())
        remembered = await world.end_timeline(own.incarnation)
        assert not await log.fence_expired(remembered)
        assert not (await log.read([gone.record().xid])).incarnations[gone.number].fenced

    async def test_the_fencer_answers_for_its_victims_and_for_theirs(self, log: DecisionLog) -> None:
        """R6: a chain of takeovers leaves nobody's work behind."""
        first = await started(log, "first", SHORT_LEASE_S)
        await first.append(first.record())
        second = await started(log, "second", LEASE_S)
        await second.append(second.record())
        await fenced_by(log, second, [first.number])
        second.incarnation = replace(second.incarnation, lease_s=SHORT_LEASE_S)
        await second.append()
        third = await started(log, "third")
        await fenced_by(log, third, [first.number, second.number])
        # Asking again tells the same, and a victim's victim is nobody else's.
        fourth = await started(log, "fourth")
        assert not await log.fence_expired(fourth.incarnation)
        assert list(await log.fence_expired(third.incarnation)) == [first.number, second.number]

    async def test_an_incarnation_without_unfinished_decisions_needs_no_takeover(self, log: DecisionLog) -> None:
        """R14: recovery reads only what is unfinished."""
        done, idle = await started(log, "done", SHORT_LEASE_S), await started(log, "idle", SHORT_LEASE_S)
        open_ = await started(log, "open", SHORT_LEASE_S)
        await done.append(done.record(), done.record())
        await log.checkpoint(Checkpoint(done.number, 2))
        await open_.append(open_.record())
        own = await started(log, "own")
        await fenced_by(log, own, [open_.number])
        states = (await log.read([done.record().xid, idle.record().xid])).incarnations
        assert states[done.number].fenced
        assert states[idle.number].fenced

    async def test_unfinished_are_those_above_the_checkpoint_and_its_stragglers(self, log: DecisionLog) -> None:
        """R14."""
        own, other = await started(log), await started(log)
        records = [own.record() for _ in range(6)]
        await own.append(*records)
        await other.append(other.record())
        assert [row.sequence for row in await log.unfinished(own.number)] == [1, 2, 3, 4, 5, 6]
        await log.checkpoint(Checkpoint(own.number, 3, frozenset({records[0].xid})))
        await log.checkpoint(Checkpoint(own.number, 4, frozenset({records[1].xid, records[2].xid})))
        unfinished = await log.unfinished(own.number)
        assert [row.sequence for row in unfinished] == [2, 3, 5, 6]
        assert [row.record for row in unfinished] == [records[n] for n in (1, 2, 4, 5)]
        await log.checkpoint(Checkpoint(own.number, 6))
        assert not await log.unfinished(own.number)


class TestHeuristics:
    async def test_each_branchs_end_is_kept_once(self, log: DecisionLog) -> None:
        """Invariant 10."""
        own = await started(log)
        xid = own.record().xid
        first = HeuristicRecord(xid, "trading", Heuristic.HAZARD, "no marker")
        other = HeuristicRecord(xid, "bookkeeper", Heuristic.COMMIT, "")
        await log.record_heuristics([first, other])
        await log.record_heuristics([first._replace(heuristic=Heuristic.ROLLBACK, message="later")])
        assert await log.read_heuristics(xid) == [other, first]
        assert not await log.read_heuristics(own.record().xid)

    async def test_a_message_that_cannot_be_stored_does_not_lose_the_heuristic(self, log: DecisionLog) -> None:
        own = await started(log)
        record = HeuristicRecord(own.record().xid, "trading", Heuristic.HAZARD, "a\x00b\ud800")
        await log.record_heuristics([record])
        assert await log.read_heuristics(record.xid) == [record._replace(message="a\ufffdb?")]
