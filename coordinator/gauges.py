"""What is read from the coordinator's parts whenever its metrics are scraped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from coordinator.engine import Engine
from coordinator.locks.locks import Locks
from coordinator.log.group_commit import GroupCommit
from coordinator.metrics import Level
from coordinator.open_heuristics import OpenHeuristics
from coordinator.recovery_passes import RecoveryPasses
from coordinator.telemetry import Telemetry
from coordinator.workflows.workflows import Workflows
from participant_sdk.breaker import BreakerState
from participant_sdk.link import Link

_BREAKER_LEVELS: Final = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 1.0, BreakerState.OPEN: 2.0}


def expose(
    engine: Engine,
    commit: GroupCommit,
    links: Mapping[str, Link],
    passes: RecoveryPasses,
    open_heuristics: OpenHeuristics,
    locks: Locks,
    workflows: Workflows,
    telemetry: Telemetry,
) -> None:
    """Have the gauges read from these parts."""
    telemetry.level(Level.IN_FLIGHT, lambda: engine.in_flight)
    telemetry.level(Level.OWED, lambda: max(0, engine.unfinished - engine.in_flight))
    telemetry.level(Level.QUEUE, lambda: len(commit), "log", "")
    for name, link in links.items():
        telemetry.level(Level.LINK_UP, _is_up(link), name)
        telemetry.level(Level.BREAKER, _breaker(link), name)
        telemetry.level(Level.IN_DOUBT, _in_doubt(passes, name), name)
        telemetry.level(Level.IN_DOUBT_AGE, _in_doubt_age(passes, name), name)
    telemetry.level(Level.ATTENTION, lambda: passes.attention_count)
    telemetry.level(Level.OPEN_HEURISTICS, lambda: open_heuristics.count)
    telemetry.level(Level.LOCKS_HELD, lambda: locks.count(is_granted=True))
    telemetry.level(Level.LOCKS_WAITING, lambda: locks.count(is_granted=False))
    telemetry.level(Level.WORKFLOWS_RUNNING, lambda: len(workflows) - workflows.stuck)
    telemetry.level(Level.WORKFLOWS_STUCK, lambda: workflows.stuck)
    telemetry.level(Level.HELD, lambda: float(bool(passes.held)))


def _is_up(link: Link) -> Callable[[], float]:
    return lambda: float(link.is_up)


def _breaker(link: Link) -> Callable[[], float]:
    return lambda: _BREAKER_LEVELS[link.breaker_state]


def _in_doubt(passes: RecoveryPasses, participant: str) -> Callable[[], float]:
    return lambda: passes.in_doubt(participant).count


def _in_doubt_age(passes: RecoveryPasses, participant: str) -> Callable[[], float]:
    return lambda: passes.in_doubt(participant).oldest_ms / 1000
