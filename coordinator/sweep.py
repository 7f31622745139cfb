"""The sweep of one participant: its branches in doubt are told what was decided, and nothing is guessed (R18).

Only branches of this log, and only those whose decision is COMMIT or ROLLBACK by R7, are told
anything. Left alone, and said clearly, are branches of another log, of xids that nobody gave
out, of transactions that the log has forgotten, and of those that are not decided yet.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import structlog

from coordinator import advice
from coordinator.awaited import Round
from coordinator.engine import Engine
from coordinator.errors import TransactionError
from coordinator.heuristic_keeper import HeuristicKeeper
from coordinator.inquiries import Inquiries
from coordinator.log.decision_log import DecisionLog, LogUnavailableError
from coordinator.protocol.effects import HeuristicRecord
from coordinator.protocol.phases import FINISHED
from coordinator.running import Running
from participant_sdk.branch import BranchPhase
from participant_sdk.decisions import DecisionAnswer
from participant_sdk.ids import Xid
from participant_sdk.link import Link
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.resource_calls import Listing, ResourceCalls
from participant_sdk.xa import Decision, DecisionState, Heuristic

PAGE_SIZE: Final = 500
# Of those left alone, so many are kept to be shown.
SHOWN_MAX: Final = 100
# So many ends by hand are remembered as told to the log; one that was forgotten here is only told again.
TOLD_MAX: Final = 10_000

_LOG: Final = structlog.get_logger(__name__)


class LeftAlone(Enum):
    """Why a branch in doubt was told nothing, and will not be by itself."""

    OTHER_LOG = "other_log"
    INVENTED = "invented"
    FORGOTTEN = "forgotten"


@dataclass(slots=True)
class Swept:
    """What was found at one participant. It grows while the sweep runs, so that one cut short tells something.

    ``waiting``: branches whose decision is not made, or not to be had. ``stuck``: some of those left alone.
    """

    scanned: int = 0
    waiting: int = 0
    oldest_unix_ms: int = 0
    left_alone: Counter[LeftAlone] = field(default_factory=Counter[LeftAlone])
    stuck: list[tuple[Xid, LeftAlone]] = field(default_factory=list[tuple[Xid, LeftAlone]])

    @property
    def in_doubt(self) -> int:
        """Branches of this log that stay in doubt."""
        return self.waiting + self.left_alone[LeftAlone.INVENTED] + self.left_alone[LeftAlone.FORGOTTEN]

    def leave(self, branch: Branch, why: LeftAlone) -> None:
        """Count a branch that is left alone."""
        self.left_alone[why] += 1
        if len(self.stuck) < SHOWN_MAX and why is not LeftAlone.OTHER_LOG:
            self.stuck.append((branch.xid, why))


class Sweep:
    """Sweeps participants, one page at a time. Whatever a participant reports, it raises only CallFailedError."""

    def __init__(self, engine: Engine, inquiries: Inquiries, log: DecisionLog, heuristics: HeuristicKeeper) -> None:
        self._engine = engine
        self._inquiries = inquiries
        self._log = log
        self._heuristics = heuristics
        # Ends by hand that the log was told of: each is reported once, not in every sweep.
        self._told: dict[tuple[Xid, str], None] = {}
        self._told_generation = log.generation

    async def walk(self, link: Link, calls: ResourceCalls, swept: Swept, round_: Round) -> None:
        """Page through a participant's branches in doubt, and tell them what is decided. CallFailedError ends it."""
        listing = Listing(calls, RecoverQuery(self._engine.incarnation.log_id, limit=PAGE_SIZE))
        while not listing.is_over:
            await self.settle(link, await listing.page(), swept, round_)
        if swept.left_alone:
            _LOG.error(
                "branches_left_alone",
                participant=link.name,
                **{why.value: count for why, count in swept.left_alone.items()},
                transaction_ids=[str(xid) for xid, _ in swept.stuck[:10]],
            )

    async def settle(self, link: Link, branches: Sequence[Branch], swept: Swept, round_: Round) -> None:
        """Tell these branches what is decided, where they are in doubt and it is."""
        swept.scanned += len(branches)
        self._keep_heuristics(link.name, branches)
        doubtful = [branch for branch in branches if branch.phase is BranchPhase.PREPARED]
        asked = [branch for branch in doubtful if self._is_to_be_asked(link.name, branch, swept, round_)]
        # Together, so that the log reads them in batches.
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(self._ask(branch)) for branch in asked]
        answers = [task.result() for task in asking]
        unknown = await self._unknown(asked, answers)
        for branch, answer in zip(asked, answers, strict=True):
            if branch.xid.incarnation in unknown:
                swept.leave(branch, LeftAlone.INVENTED)
            else:
                self._tell(link, branch, answer, swept, round_)

    def _is_to_be_asked(self, participant: str, branch: Branch, swept: Swept, round_: Round) -> bool:
        """Whether the log is to be asked; not of another's branch, an invented one, or one that the engine drives."""
        if not self._is_ours(branch):
            swept.leave(branch, LeftAlone.OTHER_LOG)
            return False
        _note_age(branch, swept)
        running = self._engine.find(branch.xid)
        if running is not None and running.transaction.phase not in FINISHED:
            self._leave_to_engine(running, participant, swept, round_)
            return False
        if branch.xid.incarnation == self._engine.incarnation.number and not self._engine.gave(branch.xid):
            swept.leave(branch, LeftAlone.INVENTED)
            return False
        return True

    def _leave_to_engine(self, running: Running, participant: str, swept: Swept, round_: Round) -> None:
        """A running transaction's branch: it waits, unless the outcome is certain and only to be told."""
        decision = running.transaction.decision
        if decision is None:
            swept.waiting += 1
        elif participant in running.transaction.branches.owed:
            round_.told(running.transaction.xid, decision)
            self._engine.resending.one(running, participant)

    async def _ask(self, branch: Branch) -> DecisionAnswer | None:
        """What became of a branch's transaction, as the participant itself would hear; None where that failed."""
        try:
            return await self._inquiries.decision(branch.xid, branch.participants)
        except TransactionError:
            return None

    async def _unknown(self, asked: Sequence[Branch], answers: Sequence[DecisionAnswer | None]) -> frozenset[int]:
        """The incarnations above our own, named by undecided branches, that the log has never drawn."""
        later = {
            branch.xid.incarnation: None
            for branch, answer in zip(asked, answers, strict=True)
            if answer is not None
            and answer.state is DecisionState.PENDING
            and branch.xid.incarnation > self._engine.incarnation.number
        }
        if not later:
            return frozenset()
        try:
            return frozenset(later) - frozenset(await self._log.read_sequences(list(later)))
        except LogUnavailableError:
            return frozenset()

    def _tell(self, link: Link, branch: Branch, answer: DecisionAnswer | None, swept: Swept, round_: Round) -> None:
        match None if answer is None else answer.state:
            case None | DecisionState.PENDING:
                swept.waiting += 1
            case DecisionState.FORGOTTEN:
                swept.leave(branch, LeftAlone.FORGOTTEN)
            case DecisionState.ROLLBACK:
                round_.told(branch.xid, Decision.ROLLBACK)
                link.rollback(branch.xid)
            case DecisionState.COMMIT if answer is not None:
                round_.told(branch.xid, Decision.COMMIT)
                link.commit(branch.xid, answer.incarnation, answer.sequence)
            case DecisionState.COMMIT:
                raise AssertionError("a decision without an answer")

    def _keep_heuristics(self, participant: str, branches: Sequence[Branch]) -> None:
        """Have the log know of ends by hand, such as those forced at the participant itself (R12)."""
        if self._told_generation != self._log.generation:
            # The log may have been restored from a copy in which they are not (R15).
            self._told_generation = self._log.generation
            self._told.clear()
        for branch in branches:
            key = (branch.xid, participant)
            if branch.phase is not BranchPhase.HEURISTIC or key in self._told or not self._is_ours(branch):
                continue
            heuristic = branch.heuristic or Heuristic.HAZARD
            self._heuristics.put([HeuristicRecord(branch.xid, participant, heuristic, branch.reason)])
            self._told[key] = None
            if len(self._told) > TOLD_MAX:
                del self._told[next(iter(self._told))]

    def _is_ours(self, branch: Branch) -> bool:
        return branch.log_id == self._engine.incarnation.log_id


def advice_on(xid: Xid, participant: str, why: LeftAlone) -> str:
    """What to do about a branch that was left alone."""
    if why is LeftAlone.INVENTED:
        return (
            f"No coordinator of this log gave out this xid: {participant} shows a branch that does not belong here. "
            "Find out who prepared it there; it is never ended from here."
        )
    return advice.of_in_doubt(xid, participant, DecisionState.FORGOTTEN)


def _note_age(branch: Branch, swept: Swept) -> None:
    since_unix_ms = branch.prepared_unix_ms or branch.xid.unix_ms
    swept.oldest_unix_ms = min(swept.oldest_unix_ms or since_unix_ms, since_unix_ms)
