"""What an incarnation's life sees of the log's standing, whom it adopts when, and how it ends by its own will."""

from __future__ import annotations

import asyncio

from coordinator.log.completion import Completion
from coordinator.log.decision_log import Checkpoint, Release
from coordinator.protocol.branches import Branches
from coordinator.protocol.effects import DecisionRecord, StoredDecision
from participant_sdk.ids import Xid
from participant_sdk.xa import ALREADY_DONE, PREPARED, READ_ONLY, Ack, AckKind, Decision
from tests.log.bench import LEASE_S, Bench, Coordinator, Fate, virtual_time


async def resigned(bench: Bench, count: int, name: str = "gone") -> Coordinator:
    """A coordinator that decided so much, and left all of it unfinished."""
    gone = await bench.coordinator(name)
    gone.append(*(gone.record() for _ in range(count)))
    await asyncio.sleep(0.1)
    gone.running.cancel()
    await gone.life.resign()
    return gone


@virtual_time
async def test_one_that_resigned_is_taken_over_before_any_lease_expires(bench: Bench) -> None:
    """It is no fencing of another: nothing has to be waited for (R6)."""
    own = await bench.coordinator("own")
    expired = await bench.coordinator("expired")
    expired.append(expired.record())
    await asyncio.sleep(2 * LEASE_S)
    gone = await resigned(bench, 2)
    own.live()
    await asyncio.sleep(LEASE_S / 2)
    assert [(number, len(rows)) for number, rows in own.adopted] == [(gone.number, 2)]
    assert bench.store.tables.incarnations[expired.number].is_live


@virtual_time
async def test_resigning_writes_what_is_finished_first(bench: Bench) -> None:
    """R14: the next one drives nothing again."""
    own = await bench.coordinator()
    own.append(*(own.record() for _ in range(3)))
    await asyncio.sleep(0.1)
    for sequence in (1, 2, 3):
        own.life.applied(own.number, sequence, "bookkeeper")
        own.life.finished(own.number, sequence)
    own.running.cancel()
    await own.life.resign()
    assert bench.store.tables.checkpoints[own.number] == Checkpoint(own.number, 3, applied={"bookkeeper": 3})
    next_ = await bench.coordinator("next")
    next_.live()
    await asyncio.sleep(20)
    assert not next_.adopted


@virtual_time
async def test_a_round_of_its_own_takes_over_now_and_tells_how_much(bench: Bench) -> None:
    own = await bench.coordinator("own")
    await resigned(bench, 3)
    own.commit.renew()
    await asyncio.sleep(0.1)
    assert await own.life.take_over() == 3
    assert await own.life.take_over() == 0


@virtual_time
async def test_rounds_at_once_adopt_once(bench: Bench) -> None:
    own = await bench.coordinator("own")
    await resigned(bench, 3)
    own.commit.renew()
    await asyncio.sleep(0.1)
    assert sorted(await asyncio.gather(own.life.take_over(), own.life.take_over())) == [0, 3]
    assert len(own.adopted) == 1


@virtual_time
async def test_the_standing_is_told_when_it_changes_and_only_then(bench: Bench) -> None:
    """Participants hear of every coordinator, of HOLD's end, and of the horizon."""
    own = await bench.coordinator("own")
    own.live()
    await asyncio.sleep(20)
    assert [[live.address for live in standing.live] for standing in own.standings] == [["own:50051"]]
    other = await bench.coordinator("other")
    await asyncio.sleep(LEASE_S / 2)
    assert [live.coordinator for live in own.standings[-1].live] == ["own", "other"]
    await other.log.resign(other.commit.incarnation)
    await asyncio.sleep(LEASE_S / 2)
    assert [live.coordinator for live in own.standings[-1].live] == ["own"]
    await own.log.prune(60.0, 1, bench.clock.unix_ms())
    await asyncio.sleep(LEASE_S / 2)
    assert own.standings[-1].pruned_below_unix_ms == bench.store.tables.pruned_below_unix_ms > 0
    assert len(own.standings) == 4
    assert own.life.standing is not None
    assert own.life.standing.live[0].number == own.number


@virtual_time
async def test_a_look_that_failed_is_made_again(bench: Bench) -> None:
    own = await bench.coordinator("own")
    own.gate.script("standing", Fate.UNAVAILABLE, Fate.LOST_AFTER)
    own.live()
    await asyncio.sleep(2 * LEASE_S)
    assert len(own.standings) == 1


@virtual_time
async def test_what_the_end_of_hold_put_back_is_adopted_though_its_incarnation_was_before(bench: Bench) -> None:
    """R15: what it left before is still owed to somebody who cannot be reached."""
    old = await bench.coordinator("old")
    old.append(old.record())
    await asyncio.sleep(0.1)
    await old.log.hold("restored from a dump")
    own, other = await bench.coordinator("own"), await bench.coordinator("other")
    for each in (own, other):
        each.live()
    await asyncio.sleep(2 * LEASE_S)
    assert [(number, [row.sequence for row in rows]) for number, rows in own.adopted] == [(old.number, [1])]
    xids = [Xid.make(bench.clock.unix_ms(), old.number, n) for n in (100, 101)]
    restored = tuple(
        StoredDecision(DecisionRecord(xid, Decision.COMMIT, ("bookkeeper",)), old.number, sequence, 1)
        for sequence, xid in enumerate(xids, 2)
    )
    own.gate.script("unfinished", Fate.UNAVAILABLE)
    await other.log.release(other.commit.incarnation, Release(restored, {}, "polled"))
    await asyncio.sleep(2 * LEASE_S)
    assert [(number, [row.sequence for row in rows]) for number, rows in own.adopted[1:]] == [(old.number, [2, 3])]
    for sequence in (1, 2, 3):
        own.life.finished(old.number, sequence)
    await asyncio.sleep(LEASE_S)
    assert not bench.store.unfinished(old.number)
    assert not other.adopted


def test_acknowledgements_are_folded_by_participant_into_the_checkpoint() -> None:
    """R15: the highest sequence that each acknowledged; a checkpoint is written though nothing else changed."""
    completion = Completion(1)
    for sequence in (1, 2, 3):
        completion.decided(sequence, Xid.make(1, 1, sequence))
    for sequence, participants in ((3, ("bookkeeper", "trading")), (1, ("bookkeeper", "trading")), (2, ("wallet",))):
        for participant in participants:
            completion.applied(sequence, participant)
        completion.finished(sequence)
    first = completion.checkpoint()
    assert first == Checkpoint(1, 3, applied={"bookkeeper": 3, "trading": 3, "wallet": 2})
    assert first is not None
    completion.wrote(first)
    assert completion.checkpoint() is None
    completion.applied(3, "wallet")
    assert completion.checkpoint() == Checkpoint(1, 3, applied={"bookkeeper": 3, "trading": 3, "wallet": 3})


def test_what_ended_against_the_decision_is_not_acknowledged() -> None:
    """A participant's watermark does not rise by it, and to say more than it reports would be an alarm."""
    branches = Branches()
    votes = {"applied": PREPARED, "rolled-back": PREPARED, "owed": PREPARED, "read-only": READ_ONLY}
    for name, vote in votes.items():
        branches.add(name).take_vote(vote)
    branches["applied"].take_ack(ALREADY_DONE, Decision.COMMIT)
    branches["rolled-back"].take_ack(Ack(AckKind.HEURISTIC_ROLLBACK), Decision.COMMIT)
    assert [name for name in branches if branches.has_acknowledged(name)] == ["applied"]
