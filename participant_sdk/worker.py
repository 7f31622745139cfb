"""A participant's workers: everything from all sessions and calls, in natural batches.

Branches are dealt to workers so that one xid is never in two ``Work``s at once and the order of
its calls holds (see ``dealing``). Within one ``Work`` an xid appears once; its later calls wait for
the next. What the participant raises becomes answers that promise nothing: a transient "no", or
RETRY.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

import structlog

from participant_sdk.batching import QueueFullError
from participant_sdk.clock import Clock
from participant_sdk.dealing import BySide, ByXid, Dealing
from participant_sdk.ids import Xid
from participant_sdk.participant import Answers, Commit, Participant, Prepare, Rollback, Work
from participant_sdk.resources.admission import late, refusal
from participant_sdk.wire import BAD_RESULTS, results_fault
from participant_sdk.xa import RETRY, Ack, AckKind, Vote, XaCode, transient_no

VoteReply = Callable[[Xid, Vote], None]
AckReply = Callable[[Xid, Ack], None]

WORKERS_MAX: Final = 64
PARTICIPANT_FAILED: Final = "PARTICIPANT_FAILED"

_log: structlog.stdlib.BoundLogger = structlog.get_logger()


class _PrepareCall(NamedTuple):
    branch: Prepare
    reply: VoteReply
    is_end: bool = False

    @property
    def xid(self) -> Xid:
        return self.branch.xid


class _CommitCall(NamedTuple):
    branch: Commit
    reply: AckReply
    is_end: bool = True

    @property
    def xid(self) -> Xid:
        return self.branch.xid


class _RollbackCall(NamedTuple):
    branch: Rollback
    reply: AckReply
    is_end: bool = True

    @property
    def xid(self) -> Xid:
        return self.branch.xid


_Call = _PrepareCall | _CommitCall | _RollbackCall


@dataclass(slots=True)
class _Round:
    """One ``Work`` in the making, with whom to answer. Not frozen: it is filled call by call."""

    commits: list[_CommitCall] = field(default_factory=list[_CommitCall])
    rollbacks: list[_RollbackCall] = field(default_factory=list[_RollbackCall])
    prepares: list[_PrepareCall] = field(default_factory=list[_PrepareCall])

    def add(self, call: _Call) -> None:
        match call:
            case _PrepareCall():
                self.prepares.append(call)
            case _CommitCall():
                self.commits.append(call)
            case _RollbackCall():
                self.rollbacks.append(call)


class Workers:
    """The workers of one participant. ``run`` must run for anything to be answered.

    ``failures`` counts how often the participant raised, or answered out of shape.
    """

    def __init__(
        self,
        participant: Participant,
        *,
        clock: Clock,
        count: int = 2,
        batch_size: int = 512,
    ) -> None:
        if not 1 <= count <= WORKERS_MAX:
            raise ValueError(f"1 to {WORKERS_MAX} workers, not {count}")
        self.failures = 0
        self._last_failure = ""
        self._participant = participant
        self._clock = clock
        at_once = participant.prepares_at_once
        self._dealing: Dealing[_Call] = (
            BySide[_Call](self._prepare_alone, self._serve, count=count, cap=batch_size, prepares_at_once=at_once)
            if at_once
            else ByXid[_Call](self._serve, count=count, cap=batch_size)
        )

    @property
    def queued(self) -> int:
        """How many calls wait, of all workers."""
        return self._dealing.queued

    def prepare(self, branch: Prepare, reply: VoteReply) -> None:
        """Queue a Prepare; its vote goes to ``reply``. A full queue is a transient "no" at once."""
        try:
            self._dealing.put(_PrepareCall(branch, reply))
        except QueueFullError:
            reply(branch.xid, transient_no("PARTICIPANT_BUSY", f"{self._participant.name} has too much queued"))

    def commit(self, branch: Commit, reply: AckReply) -> None:
        """Queue a Commit; its acknowledgement goes to ``reply``. A full queue is RETRY at once."""
        self._put_ending(_CommitCall(branch, reply))

    def rollback(self, branch: Rollback, reply: AckReply) -> None:
        """Queue a Rollback; its acknowledgement goes to ``reply``. A full queue is RETRY at once."""
        self._put_ending(_RollbackCall(branch, reply))

    async def run(self) -> None:
        """Work until cancelled; what is under way then stays with the participant's own promises."""
        await self._dealing.run()

    def _put_ending(self, call: _CommitCall | _RollbackCall) -> None:
        try:
            self._dealing.put(call)
        except QueueFullError:
            call.reply(call.branch.xid, RETRY)

    async def _serve(self, calls: list[_Call]) -> None:
        """Serve one batch: in one ``Work``, or in several where an xid appears more than once."""
        while calls:
            round_ = _Round()
            # Only tested for membership, never iterated.
            taken: set[Xid] = set()
            left: list[_Call] = []
            for call in calls:
                if call.branch.xid in taken:
                    left.append(call)
                else:
                    taken.add(call.branch.xid)
                    round_.add(call)
            await self._do(round_)
            calls = left

    async def _do(self, round_: _Round) -> None:
        (await self._worked(round_))()

    async def _prepare_alone(self, call: _Call) -> Callable[[], None]:
        """Serve one Prepare; its vote leaves when what is returned is called."""
        round_ = _Round()
        round_.add(call)
        return await self._worked(round_)

    async def _worked(self, round_: _Round) -> Callable[[], None]:
        """Have a round's work done; its answers leave when what is returned is called."""
        prepares = self._admit(round_.prepares)
        work = Work(
            tuple([call.branch for call in round_.commits]),
            tuple([call.branch for call in round_.rollbacks]),
            tuple([call.branch for call in prepares]),
        )
        if not (work.commits or work.rollbacks or work.prepares):
            return _nothing
        answers = await self._apply(work)
        return partial(self._answer, round_, prepares, answers)

    def _answer(self, round_: _Round, prepares: Sequence[_PrepareCall], answers: Answers) -> None:
        for call, ack in zip(round_.commits, answers.commits, strict=True):
            call.reply(call.branch.xid, ack)
        for call, ack in zip(round_.rollbacks, answers.rollbacks, strict=True):
            call.reply(call.branch.xid, ack)
        now_s = self._clock.monotonic_s()
        for call, vote in zip(prepares, answers.prepares, strict=True):
            call.reply(call.branch.xid, self._final(call.branch, vote, now_s))

    def _admit(self, calls: Sequence[_PrepareCall]) -> list[_PrepareCall]:
        """Answer those that came too late or are too old, without running them (R10, R16)."""
        now_s, unix_ms = self._clock.monotonic_s(), self._clock.unix_ms()
        admitted: list[_PrepareCall] = []
        for call in calls:
            refused = refusal(call.branch, now_s=now_s, unix_ms=unix_ms)
            if refused is None:
                admitted.append(call)
            else:
                call.reply(call.branch.xid, refused)
        return admitted

    def _final(self, branch: Prepare, vote: Vote, now_s: float) -> Vote:
        """The vote that leaves: a yes that is late does not (R16), nor one whose results nobody could keep.

        The branch is left as it is, not rolled back here: an earlier Prepare of it may have had
        its yes sent already. A transient "no" is always followed by Rollback, or by our inquiry.
        """
        fault = results_fault(vote)
        if not vote.is_yes:
            # A "no" binds without its results as well.
            return vote._replace(results=()) if fault else vote
        if now_s >= branch.deadline_s:
            return late(branch)
        return self._bad_results(branch, fault) if fault else vote

    def _bad_results(self, branch: Prepare, fault: str) -> Vote:
        """Count and log it, for the service's author alone can mend it."""
        self.failures += 1
        _log.error(
            "participant_bad_results", transaction_id=str(branch.xid), participant=self._participant.name, fault=fault
        )
        return transient_no(BAD_RESULTS, f"{self._participant.name}: {fault}", xa_code=XaCode.XAER_RMERR)

    async def _apply(self, work: Work) -> Answers:
        """Apply a batch; if it fails, its ending half again alone, and its prepares by halves (R17)."""
        answers = await self._attempt(work)
        if answers is not None:
            return answers
        if not work.prepares:
            return Answers([self._retry] * len(work.commits), [self._retry] * len(work.rollbacks))
        if not (work.commits or work.rollbacks):
            return Answers(prepares=await self._search(work.prepares))
        endings = await self._apply(Work(work.commits, work.rollbacks))
        prepares = (await self._apply(Work(prepares=work.prepares))).prepares
        return Answers(endings.commits, endings.rollbacks, prepares)

    async def _search(self, failed: Sequence[Prepare]) -> list[Vote]:
        """Find the one bad branch among prepares that failed together, so that it alone gets the "no".

        Where both halves fail, it is not one branch that is bad, and all get a transient "no": a
        database that is down costs three attempts, not one for each branch.
        """
        no = transient_no(PARTICIPANT_FAILED, f"{self._participant.name} failed to prepare", xa_code=XaCode.XAER_RMERR)
        before: list[Vote] = []
        after: list[Vote] = []
        while len(failed) > 1:
            left, right = failed[: len(failed) // 2], failed[len(failed) // 2 :]
            left_answers = await self._attempt(Work(prepares=left))
            right_answers = await self._attempt(Work(prepares=right))
            if right_answers is not None:
                after = [*right_answers.prepares, *after]
                failed = left
            if left_answers is not None:
                before += left_answers.prepares
                failed = right
            if left_answers is None and right_answers is None:
                break
            if left_answers is not None and right_answers is not None:
                return before + after
        return [*before, *([no] * len(failed)), *after]

    async def _attempt(self, work: Work) -> Answers | None:
        """Apply a batch; None if the participant raised, or its answers are not one for each branch."""
        try:
            answers = await self._participant.apply(work)
        except Exception as error:  # noqa: BLE001 - the worker must live
            # The worker must live whatever a service's own code raises. Nothing is promised by
            # it: every branch of the batch gets an answer that leaves its outcome open.
            self._note_failure(error)
            return None
        if _shape(answers) != (len(work.commits), len(work.rollbacks), len(work.prepares)):
            self.failures += 1
            _log.error("participant_answered_out_of_shape", participant=self._participant.name, shape=_shape(answers))
            return None
        return answers

    def _note_failure(self, error: Exception) -> None:
        """Count and log; the traceback once, for a database that is down fails every batch alike."""
        self.failures += 1
        words = repr(error)
        is_new = words != self._last_failure
        self._last_failure = words
        _log.error(
            "participant_failed", participant=self._participant.name, error=words, exc_info=error if is_new else None
        )

    @property
    def _retry(self) -> Ack:
        return Ack(AckKind.RETRY, XaCode.RETRY, f"{self._participant.name} failed; send again")


def _nothing() -> None:
    """There is nothing to answer."""


def _shape(answers: Answers) -> tuple[int, int, int]:
    return len(answers.commits), len(answers.rollbacks), len(answers.prepares)
