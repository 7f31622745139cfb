"""The parts of one incarnation, put together: engine, log, links, recovery.

Nothing here is an adapter: the log and the transports come in, so that the daemon and the tests
run the same parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from coordinator.admission import Limits
from coordinator.aftermath import Aftermath
from coordinator.engine import Engine
from coordinator.heuristic_keeper import HeuristicKeeper
from coordinator.incarnation import IncarnationLife
from coordinator.inquiries import Inquiries
from coordinator.log.decision_log import DecisionLog, Incarnation
from coordinator.log.group_commit import GroupCommit
from coordinator.metrics import Level
from coordinator.peers import Peers
from coordinator.protocol.effects import Verb
from coordinator.protocol.timing import Timing
from coordinator.recovery import Recovery
from coordinator.running import Finished
from coordinator.telemetry import Telemetry
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

    async def run(self) -> None:
        """Work until cancelled. An exception group of IncarnationEndedError when the incarnation may write no more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.engine.run())
                tasks.create_task(self.commit.run())
                tasks.create_task(self.life.run())
                tasks.create_task(self.heuristics.run())
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
    engine = Engine(incarnation, clock, timing=settings.timing, limits=settings.limits, on_finished=on_finished)
    commit = GroupCommit(
        log,
        incarnation,
        clock=clock,
        random=random,
        on_recorded=engine.recorded,
        on_looked_up=engine.looked_up,
        batch_size=settings.batch_size,
        # One record and one lookup at most for everything that the engine holds.
        queue_bound=2 * settings.limits.max_unfinished,
    )
    recovery = Recovery(engine, settings.timing)
    life = IncarnationLife(log, commit, clock=clock, on_adopted=recovery.adopt)
    recovery.connect(life)
    heuristics = HeuristicKeeper(log, random=random, on_recorded=engine.heuristics_recorded)
    introduction = Introduction(
        incarnation.log_id,
        incarnation.coordinator,
        incarnation.number,
        incarnation.epoch,
        (incarnation.address,),
    )
    events = _MeasuredEvents(engine, clock, telemetry)
    links = {
        name: Link(
            name,
            access.transport,
            lambda: introduction,
            events,
            clock=clock,
            jitter=random,
            batch_size=settings.batch_size,
        )
        for name, access in participants.items()
    }
    engine.connect(links, commit, life, heuristics)
    inquiries = Inquiries(engine, log, commit)
    peers, aftermath = Peers(engine, commit), Aftermath(engine, inquiries)
    assembly = Assembly(engine, inquiries, commit, life, heuristics, links, peers, aftermath)
    _expose(assembly, telemetry)
    return assembly


class _MeasuredEvents:
    """Times every answer of a participant on its way to the engine.

    A Prepare is counted from the transaction's begin, which sends it; phase two from the decision.
    """

    __slots__ = ("_clock", "_engine", "_telemetry")

    def __init__(self, engine: Engine, clock: Clock, telemetry: Telemetry) -> None:
        self._engine = engine
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

    def link_up(self, participant: str, welcome: Welcome) -> None:
        self._engine.link_up(participant, welcome)

    def link_down(self, participant: str, reason: str) -> None:
        self._engine.link_down(participant, reason)


def _expose(assembly: Assembly, telemetry: Telemetry) -> None:
    """Have the gauges read from these parts."""
    engine, commit = assembly.engine, assembly.commit
    telemetry.level(Level.IN_FLIGHT, lambda: engine.in_flight)
    telemetry.level(Level.OWED, lambda: max(0, engine.unfinished - engine.in_flight))
    telemetry.level(Level.QUEUE, lambda: len(commit), "log", "")
    for name, link in assembly.links.items():
        telemetry.level(Level.LINK_UP, _is_up(link), name)


def _is_up(link: Link) -> Callable[[], float]:
    return lambda: float(link.is_up)
