"""The operator's hand: what is in doubt, driving it again, forcing one branch, forgetting (R12).

Nobody here decides a transaction. A branch is forced only where the log cannot tell its decision,
in this order: the operator's act and reason are durable in the log, the participant forces its
branch, the log keeps the heuristic end, the operator hears of it. Whatever fails in between
leaves at least as much written as was done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from coordinator import advice
from coordinator.admission import unknown_service
from coordinator.doubts import Doubts, InDoubtPage
from coordinator.engine import Engine
from coordinator.errors import (
    InvalidRequestError,
    OutcomeUnknownError,
    RefusedError,
    UnavailableError,
    WrongPhaseError,
)
from coordinator.heuristic_keeper import HeuristicKeeper
from coordinator.inquiries import Inquiries
from coordinator.log.decision_log import DecisionLog, LogUnavailableError, LogUncertainError, OperatorAction
from coordinator.open_heuristics import OpenHeuristics
from coordinator.protocol import heuristics
from coordinator.protocol.effects import HeuristicRecord
from coordinator.protocol.phases import FINISHED, Phase
from coordinator.redriving import Redriving
from participant_sdk.branch import BranchPhase
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch
from participant_sdk.resource_calls import CallFailedError, Resolved, ResourceCalls
from participant_sdk.xa import Ack, AckKind, Decision, DecisionState, Heuristic

REASON_MAX_CHARS: Final = 1_000
_FORCED: Final = {Decision.COMMIT: Heuristic.COMMIT, Decision.ROLLBACK: Heuristic.ROLLBACK}

_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Forced:
    """A branch that was forced, or, for a preview (``ack`` is None), would be."""

    branch: Branch | None
    ack: Ack | None
    advice: str


class Resolution:
    """What operators ask about single transactions and branches."""

    def __init__(
        self,
        engine: Engine,
        inquiries: Inquiries,
        log: DecisionLog,
        calls: Mapping[str, ResourceCalls],
        redriving: Redriving,
        doubts: Doubts,
        *,
        heuristics: HeuristicKeeper,
        open_heuristics: OpenHeuristics,
        on_forced: Callable[[Heuristic], None],
    ) -> None:
        self._engine = engine
        self._inquiries = inquiries
        self._log = log
        self._calls = calls
        self._redriving = redriving
        self._doubts = doubts
        self._heuristics = heuristics
        self._open_heuristics = open_heuristics
        self._on_forced = on_forced

    async def list_in_doubt(self, participant: str, token: str, limit: int) -> InDoubtPage:
        """Branches in doubt or ended by hand, of one participant or (empty) of all, oldest first.

        InvalidRequestError names ``participant``, ``page_token`` or ``page_size`` (1 to 1,000).
        """
        return await self._doubts.page(participant, token, limit)

    async def retry(self, xid: Xid) -> Phase:
        """Send a decided transaction's messages again, now, and tell its phase afterwards.

        UnknownTransactionError; WrongPhaseError (NOT_DECIDED); UnavailableError: the log cannot be read, or
        another coordinator owns it, which is named.
        """
        running = self._engine.find(xid)
        if running is not None:
            if running.transaction.decision is None:
                raise _undecided(xid, running.transaction.phase.name)
            await self._redriving.one(xid)
            return running.transaction.phase
        answer = await self._redriving.answer(xid)
        if answer.state is DecisionState.PENDING:
            raise _undecided(xid, "not decided yet")
        visits = await self._redriving.one(xid)
        is_commit = answer.state is DecisionState.COMMIT
        if any(visit.failed or visit.why_not for visit in visits):
            return Phase.COMMITTING if is_commit else Phase.ROLLING_BACK
        return Phase.COMMITTED if is_commit else Phase.ROLLED_BACK

    async def resolve(self, xid: Xid, participant: str, outcome: Decision, reason: str, *, preview: bool) -> Forced:
        """Force one branch in doubt, where the log cannot decide it (R12).

        Again with the same outcome it does nothing more. InvalidRequestError (``reason``, ``participant``),
        RefusedError (TRANSACTION_LIVE, ALREADY_FINISHED, DECISION_KNOWN, NOT_IN_DOUBT), UnavailableError (the log
        or the participant cannot be asked; nothing was forced), OutcomeUnknownError (it may be forced).
        """
        _check_reason(reason)
        calls = self._calls_of(participant)
        await self._check_undecidable(xid, participant, outcome)
        shown = await self._preview(calls, xid, participant, outcome, reason)
        is_forced = shown.phase is BranchPhase.HEURISTIC
        if preview:
            return Forced(shown, None, advice.of_preview(xid, participant, outcome))
        if not is_forced:
            await self._note_action(OperatorAction("RESOLVE", reason, xid, participant, outcome.name))
        forced = await self._force(calls, xid, participant, outcome, reason)
        return await self._report(xid, participant, outcome, reason, forced)

    async def forget(self, xid: Xid, reason: str) -> tuple[str, ...]:
        """Drop a transaction's heuristic ends that were dealt with; returns the participants concerned.

        Again it does nothing more. InvalidRequestError (``reason``), RefusedError (NOT_HEURISTIC,
        TRANSACTION_LIVE), UnavailableError (nothing was marked in the log).
        """
        _check_reason(reason)
        running = self._engine.find(xid)
        if running is not None and running.transaction.phase not in FINISHED:
            owed = ", ".join(running.transaction.branches.owed)
            raise RefusedError(
                f"transaction {xid} is still owed to {owed}, and its heuristic end may change: forget it afterwards",
                code="TRANSACTION_LIVE",
                xid=xid,
            )
        try:
            kept = await self._log.read_heuristics(xid)
            if not kept:
                raise RefusedError(f"transaction {xid} has no heuristic end to forget", code="NOT_HEURISTIC", xid=xid)
            for record in kept:
                await self._forget_at(xid, record.participant)
            await self._log.forget_heuristics(xid, reason)
        except (LogUnavailableError, LogUncertainError) as error:
            raise UnavailableError(
                f"transaction {xid}: the decision log cannot be had, so its heuristic end stays: {error}; send again",
                xid=xid,
            ) from error
        await self._open_heuristics.look()
        _LOG.warning("heuristic_forgotten", transaction_id=str(xid), reason=reason)
        return tuple(record.participant for record in kept)

    # Before it is forced.

    def _calls_of(self, participant: str) -> ResourceCalls:
        calls = self._calls.get(participant)
        if calls is None:
            raise unknown_service(participant, self._calls, field="participant")
        return calls

    async def _check_undecidable(self, xid: Xid, participant: str, outcome: Decision) -> None:
        """Refuse what is decided, or what somebody who lives will decide."""
        running = self._engine.find(xid)
        if running is not None:
            raise _refuse_held(xid, running.transaction.phase)
        try:
            answer = await self._redriving.read(xid)
            if answer.state is DecisionState.PENDING and self._engine.gave(xid):
                # Ours, and without a trace: the log is told ROLLBACK, and then it is known.
                state = (await self._inquiries.decision(xid)).state
            else:
                state = answer.state
        except UnavailableError as error:
            log_id = self._engine.incarnation.log_id
            raise UnavailableError(
                f"{error.message}. Nothing may be forced from here while the log cannot say what was decided; "
                f"{advice.at_participant(xid, participant, log_id, outcome)}",
                xid=xid,
            ) from error
        if state in (DecisionState.COMMIT, DecisionState.ROLLBACK):
            raise RefusedError(
                f"transaction {xid} is decided: {state.name}. {advice.of_in_doubt(xid, participant, state)}",
                code="DECISION_KNOWN",
                xid=xid,
            )
        owner = answer.owner
        if state is DecisionState.PENDING and owner is not None and not owner.fenced and not self._is_own(xid):
            raise RefusedError(
                f"transaction {xid} belongs to incarnation {owner.number} at {owner.address}, "
                "which lives and decides it",
                code="TRANSACTION_LIVE",
                xid=xid,
            )

    def _is_own(self, xid: Xid) -> bool:
        return xid.incarnation == self._engine.incarnation.number

    async def _preview(
        self, calls: ResourceCalls, xid: Xid, participant: str, outcome: Decision, reason: str
    ) -> Branch:
        """The branch that may be forced, or was forced to the same outcome. RefusedError NOT_IN_DOUBT for any other."""
        log_id = self._engine.incarnation.log_id
        try:
            branch = (await calls.resolve(log_id, xid, outcome, reason, preview=True)).branch
        except CallFailedError as error:
            raise UnavailableError(f"{participant} cannot be asked: {error}; nothing was forced", xid=xid) from error
        if branch is None:
            raise RefusedError(f"{participant} knows no branch of transaction {xid}", code="NOT_IN_DOUBT", xid=xid)
        is_same = branch.phase is BranchPhase.HEURISTIC and branch.heuristic is _FORCED[outcome]
        if branch.phase is not BranchPhase.PREPARED and not is_same:
            how = f" as {branch.heuristic.name}" if branch.heuristic is not None else ""
            raise RefusedError(
                f"the branch of transaction {xid} at {participant} is {branch.phase.name}{how}, and not in doubt",
                code="NOT_IN_DOUBT",
                xid=xid,
            )
        return branch

    async def _note_action(self, action: OperatorAction) -> None:
        try:
            await self._log.record_action(action)
        except (LogUnavailableError, LogUncertainError) as error:
            raise UnavailableError(
                f"the decision log did not take note of it, so nothing was forced: {error}", xid=action.xid
            ) from error

    # Forcing, and after.

    async def _force(
        self, calls: ResourceCalls, xid: Xid, participant: str, outcome: Decision, reason: str
    ) -> Resolved:
        log_id = self._engine.incarnation.log_id
        try:
            return await calls.resolve(log_id, xid, outcome, reason, preview=False)
        except CallFailedError as error:
            raise OutcomeUnknownError(
                f"whether {participant} forced its branch of transaction {xid} is not known ({error}): "
                f"{advice.look_at(xid, participant, log_id)}, or send the same again",
                xid=xid,
            ) from error

    async def _report(self, xid: Xid, participant: str, outcome: Decision, reason: str, forced: Resolved) -> Forced:
        """Keep the heuristic end before it is told; a branch that was ended by its decision meanwhile has none."""
        ack, heuristic = forced.ack, _FORCED[outcome]
        # A branch that has ended otherwise says so too, and the phase alone tells that from one forced before.
        is_forced = forced.branch is None or forced.branch.phase is BranchPhase.HEURISTIC
        if ack is None or not is_forced or heuristics.of_ack(ack.kind, Decision.ROLLBACK) is not heuristic:
            told = "nothing" if ack is None else ack.kind.name
            phase = "unknown" if forced.branch is None else forced.branch.phase.name
            raise RefusedError(
                f"{participant} did not force its branch of transaction {xid}, which is {phase} (it answered {told}); "
                f"{advice.look_at(xid, participant, self._engine.incarnation.log_id)}",
                code="NOT_IN_DOUBT",
                xid=xid,
            )
        record = HeuristicRecord(xid, participant, heuristic, reason)
        if self._heuristics.is_news(record):
            self._on_forced(heuristic)
        try:
            await self._log.record_heuristics([record])
        except (LogUnavailableError, LogUncertainError) as error:
            raise OutcomeUnknownError(
                f"{participant} forced its branch of transaction {xid} ({outcome.name}), but the decision log has not "
                f"kept that yet ({error}): send the same again",
                xid=xid,
            ) from error
        _LOG.error(
            "branch_forced",
            transaction_id=str(xid),
            participant=participant,
            heuristic=heuristic.name,
            reason=reason,
        )
        await self._open_heuristics.look()
        return Forced(forced.branch, ack, advice.of_heuristic(xid, heuristic))

    async def _forget_at(self, xid: Xid, participant: str) -> None:
        calls = self._calls.get(participant)
        if calls is None:
            # Whoever is not configured any more is not told anything any more either.
            _LOG.warning("heuristic_participant_unconfigured", transaction_id=str(xid), participant=participant)
            return
        try:
            ack = await calls.forget(self._engine.incarnation.log_id, xid)
        except CallFailedError as error:
            raise UnavailableError(
                f"{participant} cannot be told to forget its branch of transaction {xid} ({error}): nothing is marked "
                "as forgotten; send again once it is there",
                xid=xid,
            ) from error
        if ack.kind is AckKind.RETRY:
            raise UnavailableError(
                f"{participant} has not forgotten its branch of transaction {xid} ({ack.message}): nothing is marked "
                "as forgotten; send again in a while",
                xid=xid,
            )


def _undecided(xid: Xid, how: str) -> WrongPhaseError:
    return WrongPhaseError(f"transaction {xid} is {how}: there is nothing to send again", code="NOT_DECIDED", xid=xid)


def _refuse_held(xid: Xid, phase: Phase) -> RefusedError:
    if phase in FINISHED:
        return RefusedError(f"transaction {xid} is {phase.name} everywhere", code="ALREADY_FINISHED", xid=xid)
    return RefusedError(
        f"transaction {xid} is {phase.name}, and this coordinator drives it: "
        f"`pincex tx retry {xid}` once it is decided, `pincex tx rollback {xid}` before",
        code="TRANSACTION_LIVE",
        xid=xid,
    )


def _check_reason(reason: str) -> None:
    if not 1 <= len(reason.strip()) <= REASON_MAX_CHARS:
        raise InvalidRequestError(
            f"say why, in 1 to {REASON_MAX_CHARS} characters: the reason is kept for good", field="reason"
        )
