"""Checks of what survives kill -9 (R8, R9, R10, R12, R15): one restart, and a look at all that was promised.

While the participant is killed the kit goes on preparing and committing, so that the last
promises are a moment old. Whatever was answered must hold afterwards; what was not may be either.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2

from participant_sdk.conformance.bench import Bench, expect_ack, shown_phase
from participant_sdk.conformance.hand_checks import forcing, forgetting
from participant_sdk.conformance.report import DeviationError, SkippedError, expect
from participant_sdk.conformance.words import shown
from participant_sdk.ids import Xid

_BACK_WITHIN_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.1
# Of the promises made while it was killed, the last ones are looked at.
_LAST: Final = 50


@dataclass(slots=True)
class _Promises:
    """What the participant answered before it was killed. Mutable: it grows until then."""

    committed: Xid
    in_doubt: Xid
    vote: common_pb2.Vote
    refused: Xid
    no: common_pb2.Vote | None
    undone: Xid
    forced: resource_pb2.Branch
    observed: Sequence[str]
    marks: dict[int, int]
    voted: deque[Xid] = field(default_factory=lambda: deque[Xid](maxlen=_LAST))
    acknowledged: deque[Xid] = field(default_factory=lambda: deque[Xid](maxlen=_LAST))


class RestartChecks:
    """The checks of one run; whichever comes first has the participant restarted."""

    def __init__(self) -> None:
        self._promises: _Promises | None = None
        self._failed = ""
        # What must be seen before anything else is asked.
        self._epoch_lost = ""
        self._marks: dict[int, int] = {}

    async def votes_survive_a_kill(self, bench: Bench) -> None:
        """After kill -9 every branch that voted PREPARED still is, with its vote, listed, and able to go either way."""
        promises = await self._after_restart(bench)
        await bench.expect_phase(promises.in_doubt, common_pb2.BRANCH_PHASE_PREPARED, where="after the restart, ")
        listed = [branch.xid for branch in await bench.listed(page_size=100)]
        expect(str(promises.in_doubt) in listed, "a branch in doubt is not listed after the restart")
        vote = await bench.prepare(promises.in_doubt, bench.exercise.yes[1])
        expect(vote == promises.vote, f"voted {shown(promises.vote)}, and after the restart {shown(vote)}")
        for xid in promises.voted:
            await bench.expect_phase(
                xid,
                common_pb2.BRANCH_PHASE_PREPARED,
                common_pb2.BRANCH_PHASE_COMMITTED,
                where="voted PREPARED just before the kill, ",
            )
            await bench.rollback(xid)
        expect_ack(await bench.commit(promises.in_doubt), common_pb2.ACK_KIND_DONE)

    async def noes_survive_a_kill(self, bench: Bench) -> None:
        """After kill -9 a branch that voted no still does, whatever it is asked to prepare now."""
        promises = await self._after_restart(bench)
        if promises.no is None:
            raise DeviationError("the no was an error status, not a vote")
        vote = await bench.prepare(promises.refused, bench.exercise.yes[0])
        await bench.rollback(promises.refused)
        expect(vote == promises.no, f"voted {shown(promises.no)}, and after the restart {shown(vote)}")

    async def acknowledgements_survive_a_kill(self, bench: Bench) -> None:
        """After kill -9 every branch that was acknowledged is COMMITTED, and its effect is there."""
        promises = await self._after_restart(bench)
        for xid in (promises.committed, *promises.acknowledged):
            await bench.expect_phase(
                xid, common_pb2.BRANCH_PHASE_COMMITTED, where="acknowledged just before the kill, "
            )
        observed = await bench.observed()
        expect(observed == promises.observed, f"before the kill {promises.observed} was read, and now {observed}")
        expect_ack(await bench.commit(promises.committed), common_pb2.ACK_KIND_ALREADY_DONE)

    async def tombstones_survive_a_kill(self, bench: Bench) -> None:
        """After kill -9 a Rollback that came before its Prepare still keeps it out."""
        promises = await self._after_restart(bench)
        vote = await bench.prepare(promises.undone, bench.exercise.yes[0])
        await bench.rollback(promises.undone)
        expect(vote.kind == common_pb2.VOTE_KIND_ROLLED_BACK, f"rolled back before the kill, and now {shown(vote)}")

    async def an_operators_hand_survives_a_kill(self, bench: Bench) -> None:
        """After kill -9 a forced branch is HEURISTIC, with its reason, until it is forgotten."""
        promises = await self._after_restart(bench)
        xid = Xid.parse(promises.forced.xid)
        branch = await bench.branch(xid)
        before, now = ((it.phase, it.heuristic, it.reason) for it in (promises.forced, branch))
        expect(now == before, f"forced as {before}, and after the restart {shown_phase(branch)} {now}")
        expect_ack(await forgetting(bench, xid), common_pb2.ACK_KIND_DONE)

    async def the_epoch_survives_a_kill(self, bench: Bench) -> None:
        """After kill -9 an older epoch than the one adopted is still refused, before anybody introduced a newer one."""
        await self._after_restart(bench)
        expect(not self._epoch_lost, self._epoch_lost)

    async def watermarks_survive_a_kill(self, bench: Bench) -> None:
        """After kill -9 no watermark is lower than what was acknowledged."""
        promises = await self._after_restart(bench)
        for incarnation, sequence in promises.marks.items():
            seen = self._marks.get(incarnation, 0)
            expect(seen >= sequence, f"incarnation {incarnation} was at {sequence} before the kill, and is at {seen}")

    async def _after_restart(self, bench: Bench) -> _Promises:
        expect(not self._failed, self._failed)
        if self._promises is None:
            if bench.means.restart is None:
                raise SkippedError("the kit was not told how to kill and restart the participant")
            # Until it has come back, once is enough.
            self._failed = "the participant was not restarted: an earlier check says why"
            promises = await _promised(bench)
            failure: Exception | None = None
            async with asyncio.TaskGroup() as group:
                going_on = group.create_task(_go_on(bench, promises))
                try:
                    await bench.means.restart()
                except Exception as error:  # noqa: BLE001 - raised again
                    # The caller's own: raised below, where the group does not wrap it.
                    failure = error
                finally:
                    going_on.cancel()
            if failure is not None:
                raise failure
            await _back(bench)
            self._epoch_lost = await _stale_is_believed(bench)
            self._marks = await bench.marks()
            self._promises, self._failed = promises, ""
            # Each check ends its own.
            bench.given_out.clear()
        return self._promises


async def _promised(bench: Bench) -> _Promises:
    """Have the participant promise one of everything, in a new epoch."""
    exercise = bench.exercise
    bench.speaker.epoch += 1
    await bench.line.hello(bench.greeting())
    refused = bench.an_xid()
    no = await _refused(bench, refused)
    undone = bench.an_xid()
    await bench.rollback(undone)
    forced = await bench.prepared(exercise.yes[0])
    await bench.line.resolve(forcing(bench, forced, common_pb2.DECISION_ROLLBACK))
    in_doubt = bench.an_xid()
    vote = await bench.prepare_yes(in_doubt, exercise.yes[1])
    committed = await bench.prepared(exercise.yes[0])
    expect_ack(await bench.commit(committed), common_pb2.ACK_KIND_DONE)
    observed = await bench.observed()
    shown_forced = await bench.branch(forced)
    marks = await bench.marks()
    return _Promises(committed, in_doubt, vote, refused, no, undone, shown_forced, observed, marks)


async def _refused(bench: Bench, xid: Xid) -> common_pb2.Vote | None:
    try:
        return await bench.prepare(xid, bench.exercise.no)
    except grpc.aio.AioRpcError:
        # Another check tells of it.
        return None


async def _go_on(bench: Bench, promises: _Promises) -> None:
    """Prepare and commit, one branch after the other, until the participant is gone."""
    try:
        while True:
            xid = bench.an_xid()
            vote = await bench.prepare(xid, bench.exercise.yes[2])
            if vote.kind != common_pb2.VOTE_KIND_PREPARED:
                continue
            promises.voted.append(xid)
            decided = bench.decided(xid)
            (ack,) = await bench.calls.commit([decided])
            if ack.kind == common_pb2.ACK_KIND_DONE:
                promises.voted.pop()
                promises.acknowledged.append(xid)
                promises.marks[decided.incarnation] = decided.sequence
    except grpc.aio.AioRpcError:
        # It was killed, as it should be.
        return


async def _back(bench: Bench) -> None:
    """Wait until the participant answers again, asking what changes nothing."""
    ends_s = time.monotonic() + _BACK_WITHIN_S
    request = resource_pb2.GetBranchRequest(xid=str(bench.an_xid()), log_id=bench.speaker.log_id)
    while True:
        try:
            await bench.line.branch(request)
        except grpc.aio.AioRpcError as error:
            if time.monotonic() >= ends_s:
                raise DeviationError(f"it is not back {_BACK_WITHIN_S:.0f} s after the restart") from error
            await asyncio.sleep(_LOOK_AGAIN_S)
        else:
            return


async def _stale_is_believed(bench: Bench) -> str:
    """Speak as a coordinator of the epoch before, first of all; what went wrong, or nothing."""
    bench.speaker.epoch -= 1
    try:
        stale = await bench.line.hello(bench.greeting())
        ack = await bench.rollback(bench.an_xid())
    finally:
        bench.speaker.epoch += 1
    if stale.refusal != "EPOCH_STALE" or stale.epoch != bench.speaker.epoch:
        return f"an older epoch's Hello is answered with refusal {stale.refusal!r} and epoch {stale.epoch}"
    return "" if ack.kind == common_pb2.ACK_KIND_RETRY else "an older epoch's Rollback is followed"
