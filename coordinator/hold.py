"""HOLD, and the way out of it (R15): an operator's calls.

HOLD ends every live incarnation, and the one that begins it: that process restarts. Whoever is drawn next
speaks for a new epoch, so nothing that an older coordinator still says is believed. There the release happens:

1. Every participant is introduced to this incarnation, and durably adopts its epoch before it reports.
2. Every participant lists what it has in doubt and what it committed above the log's sequences, to the last page.
3. It is introduced once more: nothing may have been applied meanwhile.
4. What was committed becomes a row of the log again, with its binding; the sequences rise to those reported.
5. The other branches in doubt need no row. Once HOLD is over and everybody has reported, they are presumed
   ROLLBACK as any other (R7). Every coordinator sees that HOLD is over, and asks for the reports again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

import structlog

from coordinator.errors import InvalidRequestError, RefusedError, UnavailableError
from coordinator.log.decision_log import (
    DecisionLog,
    Incarnation,
    LogUnavailableError,
    LogUncertainError,
    OperatorAction,
    Release,
    ReleaseRefusedError,
    Standing,
)
from coordinator.protocol.effects import StoredDecision
from coordinator.restoration import Findings, Lost, Polled, binding_conflict, find, raised
from participant_sdk.clock import Clock
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.participant import Branch, RecoverQuery
from participant_sdk.resource_calls import CallFailedError, Listing, ResourceCalls

REASON_MAX_CHARS: Final = 1_000
PAGE: Final = 1_000
# What one participant may list: more is no poll any more.
BRANCHES_MAX: Final = 1_000_000

Told = TypeVar("Told")

_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """What the end of HOLD restores, by xid, and what it leaves to be presumed.

    ``rollbacks_presumed`` counts branches in doubt without a decision, ``sequences_raised`` incarnations.
    """

    commits: tuple[StoredDecision, ...]
    rollbacks_presumed: int
    sequences_raised: int


class Holding:
    """Begins and ends HOLD. Both raise InvalidRequestError (no reason), RefusedError and UnavailableError."""

    def __init__(
        self,
        log: DecisionLog,
        incarnation: Incarnation,
        calls: Mapping[str, ResourceCalls],
        introduction: Callable[[], Introduction],
        *,
        clock: Clock,
    ) -> None:
        self._log = log
        self._incarnation = incarnation
        self._calls = calls
        self._introduction = introduction
        self._clock = clock

    async def hold(self, reason: str) -> Standing:
        """Put the log in HOLD. It fences every coordinator, this one too; a log that is held keeps its first reason."""
        _check_reason(reason)
        try:
            before = await self._log.standing()
            await self._log.record_action(OperatorAction("HOLD", reason))
            await self._log.hold(reason)
        except LogUnavailableError as error:
            raise UnavailableError(f"the decision log cannot be written, so it is not held: {error}") from error
        except LogUncertainError as error:
            raise UnavailableError(
                f"whether the log is in HOLD is not known: its answer was lost ({error}); look at the recovery status"
            ) from error
        _LOG.critical("hold_begun", reason=reason)
        try:
            return await self._log.standing()
        except LogUnavailableError:
            # This incarnation has just been ended, and may be gone before it can read once more.
            return (
                before if before.is_held else Standing(self._clock.unix_ms(), reason, before.pruned_below_unix_ms, ())
            )

    async def release(self, reason: str, *, preview: bool) -> ReleasePlan:
        """End HOLD, with all that participants had committed restored; or only show what that would be.

        RefusedError, with nothing changed: NOT_HELD, PARTICIPANTS_MISSING (one did not answer, or is not
        configured), STILL_APPLYING, BRANCHES_DISAGREE, BINDING_CONFLICT, RELEASE_REFUSED (by the log).
        """
        _check_reason(reason)
        try:
            return await self._release(reason, preview=preview)
        except LogUnavailableError as error:
            raise UnavailableError(f"the decision log cannot be reached, and nothing was released: {error}") from error

    async def _release(self, reason: str, *, preview: bool) -> ReleasePlan:
        standing = await self._check_standing()
        findings = await self._poll(standing)
        restored = await self._rows(findings.lost)
        await self._check_bindings(restored)
        plan = ReleasePlan(restored, findings.undecided, len(findings.sequences))
        if not preview:
            await self._end(Release(restored, findings.sequences, reason))
            _LOG.warning(
                "hold_released",
                reason=reason,
                commits_restored=len(restored),
                rollbacks_presumed=plan.rollbacks_presumed,
                sequences=dict(findings.sequences),
            )
        return plan

    async def _check_standing(self) -> Standing:
        standing = await self._log.standing()
        if not standing.is_held:
            raise RefusedError("the log is not in HOLD: there is nothing to release", code="NOT_HELD")
        if self._incarnation.number not in [live.number for live in standing.live]:
            raise UnavailableError(
                f"incarnation {self._incarnation.number} was ended by HOLD and restarts now; send the release again"
            )
        return standing

    async def _poll(self, standing: Standing) -> Findings:
        """Ask every participant for all that it holds."""
        welcomes = await self._each(self._calls, self._greet)
        sequences = await self._log.read_sequences(_numbers(welcomes.values()))
        branches = await self._each(self._calls, lambda name: self._list(name, sequences))
        polled = [Polled(name, welcome.watermarks, branches[name]) for name, welcome in welcomes.items()]
        again = await self._each(self._calls, self._greet)
        moved = [Polled(name, welcome.watermarks, ()) for name, welcome in again.items()]
        # What this coordinator redid meanwhile is in the log, and so below its sequences.
        now = await self._log.read_sequences(_numbers(again.values()))
        if raised(moved, now) != raised(polled, sequences):
            raise RefusedError(
                "a participant applied a commit of an older coordinator while it was polled; release again",
                code="STILL_APPLYING",
            )
        known = await self._known(sorted({branch.xid for each in polled for branch in each.branches}))
        return find(polled, sequences, known, standing.pruned_below_unix_ms)

    async def _greet(self, name: str) -> Welcome:
        welcome = await self._calls[name].hello(self._introduction())
        if welcome.refusal:
            raise CallFailedError(f"it refuses us: {welcome.refusal}")
        if welcome.participant != name:
            raise CallFailedError(f"the participant at this address is {welcome.participant[:64]!r}")
        if welcome.epoch != self._incarnation.epoch:
            raise CallFailedError(f"it holds epoch {welcome.epoch}, and we speak for {self._incarnation.epoch}")
        return welcome

    async def _list(self, name: str, above: Mapping[int, int]) -> Sequence[Branch]:
        """All that is in doubt or heuristic, and what was committed above these sequences."""
        log_id = self._incarnation.log_id
        branches: list[Branch] = []
        last: Xid | None = None
        listing = Listing(self._calls[name], RecoverQuery(log_id, True, above, limit=PAGE))
        while not listing.is_over:
            page = await listing.page()
            for branch in page:
                if last is not None and branch.xid <= last:
                    raise CallFailedError("it lists branches in no order")
                last = branch.xid
            # Another log's branches are none of ours (R18).
            branches += [branch for branch in page if branch.log_id == log_id]
            if len(branches) > BRANCHES_MAX:
                raise CallFailedError(f"it lists more than {BRANCHES_MAX} branches")
        return branches

    async def _known(self, xids: Sequence[Xid]) -> Mapping[Xid, StoredDecision]:
        known: dict[Xid, StoredDecision] = {}
        for first in range(0, len(xids), PAGE):
            known.update((await self._log.read(xids[first : first + PAGE])).decisions)
        return known

    async def _rows(self, lost: Sequence[Lost]) -> tuple[StoredDecision, ...]:
        """The rows to restore; who holds no branch of one in doubt or committed is asked how it voted."""
        asked = sorted({name for each in lost for name in each.others})

        async def ask(name: str) -> dict[Xid, Branch]:
            found: dict[Xid, Branch] = {}
            for each in lost:
                if name in each.others:
                    branch = await self._calls[name].branch(self._incarnation.log_id, each.xid)
                    if branch is not None:
                        found[each.xid] = branch
            return found

        others = await self._each(asked, ask)
        now_unix_ms = self._clock.unix_ms()
        return tuple(
            each.row({name: others[name][each.xid] for name in each.others if each.xid in others[name]}, now_unix_ms)
            for each in lost
        )

    async def _check_bindings(self, restored: Sequence[StoredDecision]) -> None:
        requests = {stored.record.request: stored.record.xid for stored in restored if stored.record.request}
        asked = list(requests)
        for first in range(0, len(asked), PAGE):
            bound = await self._log.read_requests(asked[first : first + PAGE])
            for request, row in bound.items():
                raise binding_conflict(requests[request], request.name, row.record.xid)

    async def _end(self, release: Release) -> None:
        try:
            await self._log.release(self._incarnation, release)
        except ReleaseRefusedError as error:
            raise RefusedError(f"the log refused, and nothing was changed: {error}", code="RELEASE_REFUSED") from error
        except LogUncertainError as error:
            raise UnavailableError(
                f"whether HOLD is over is not known: the log's answer was lost ({error}); look at the recovery status"
            ) from error

    async def _each(self, names: Iterable[str], ask: Callable[[str], Awaitable[Told]]) -> dict[str, Told]:
        """Ask participants at the same time. RefusedError with everybody who did not answer, and why."""
        told: dict[str, Told] = {}
        failed: dict[str, str] = {}

        async def one(name: str) -> None:
            try:
                told[name] = await ask(name)
            except CallFailedError as error:
                failed[name] = str(error)

        names = list(names)
        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(one(name))
        if failed:
            _refuse_missing(failed)
        return {name: told[name] for name in names}


def _numbers(welcomes: Iterable[Welcome]) -> list[int]:
    """Every incarnation of which something was applied."""
    return sorted({number for welcome in welcomes for number in welcome.watermarks})


def _refuse_missing(failed: Mapping[str, str]) -> NoReturn:
    told = "; ".join(f"{name}: {why}" for name, why in sorted(failed.items()))
    raise RefusedError(
        f"every participant must answer before HOLD ends, for it may have committed what the log lost. {told}",
        code="PARTICIPANTS_MISSING",
    )


def _check_reason(reason: str) -> None:
    if not 1 <= len(reason.strip()) <= REASON_MAX_CHARS:
        raise InvalidRequestError(f"a reason is required, 1 to {REASON_MAX_CHARS} characters", field="reason")
