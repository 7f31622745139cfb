"""The parts of one incarnation, put together: engine, log, links, recovery.

Nothing here is an adapter: the log and the transports come in, so that the daemon and the tests
run the same parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from coordinator.admission import Limits
from coordinator.aftermath import Aftermath
from coordinator.awaited import Awaited
from coordinator.doubts import Doubts
from coordinator.engine import Engine
from coordinator.finishes import Finishes
from coordinator.gauges import expose
from coordinator.heuristic_keeper import HeuristicKeeper
from coordinator.hold import Holding
from coordinator.incarnation import IncarnationLife
from coordinator.inquiries import Inquiries
from coordinator.locks.lock_store import LockStore
from coordinator.locks.locks import DEFAULT_LOCKS, Locks, LockSettings
from coordinator.locks.parts import LockParts, assemble_locks
from coordinator.log.decision_log import DecisionLog, Incarnation, Standing
from coordinator.log.group_commit import GroupCommit
from coordinator.log.reported import Reported
from coordinator.lost_tails import LostTails
from coordinator.measured_events import MeasuredEvents
from coordinator.open_heuristics import OpenHeuristics
from coordinator.passes import DEFAULT_PASSES, PassSettings
from coordinator.peers import Peers
from coordinator.protocol.effects import DecisionRecord, HeuristicRecord
from coordinator.protocol.timing import Timing
from coordinator.recovery import Recovery
from coordinator.recovery_passes import RecoveryPasses
from coordinator.redriving import Redriving
from coordinator.reports import Reports
from coordinator.resolution import Resolution
from coordinator.returns import Returns
from coordinator.running import Finished
from coordinator.sweep import Sweep
from coordinator.telemetry import Telemetry
from coordinator.visits import Visits
from coordinator.workflow_peers import WorkflowPeers
from coordinator.workflows import builtin
from coordinator.workflows.transactions import StepTransactions
from coordinator.workflows.workflows import Workflows, WorkflowSettings
from participant_sdk.clock import Clock
from participant_sdk.hello import Introduction
from participant_sdk.link import Link
from participant_sdk.resource_calls import Access, ResourceCalls


@dataclass(frozen=True, slots=True)
class Settings:
    """How the parts are set."""

    timing: Timing
    limits: Limits
    batch_size: int
    passes: PassSettings = DEFAULT_PASSES
    breaker_enabled: bool = True
    locks: LockSettings = DEFAULT_LOCKS
    workflows: WorkflowSettings = field(default_factory=lambda: WorkflowSettings(builtin.definitions()))


@dataclass(frozen=True, slots=True)
class Assembly:
    """One incarnation's parts, wired. ``run`` must run for anything to happen."""

    engine: Engine
    inquiries: Inquiries
    commit: GroupCommit
    life: IncarnationLife
    heuristics: HeuristicKeeper
    links: Mapping[str, Link]
    peers: Peers
    aftermath: Aftermath
    reports: Reports
    holding: Holding
    recovery: Recovery
    passes: RecoveryPasses
    resolution: Resolution
    open_heuristics: OpenHeuristics
    locks: LockParts
    workflows: Workflows
    workflow_peers: WorkflowPeers

    async def run(self) -> None:
        """Work until cancelled. An exception group of IncarnationEndedError when the incarnation may write no more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.engine.run())
                tasks.create_task(self.engine.resending.run())
                tasks.create_task(self.commit.run())
                tasks.create_task(self.life.run())
                tasks.create_task(self.heuristics.run())
                tasks.create_task(self.reports.run())
                tasks.create_task(self.recovery.run())
                tasks.create_task(self.passes.run())
                tasks.create_task(self.open_heuristics.run())
                tasks.create_task(self.locks.run())
                tasks.create_task(self.workflows.run())
                for link in self.links.values():
                    tasks.create_task(link.run())
        finally:
            await self.peers.close()


@dataclass(frozen=True, slots=True)
class _Core:
    """What decides and drives transactions; the other parts stand on it."""

    engine: Engine
    reported: Reported
    commit: GroupCommit
    life: IncarnationLife
    recovery: Recovery
    heuristics: HeuristicKeeper
    open_heuristics: OpenHeuristics
    reports: Reports
    awaited: Awaited
    returns: Returns
    links: Mapping[str, Link]


def assemble(
    log: DecisionLog,
    incarnation: Incarnation,
    participants: Mapping[str, Access],
    settings: Settings,
    *,
    clock: Clock,
    random: Random,
    telemetry: Telemetry,
    on_finished: Callable[[Finished], None],
    lock_store: LockStore | None = None,
) -> Assembly:
    """Wire one incarnation's parts. ``on_finished`` is told of each transaction; without a store, locks are our own."""
    core = _core(log, incarnation, participants, settings, clock, random, telemetry, on_finished)
    engine, commit, life = core.engine, core.commit, core.life
    calls = {name: access.calls for name, access in participants.items()}
    inquiries = Inquiries(engine, log, commit, Finishes(log, clock))
    visits = _visits(core, inquiries, log, calls, settings.passes.acknowledged_within_s)
    redriving = Redriving(engine, commit, visits, calls)
    locks = assemble_locks(
        engine, log, life, settings.locks, lock_store, clock=clock, random=random, telemetry=telemetry
    )
    workflows = _workflows(core, log, inquiries, locks.locks, settings.workflows, clock, random, telemetry)
    passes = RecoveryPasses(
        engine,
        log,
        life,
        core.recovery,
        workflows=workflows,
        links=core.links,
        visits=visits,
        redriving=redriving,
        reported=core.reported,
        settings=settings.passes,
        clock=clock,
        on_ended=telemetry.passed,
    )
    expose(engine, commit, core.links, passes, core.open_heuristics, locks.locks, workflows, telemetry)
    peers = Peers(engine, commit, life)
    return Assembly(
        engine,
        inquiries,
        commit,
        life,
        core.heuristics,
        core.links,
        peers,
        Aftermath(engine, inquiries),
        core.reports,
        _holding(core, log, incarnation, calls, clock),
        core.recovery,
        passes,
        _resolution(core, inquiries, log, calls, redriving, telemetry),
        core.open_heuristics,
        locks,
        workflows,
        WorkflowPeers(peers, workflows),
    )


def _workflows(
    core: _Core,
    log: DecisionLog,
    inquiries: Inquiries,
    locks: Locks,
    settings: WorkflowSettings,
    clock: Clock,
    random: Random,
    telemetry: Telemetry,
) -> Workflows:
    engine, commit = core.engine, core.commit
    steps = StepTransactions(engine, commit, inquiries, core.returns, random, settings.retry_first_s)
    return Workflows(engine, log, commit, steps, locks, settings, clock=clock, random=random, telemetry=telemetry)


def _holding(
    core: _Core, log: DecisionLog, incarnation: Incarnation, calls: Mapping[str, ResourceCalls], clock: Clock
) -> Holding:
    return Holding(log, incarnation, calls, lambda: _introduction(incarnation, core.life.standing), clock=clock)


def _visits(
    core: _Core, inquiries: Inquiries, log: DecisionLog, calls: Mapping[str, ResourceCalls], within_s: float
) -> Visits:
    sweep = Sweep(core.engine, inquiries, log, core.heuristics)
    return Visits(core.engine, core.links, calls, sweep, core.heuristics, core.awaited, within_s)


def _core(
    log: DecisionLog,
    incarnation: Incarnation,
    participants: Mapping[str, Access],
    settings: Settings,
    clock: Clock,
    random: Random,
    telemetry: Telemetry,
    on_finished: Callable[[Finished], None],
) -> _Core:
    def finished(each: Finished) -> None:
        recovery.finished(each.outcome.xid)
        on_finished(each)

    engine = Engine(incarnation, clock, timing=settings.timing, limits=settings.limits, on_finished=finished)
    reported = Reported(log, participants)
    commit = _commit(log, engine, reported, settings, clock, random)
    recovery = Recovery(engine, settings.timing)

    was_held = False

    def take_standing(standing: Standing) -> None:
        nonlocal was_held
        engine.admission.heed(standing)
        # Around HOLD all report anew and are told again what they are owed; a horizon or an address is only news.
        is_told, was_held = standing.is_held is not was_held, standing.is_held
        for link in links.values():
            link.introduce(is_told=is_told)

    life = IncarnationLife(log, commit, clock=clock, on_adopted=recovery.adopt, on_standing=take_standing)
    recovery.connect(life)
    open_heuristics = OpenHeuristics(log)
    heuristics = _keeper(log, engine, open_heuristics, random)
    awaited = Awaited()
    lost_tails = LostTails(log, commit, engine, awaited, heuristics, random=random)
    reports = Reports(log, reported, engine, lost_tails, random=random, telemetry=telemetry)
    returns = Returns()
    events = MeasuredEvents(engine, reports, awaited, returns, telemetry)

    def link_to(name: str, access: Access) -> Link:
        return Link(
            name,
            access.transport,
            lambda: _introduction(incarnation, life.standing),
            events,
            clock=clock,
            jitter=random,
            batch_size=settings.batch_size,
            breaker_enabled=settings.breaker_enabled,
        )

    links = {name: link_to(name, access) for name, access in participants.items()}
    engine.connect(links, commit, life, heuristics)
    lost_tails.connect(links)
    reports.connect(links)
    return _Core(
        engine, reported, commit, life, recovery, heuristics, open_heuristics, reports, awaited, returns, links
    )


def _resolution(
    core: _Core,
    inquiries: Inquiries,
    log: DecisionLog,
    calls: Mapping[str, ResourceCalls],
    redriving: Redriving,
    telemetry: Telemetry,
) -> Resolution:
    return Resolution(
        core.engine,
        inquiries,
        log,
        calls,
        redriving,
        Doubts(core.engine, inquiries, log, calls, core.life),
        heuristics=core.heuristics,
        open_heuristics=core.open_heuristics,
        on_forced=telemetry.forced,
    )


def _commit(
    log: DecisionLog, engine: Engine, reported: Reported, settings: Settings, clock: Clock, random: Random
) -> GroupCommit:
    return GroupCommit(
        log,
        engine.incarnation,
        clock=clock,
        random=random,
        reported=reported,
        participants_of=_participants_of(engine),
        on_recorded=engine.recorded,
        on_looked_up=engine.looked_up,
        batch_size=settings.batch_size,
        # One record and one lookup at most for everything that the engine holds.
        queue_bound=2 * settings.limits.max_unfinished,
    )


def _keeper(log: DecisionLog, engine: Engine, open_heuristics: OpenHeuristics, random: Random) -> HeuristicKeeper:
    def recorded(records: Sequence[HeuristicRecord]) -> None:
        open_heuristics.look_soon()
        engine.heuristics_recorded(records)

    return HeuristicKeeper(log, random=random, on_recorded=recorded)


def _introduction(own: Incarnation, standing: Standing | None) -> Introduction:
    """This coordinator as it stands: every live one's address, its own first, and the horizon."""
    others = () if standing is None else tuple([live.address for live in standing.live])
    addresses = tuple(dict.fromkeys([address for address in (own.address, *others) if address]))
    pruned_below_unix_ms = 0 if standing is None else standing.pruned_below_unix_ms
    return Introduction(own.log_id, own.coordinator, own.number, own.epoch, addresses, pruned_below_unix_ms)


def _participants_of(engine: Engine) -> Callable[[DecisionRecord], Iterable[str]]:
    """All participants of a record's transaction, not only those that prepared (R15)."""

    def participants(record: DecisionRecord) -> Iterable[str]:
        running = engine.find(record.xid)
        return record.prepared if running is None else running.transaction.branches

    return participants
