"""Checks of a participant in doubt: it asks the kit's coordinators, and follows their answers and nothing else (R12).

A branch may be in doubt for a while before it is asked about. So the branches of several checks
wait together, in two rounds of three, and each check then looks at its own. What is answered is
settled before they are prepared: however soon a participant asks, it hears no other thing first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import grpc
from pincex.tx.v1 import common_pb2, resource_pb2, transaction_pb2

from participant_sdk.conformance.asked import COORDINATORS, Answer
from participant_sdk.conformance.bench import OTHER, Bench, shown_phase
from participant_sdk.conformance.calls import Decided
from participant_sdk.conformance.report import DeviationError, expect
from participant_sdk.ids import Xid

_COMMIT: Final = transaction_pb2.DECISION_STATE_COMMIT
_ROLLBACK: Final = transaction_pb2.DECISION_STATE_ROLLBACK
_PENDING: Final = transaction_pb2.DECISION_STATE_PENDING
_FORGOTTEN: Final = transaction_pb2.DECISION_STATE_FORGOTTEN
_FOLLOWED_WITHIN_S: Final = 5.0
# How long a participant that takes FORGOTTEN for a decision has to follow it.
_STAYS_FOR_S: Final = 0.5
# Both coordinators may be asked at one look; once more is of a later one.
_AGAIN: Final = COORDINATORS + 1


@dataclass(frozen=True, slots=True)
class _Doubt:
    """What became of one branch: how often it was asked about, and where it stood afterwards."""

    asked: Sequence[transaction_pb2.GetDecisionRequest]
    branch: resource_pb2.Branch

    def expect_asked(self, times: int, within_s: float) -> None:
        """Raise DeviationError unless it was asked about so often."""
        now = f"the branch is {shown_phase(self.branch)}"
        expect(len(self.asked) >= times, f"asked {len(self.asked)} times within {within_s:.0f} s, not {times}; {now}")

    def expect_phase(self, phase: common_pb2.BranchPhase.ValueType, after: str) -> None:
        """Raise DeviationError unless the branch was in this phase."""
        name = common_pb2.BranchPhase.Name(phase).removeprefix("BRANCH_PHASE_")
        expect(self.branch.phase == phase, f"after {after}, the branch is {shown_phase(self.branch)}, not {name}")


class DoubtChecks:
    """The checks of one run; whichever comes first runs its round."""

    def __init__(self) -> None:
        self._told: tuple[_Doubt, _Doubt, _Doubt] | None = None
        self._untold: tuple[_Doubt, _Doubt, _Doubt] | None = None

    async def in_doubt_it_asks_and_follows_commit(self, bench: Bench) -> None:
        """A branch in doubt is asked about, and ends COMMITTED when a coordinator answers COMMIT."""
        doubt, _, _ = await self._with_answers(bench)
        doubt.expect_asked(1, bench.means.asked_within_s)
        doubt.expect_phase(common_pb2.BRANCH_PHASE_COMMITTED, "COMMIT")

    async def in_doubt_it_asks_and_follows_rollback(self, bench: Bench) -> None:
        """A branch in doubt is asked about, and ends ROLLED_BACK when a coordinator answers ROLLBACK."""
        _, doubt, _ = await self._with_answers(bench)
        doubt.expect_asked(1, bench.means.asked_within_s)
        doubt.expect_phase(common_pb2.BRANCH_PHASE_ROLLED_BACK, "ROLLBACK")

    async def in_doubt_it_stays_when_the_log_forgot(self, bench: Bench) -> None:
        """FORGOTTEN is no decision: the branch stays in doubt, for an operator."""
        _, _, doubt = await self._with_answers(bench)
        doubt.expect_asked(1, bench.means.asked_within_s)
        doubt.expect_phase(common_pb2.BRANCH_PHASE_PREPARED, "FORGOTTEN")

    async def an_inquiry_says_who_asks_and_what(self, bench: Bench) -> None:
        """An inquiry names the log, the asker, every participant as Prepare named them, and the epoch adopted."""
        doubts = await self._with_answers(bench)
        inquiries = [inquiry for doubt in doubts for inquiry in doubt.asked]
        expect(bool(inquiries), "nothing was asked")
        for inquiry in inquiries:
            expect(inquiry.log_id == bench.speaker.log_id, f"it asks of log {inquiry.log_id!r}")
            expect(inquiry.participant == bench.exercise.participant, f"it is asked by {inquiry.participant!r}")
            named = sorted(inquiry.participants)
            expect(named == sorted([bench.exercise.participant, OTHER]), f"it names the participants {named}")
            expect(inquiry.epoch == bench.speaker.epoch, f"it names epoch {inquiry.epoch}, not {bench.speaker.epoch}")

    async def in_doubt_it_does_not_follow_an_older_epoch(self, bench: Bench) -> None:
        """A COMMIT that a coordinator of an older epoch answers is not followed: it is asked again."""
        doubt, _, _ = await self._without_answers(bench)
        doubt.expect_asked(_AGAIN, bench.means.asked_within_s)
        doubt.expect_phase(common_pb2.BRANCH_PHASE_PREPARED, "COMMIT of an older epoch")

    async def in_doubt_it_waits_while_nothing_is_decided(self, bench: Bench) -> None:
        """PENDING, and an answer that says nothing, end no doubt: it is asked again, for ever."""
        _, doubt, _ = await self._without_answers(bench)
        doubt.expect_asked(_AGAIN, bench.means.asked_within_s)
        doubt.expect_phase(common_pb2.BRANCH_PHASE_PREPARED, "PENDING")

    async def in_doubt_it_asks_on_after_errors(self, bench: Bench) -> None:
        """An error status tells nothing: it is asked again, of every coordinator that Hello named."""
        _, _, doubt = await self._without_answers(bench)
        doubt.expect_asked(_AGAIN, bench.means.asked_within_s)
        doubt.expect_phase(common_pb2.BRANCH_PHASE_ROLLED_BACK, "errors, and then ROLLBACK by the other coordinator")

    async def _with_answers(self, bench: Bench) -> tuple[_Doubt, _Doubt, _Doubt]:
        """The first round: COMMIT, ROLLBACK, FORGOTTEN, each said at once by whoever is asked."""
        if self._told is None:
            await _introduce(bench)
            xids = [bench.an_xid() for _ in range(3)]
            commit = bench.decided(xids[0])
            bench.asked.answer(xids[0], lambda _at, _before: _answer(bench, _COMMIT, commit))
            bench.asked.answer(xids[1], lambda _at, _before: _answer(bench, _ROLLBACK))
            bench.asked.answer(xids[2], lambda _at, _before: _answer(bench, _FORGOTTEN))
            await _put_in_doubt(bench, xids)
            await _until_asked(bench, xids, 1)
            await _follows(bench, xids[0], common_pb2.BRANCH_PHASE_COMMITTED)
            await _follows(bench, xids[1], common_pb2.BRANCH_PHASE_ROLLED_BACK)
            await _follows(bench, xids[2], common_pb2.BRANCH_PHASE_ROLLED_BACK, _STAYS_FOR_S)
            self._told = await _look(bench, xids)
        return self._told

    async def _without_answers(self, bench: Bench) -> tuple[_Doubt, _Doubt, _Doubt]:
        """The second: an older epoch's COMMIT, PENDING and nothing at all, errors of one coordinator."""
        if self._untold is None:
            await _introduce(bench)
            xids = [bench.an_xid() for _ in range(3)]
            stale = _answer(bench, _COMMIT, bench.decided(xids[0]))
            stale.epoch -= 1
            nothing = (_PENDING, transaction_pb2.DECISION_STATE_UNSPECIFIED)
            bench.asked.answer(xids[0], lambda _at, _before: stale)
            bench.asked.answer(xids[1], lambda _at, before: _answer(bench, nothing[before % 2]))
            bench.asked.answer(xids[2], lambda at, before: _of_one(bench, at, before))
            await _put_in_doubt(bench, xids)
            await _until_asked(bench, xids, _AGAIN)
            await _follows(bench, xids[2], common_pb2.BRANCH_PHASE_ROLLED_BACK)
            self._untold = await _look(bench, xids)
        return self._untold


async def _introduce(bench: Bench) -> None:
    welcome = await bench.line.hello(bench.greeting())
    expect(not welcome.refusal, f"refused: {welcome.refusal}")


async def _put_in_doubt(bench: Bench, xids: Sequence[Xid]) -> None:
    for xid, operation in zip(xids, bench.exercise.yes, strict=False):
        await bench.prepare_yes(xid, operation)


async def _until_asked(bench: Bench, xids: Sequence[Xid], times: int) -> None:
    """Wait until each was asked about so often, or the time is over; each check judges for itself."""
    await bench.asked.until(
        lambda: all(len(bench.asked.about(xid)) >= times for xid in xids), bench.means.asked_within_s
    )


async def _follows(
    bench: Bench, xid: Xid, phase: common_pb2.BranchPhase.ValueType, within_s: float = _FOLLOWED_WITHIN_S
) -> None:
    """Wait a little until the branch is where the answer sends it, or seems to, if it asked."""
    if bench.asked.about(xid):
        await bench.comes_to(xid, phase, within_s)


async def _look(bench: Bench, xids: Sequence[Xid]) -> tuple[_Doubt, _Doubt, _Doubt]:
    """See where the branches stand, and end what is left of them."""
    first, second, third = [_Doubt(tuple(bench.asked.about(xid)), await bench.branch(xid)) for xid in xids]
    await bench.clean_up()
    return first, second, third


def _of_one(bench: Bench, at: int, before: int) -> Answer:
    """One coordinator never can say, the other one only when both were asked before."""
    return grpc.StatusCode.UNAVAILABLE if at == 0 or before < COORDINATORS else _answer(bench, _ROLLBACK)


def _answer(
    bench: Bench, state: transaction_pb2.DecisionState.ValueType, decided: Decided | None = None
) -> transaction_pb2.GetDecisionResponse:
    if state == _COMMIT and decided is None:
        raise DeviationError("a COMMIT names its sequence")
    if decided is None:
        return bench.asked.decision(state)
    return bench.asked.decision(state, incarnation=decided.incarnation, sequence=decided.sequence)
