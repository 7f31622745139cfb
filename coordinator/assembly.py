"""The parts of one incarnation, put together: engine, log, links, recovery.

Nothing here is an adapter: the log and the transports come in, so that the daemon and the tests
run the same parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from coordinator.admission import Limits
from coordinator.aftermath import Aftermath
from coordinator.awaited import Awaited
from coordinator.doubts import Doubts
from coordinator.engine import Engine
from coordinator.heuristic_keeper import HeuristicKeeper
from coordinator.hold import Holding
from coordinator.incarnation import IncarnationLife
from coordinator.inquiries import Inquiries
from coordinator.log.decision_log import DecisionLog, Incarnation, Standing
from coordinator.log.group_commit import GroupCommit
from coordinator.log.reported import Reported
from coordinator.metrics import Level
from coordinator.passes import DEFAULT_PASSES, PassSettings
from coordinator.peers import Peers
from coordinator.protocol.effects import DecisionRecord, Verb
from coordinator.protocol.timing import Timing
from coordinator.recovery import Recovery
from coordinator.recovery_passes import RecoveryPasses
from coordinator.redriving import Redriving
from coordinator.reports import Reports
from coordinator.resolution import Resolution
from coordinator.running import Finished
from coordinator.sweep import Sweep
from coordinator.telemetry import Telemetry
from coordinator.visits import Visits
from participant_sdk.breaker import BreakerState
from participant_sdk.clock import Clock
from participant_sdk.hello import Introduction, Welcome
from participant_sdk.ids import Xid
from participant_sdk.link import Link
from participant_sdk.resource_calls import Access
from participant_sdk.xa import Ack, Decision, Vote


@dataclass(frozen=True, slots=True)
class Settings:
    """How the parts are set."""

    timing: Timing
    limits: Limits
    batch_size: int
    passes: PassSettings = DEFAULT_PASSES
    breaker_enabled: bool = True


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
                for link in self.links.values():
                    tasks.create_task(link.run())
        finally:
            await self.peers.close()


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
) -> Assembly:
    """Wire one incarnation's parts. ``on_finished`` is told of each transaction that owes nothing any more."""

    def finished(each: Finished) -> None:
        recovery.finished(each.outcome.xid)
        on_finished(each)

    engine = Engine(incarnation, clock, timing=settings.timing, limits=settings.limits, on_finished=finished)
    reported = Reported(log, participants)
    commit = GroupCommit(
        log,
        incarnation,
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
    recovery = Recovery(engine, settings.timing)

    def take_standing(standing: Standing) -> None:
        engine.admission.heed(standing)
        for link in links.values():
            link.introduce()

    life = IncarnationLife(log, commit, clock=clock, on_adopted=recovery.adopt, on_standing=take_standing)
    recovery.connect(life)
    heuristics = HeuristicKeeper(log, random=random, on_recorded=engine.heuristics_recorded)
    reports = Reports(log, reported, engine, settings.timing, random=random)
    awaited = Awaited()
    events = _MeasuredEvents(engine, reports, awaited, clock, telemetry)
    links = {
        name: Link(
            name,
            access.transport,
            lambda: _introduction(incarnation, life.standing),
            events,
            clock=clock,
            jitter=random,
            batch_size=settings.batch_size,
            breaker_enabled=settings.breaker_enabled,
        )
        for name, access in participants.items()
    }
    engine.connect(links, commit, life, heuristics)
    reports.connect(links)
    calls = {name: access.calls for name, access in participants.items()}
    holding = Holding(log, incarnation, calls, lambda: _introduction(incarnation, life.standing), reports, clock=clock)
    inquiries = Inquiries(engine, log, commit)
    peers, aftermath = Peers(engine, commit, life), Aftermath(engine, inquiries)
    sweep = Sweep(engine, inquiries, log, heuristics)
    visits = Visits(engine, links, calls, sweep, heuristics, awaited, settings.passes.acknowledged_within_s)
    redriving = Redriving(engine, commit, visits, calls)
    passes = RecoveryPasses(
        engine,
        log,
        life,
        recovery,
        links=links,
        visits=visits,
        redriving=redriving,
        reported=reported,
        settings=settings.passes,
        clock=clock,
        on_ended=telemetry.passed,
    )
    resolution = Resolution(engine, inquiries, log, calls, redriving, Doubts(engine, inquiries, calls))
    assembly = Assembly(
        engine,
        inquiries,
        commit,
        life,
        heuristics,
        links,
        peers,
        aftermath,
        reports,
        holding,
        recovery,
        passes,
        resolution,
    )
    _expose(assembly, telemetry)
    return assembly


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


class _MeasuredEvents:
    """Times every answer of a participant on its way to the engine, and has its welcomes judged.

    A Prepare is counted from the transaction's begin, which sends it; phase two from the decision.
    """

    __slots__ = ("_awaited", "_clock", "_engine", "_reports", "_telemetry")

    def __init__(self, engine: Engine, reports: Reports, awaited: Awaited, clock: Clock, telemetry: Telemetry) -> None:
        self._awaited = awaited
        self._engine = engine
        self._reports = reports
        self._clock = clock
        self._telemetry = telemetry

    def voted(self, participant: str, votes: Sequence[tuple[Xid, Vote]]) -> None:
        now_s = self._clock.monotonic_s()
        observe = self._telemetry.phase(Verb.PREPARE, participant).observe
        for xid, _ in votes:
            running = self._engine.find(xid)
            if running is not None:
                observe(now_s - running.began_s)
        self._telemetry.batch("votes", len(votes), participant)
        self._engine.voted(participant, votes)

    def acknowledged(self, participant: str, verb: Decision, acks: Sequence[tuple[Xid, Ack]]) -> None:
        now_s = self._clock.monotonic_s()
        phase = Verb.COMMIT if verb is Decision.COMMIT else Verb.ROLLBACK
        observe = self._telemetry.phase(phase, participant).observe
        for xid, _ in acks:
            running = self._engine.find(xid)
            if running is not None:
                observe(now_s - running.decided_s)
        self._telemetry.batch("acknowledgements", len(acks), participant)
        self._engine.acknowledged(participant, verb, acks)
        self._awaited.acknowledged(participant, verb, acks)

    def link_up(self, participant: str, welcome: Welcome) -> None:
        self._reports.welcomed(participant, welcome)
        self._engine.link_up(participant, welcome)

    def link_down(self, participant: str, reason: str) -> None:
        self._reports.lost(participant)
        self._engine.link_down(participant, reason)


def _expose(assembly: Assembly, telemetry: Telemetry) -> None:
    """Have the gauges read from these parts."""
    engine, commit = assembly.engine, assembly.commit
    telemetry.level(Level.IN_FLIGHT, lambda: engine.in_flight)
    telemetry.level(Level.OWED, lambda: max(0, engine.unfinished - engine.in_flight))
    telemetry.level(Level.QUEUE, lambda: len(commit), "log", "")
    for name, link in assembly.links.items():
        telemetry.level(Level.LINK_UP, _is_up(link), name)
        telemetry.level(Level.BREAKER, _breaker(link), name)
        telemetry.level(Level.IN_DOUBT, _in_doubt(assembly.passes, name), name)
        telemetry.level(Level.IN_DOUBT_AGE, _in_doubt_age(assembly.passes, name), name)
    telemetry.level(Level.ATTENTION, lambda: assembly.passes.attention_count)
    telemetry.level(Level.HELD, lambda: float(bool(assembly.passes.held)))


def _is_up(link: Link) -> Callable[[], float]:
    return lambda: float(link.is_up)


def _breaker(link: Link) -> Callable[[], float]:
    return lambda: _BREAKER_LEVELS[link.breaker_state]


def _in_doubt(passes: RecoveryPasses, participant: str) -> Callable[[], float]:
    return lambda: passes.in_doubt(participant).count


def _in_doubt_age(passes: RecoveryPasses, participant: str) -> Callable[[], float]:
    return lambda: passes.in_doubt(participant).oldest_ms / 1000


_BREAKER_LEVELS: Final = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 1.0, BreakerState.OPEN: 2.0}
