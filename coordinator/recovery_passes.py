"""Recovery passes: what runs at start, every ``recovery_interval``, after another's end, and on request.

A pass looks for what nobody drives by itself and brings it on. It decides nothing: it sends again
what was decided, and asks the log about the rest (R7). So a second pass changes nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Never

import structlog

from coordinator import advice
from coordinator.admission import unknown_service
from coordinator.engine import Engine
from coordinator.errors import InvalidRequestError, RefusedError, UnavailableError
from coordinator.incarnation import IncarnationLife
from coordinator.log.decision_log import DecisionLog, LogUnavailableError, LogUncertainError
from coordinator.log.reported import Reported
from coordinator.passes import Attention, InDoubtAt, ParticipantStatus, Pass, PassSettings, RecoveryStatus, Scope
from coordinator.recovery import Recovery
from coordinator.redriving import Redriving
from coordinator.running import Running
from coordinator.sweep import advice_on
from coordinator.visits import Visit, Visits
from coordinator.workflows.workflows import Workflows
from participant_sdk.clock import Clock
from participant_sdk.ids import Xid
from participant_sdk.link import Link

ATTENTION_SHOWN_MAX: Final = 100
# Requests that may wait for a pass that runs.
WAITING_MAX: Final = 16
# The first pass waits for the participants, but no longer.
START_WITHIN_S: Final = 5.0
PRUNE_LIMIT: Final = 1_000
PRUNE_ROUNDS_MAX: Final = 100
# Of a pass's time, so much is kept for pruning.
HOUSE_SHARE: Final = 0.1

_LOG: Final = structlog.get_logger(__name__)


class RecoveryPasses:
    """Runs passes, one at a time, and owns them. ``run`` must run for anything to happen.

    ``on_ended`` is told of each pass; it must not block.
    """

    def __init__(
        self,
        engine: Engine,
        log: DecisionLog,
        life: IncarnationLife,
        recovery: Recovery,
        *,
        workflows: Workflows,
        links: Mapping[str, Link],
        visits: Visits,
        redriving: Redriving,
        reported: Reported,
        settings: PassSettings,
        clock: Clock,
        on_ended: Callable[[Pass], None],
    ) -> None:
        self._engine = engine
        self._log = log
        self._life = life
        self._recovery = recovery
        self._workflows = workflows
        self._links = links
        self._visits = visits
        self._redriving = redriving
        self._reported = reported
        self._settings = settings
        self._clock = clock
        self._on_ended = on_ended
        self._turn = asyncio.Lock()
        # Passes that were asked for and have not ended.
        self._asked = 0
        # Owns the passes that were asked for, while ``run`` runs.
        self._tasks: asyncio.TaskGroup | None = None
        self._all_reported = asyncio.Event()
        self._last: Pass | None = None
        self._current: _Run | None = None
        self._next_unix_ms = 0
        # What the last sweep of each participant found.
        self._found: dict[str, Visit] = {}
        reported.whenever_reported(self._note_report)

    async def trigger(self, scope: Scope, *, xid: Xid | None = None, participant: str = "") -> Pass:
        """Run a pass now, after one that runs already, and tell what it did.

        InvalidRequestError (``xid`` or ``participant`` missing or unknown to the configuration),
        UnknownTransactionError, UnavailableError (the log cannot be read, or another coordinator owns the
        transaction: it is named; or this coordinator stops), RefusedError PASS_RUNNING (too many wait already).
        A cancelled caller leaves its pass to go on; the status tells of it.
        """
        work = self._work_of(scope, xid, participant)
        if self._tasks is None:
            raise UnavailableError("this coordinator has stopped; ask another one")
        if self._asked > WAITING_MAX:
            raise RefusedError(
                f"a pass runs and {self._asked - 1} wait for it: their results are in the status", code="PASS_RUNNING"
            )
        self._asked += 1
        told: asyncio.Future[Pass] = asyncio.get_running_loop().create_future()
        task = self._tasks.create_task(self._pass_for(told, scope, work))
        task.add_done_callback(lambda _: self._end_asked(told))
        return await told

    def status(self) -> RecoveryStatus:
        """One look at everything."""
        owed = self._engine.resending.owed()
        stuck = self._stuck()
        return RecoveryStatus(
            self._last,
            self._current.so_far() if self._current is not None else None,
            self._next_unix_ms,
            self._life.standing,
            tuple(self._status_of(name, owed[name]) for name in sorted(self._links)),
            tuple(heapq.nsmallest(ATTENTION_SHOWN_MAX, stuck, key=lambda each: each.xid)),
            len(stuck),
            self.log_problem,
        )

    @property
    def log_problem(self) -> str:
        """What the log refuses until somebody mends it; empty where nothing is known of that kind."""
        return self._log.problem

    @property
    def held(self) -> str:
        """Why the log is in HOLD, as far as was seen; empty when it is not."""
        standing = self._life.standing
        return standing.held_reason if standing is not None and standing.is_held else ""

    @property
    def attention_count(self) -> int:
        """Transactions that need an operator."""
        return len(self._engine.attention) + sum(len(visit.swept.stuck) for visit in self._found.values())

    def in_doubt(self, participant: str) -> InDoubtAt:
        """What the last sweep of a participant left in doubt there."""
        visit = self._found.get(participant)
        if visit is None or not visit.in_doubt:
            return InDoubtAt(0, 0)
        return InDoubtAt(visit.in_doubt, max(0, self._clock.unix_ms() - visit.swept.oldest_unix_ms))

    async def run(self) -> Never:
        """Run what is asked for, and where enabled a pass at start, every interval and after another's end."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                if self._settings.is_enabled:
                    await self._run_by_themselves()
                await asyncio.Event().wait()
            finally:
                self._tasks = None
        raise AssertionError("it runs until it is cancelled")

    async def _run_by_themselves(self) -> Never:
        try:
            async with asyncio.timeout(START_WITHIN_S):
                await self._all_reported.wait()
        except TimeoutError:
            _LOG.warning("recovery_begins_without_reports", participants=list(self._reported.missing()))
        while True:
            self._next_unix_ms = self._clock.unix_ms() + round(self._settings.interval_s * 1000)
            self._life.left_behind.clear()
            await self._pass(Scope.GLOBAL, self._everything)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, (self._next_unix_ms - self._clock.unix_ms()) / 1000)):
                    # Those in doubt of a dead coordinator's transactions need not wait until they ask.
                    await self._life.left_behind.wait()

    def _note_report(self) -> None:
        """Before a participant reported, nothing is presumed of its transactions (R15): the first pass waits."""
        if self._reported.is_complete:
            self._all_reported.set()

    # One pass.

    def _work_of(self, scope: Scope, xid: Xid | None, participant: str) -> _Work:
        """What a pass does. InvalidRequestError."""
        match scope:
            case Scope.TRANSACTION:
                if xid is None:
                    raise InvalidRequestError("a pass over one transaction needs its xid", field="xid")
                return lambda run: self._one(run, xid)
            case Scope.PARTICIPANT:
                if participant not in self._links:
                    raise unknown_service(participant, self._links, field="participant")
                return lambda run: self._visit(run, [participant])
            case Scope.ORPHANS:
                return lambda run: self._visit(run, list(self._links), orphans_only=True)
            case Scope.WORKFLOWS:
                return self._workflows_alone
            case Scope.GLOBAL:
                return self._everything

    async def _pass_for(self, told: asyncio.Future[Pass], scope: Scope, work: _Work) -> None:
        """Run a pass that was asked for, and tell how it ended; it never raises, for others are in the same group."""
        try:
            ended = await self._pass(scope, work)
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            # Nothing but this pass is lost by it; the next one looks at everything again.
            _LOG.warning("recovery_pass_failed", scope=scope.name, reason=str(error))
            if not told.done():
                told.set_exception(error)
        else:
            if not told.done():
                told.set_result(ended)

    def _end_asked(self, told: asyncio.Future[Pass]) -> None:
        self._asked -= 1
        if not told.done():
            told.set_exception(UnavailableError("this coordinator stopped before the pass had ended; ask another one"))

    async def _pass(self, scope: Scope, work: _Work) -> Pass:
        async with self._turn:
            run = self._current = _Run(scope, self._clock.unix_ms())
            try:
                await work(run)
            finally:
                self._current = None
                if scope is not Scope.TRANSACTION:
                    self._found.update((visit.participant, visit) for visit in run.visits if not visit.why_not)
            ended = self._last = run.so_far(self._clock.unix_ms())
            self._tell(ended)
            return ended

    async def _everything(self, run: _Run) -> None:
        end_s = asyncio.get_running_loop().time() + self._settings.within_s
        # Participants that use up their time, pass after pass, must not keep the log from being pruned.
        visited_by_s = end_s - HOUSE_SHARE * self._settings.within_s
        await self._ask_log(self._take_over(run), run, visited_by_s)
        # Before participants are visited, which may take its time: nobody else goes on with them.
        await self._ask_log(self._resume(run), run, visited_by_s)
        await self._visit(run, list(self._links), deadline_s=visited_by_s)
        await self._ask_log(self._keep_house(), run, end_s)

    async def _workflows_alone(self, run: _Run) -> None:
        deadline_s = asyncio.get_running_loop().time() + self._settings.within_s
        await self._ask_log(self._take_over(run), run, deadline_s)
        await self._ask_log(self._resume(run), run, deadline_s)

    async def _one(self, run: _Run, xid: Xid) -> None:
        run.visits = await self._redriving.one(xid)

    async def _visit(
        self, run: _Run, names: Sequence[str], *, orphans_only: bool = False, deadline_s: float = math.inf
    ) -> None:
        now_s = asyncio.get_running_loop().time()
        run.visits = [Visit(name) for name in names]
        await self._visits.each(
            run.visits,
            min(deadline_s, now_s + self._settings.within_s),
            parallel=self._settings.is_parallel,
            orphans_only=orphans_only,
        )

    async def _ask_log(self, work: Coroutine[Any, Any, None], run: _Run, deadline_s: float) -> None:
        """Do what needs the log; that it cannot be had fails the pass in part, and is met by the next."""
        try:
            async with asyncio.timeout_at(deadline_s):
                await work
        except (LogUnavailableError, LogUncertainError, TimeoutError) as error:
            run.log_failures += 1
            _LOG.warning("recovery_without_log", reason=str(error) or "out of time")

    async def _take_over(self, run: _Run) -> None:
        run.taken_over = await self._life.take_over()
        await self._recovery.driven()

    async def _resume(self, run: _Run) -> None:
        run.resumed = await self._workflows.resume()

    async def _keep_house(self) -> None:
        """Have the log drop what it may, which in HOLD is nothing (R14, R15)."""
        for _ in range(PRUNE_ROUNDS_MAX):
            pruned = await self._log.prune(self._settings.retention_s, PRUNE_LIMIT, self._clock.unix_ms())
            if pruned < PRUNE_LIMIT:
                return

    def _tell(self, ended: Pass) -> None:
        self._on_ended(ended)
        found = ended.resolved or ended.failed or ended.in_doubt or ended.taken_over or ended.resumed
        if found or ended.scope is not Scope.GLOBAL:
            _LOG.info(
                "recovery_pass",
                scope=ended.scope.name,
                duration_ms=ended.ended_unix_ms - ended.began_unix_ms,
                scanned=ended.scanned,
                resolved=ended.resolved,
                failed=ended.failed,
                in_doubt=ended.in_doubt,
                taken_over=ended.taken_over,
                resumed=ended.resumed,
                unreachable=list(ended.unreachable),
            )

    # What is shown.

    def _status_of(self, name: str, owed: int) -> ParticipantStatus:
        link = self._links[name]
        in_doubt = self.in_doubt(name)
        return ParticipantStatus(
            name,
            link.is_up,
            link.down_reason,
            owed,
            in_doubt.count,
            in_doubt.oldest_ms,
            link.breaker_state,
            not self._reported.missing((name,)),
        )

    def _stuck(self) -> list[Attention]:
        driven = [_attention_of(running) for running in self._engine.attention.values()]
        left = [
            Attention(xid, (visit.participant,), 0, 0, advice_on(xid, visit.participant, why))
            for visit in self._found.values()
            for xid, why in visit.swept.stuck
        ]
        return driven + left


_Work = Callable[["_Run"], Coroutine[Any, Any, None]]


class _Run:
    """A pass that runs. It grows; ``so_far`` tells of it."""

    __slots__ = ("began_unix_ms", "log_failures", "resumed", "scope", "taken_over", "visits")

    def __init__(self, scope: Scope, began_unix_ms: int) -> None:
        self.scope = scope
        self.began_unix_ms = began_unix_ms
        self.visits: list[Visit] = []
        self.taken_over = 0
        self.resumed = 0
        self.log_failures = 0

    def so_far(self, ended_unix_ms: int = 0) -> Pass:
        """What it did until now."""
        unreachable = tuple(visit.participant for visit in self.visits if visit.why_not)
        scanned = sum(visit.scanned for visit in self.visits)
        resolved = sum(visit.ended for visit in self.visits)
        failed = sum(visit.failed for visit in self.visits)
        if self.scope is Scope.TRANSACTION:
            # It is one that was looked at, however many branches it has.
            is_failed = bool(failed or unreachable)
            scanned, resolved, failed = 1, int(resolved > 0 and not is_failed), int(is_failed)
        return Pass(
            self.scope,
            self.began_unix_ms,
            ended_unix_ms,
            scanned,
            resolved,
            failed + self.log_failures,
            sum(visit.in_doubt for visit in self.visits),
            self.taken_over,
            unreachable,
            self.resumed,
        )


def _attention_of(running: Running) -> Attention:
    tx = running.transaction
    owed = tuple(tx.branches.owed)
    return Attention(tx.xid, owed, tx.resends.attempts, running.decided_unix_ms, advice.of_owed(tx.xid, owed))
