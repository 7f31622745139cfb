"""A cluster whose faults have healed must come to rest (invariants 4 and 8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from participant_sdk.xa import PREPARED
from tests.simulation.machines.cluster import Cluster
from tests.simulation.machines.coordinator import Timer
from tests.simulation.machines.messages import Message

ROUNDS_MAX: Final = 60
DEADLINES_FROM: Final = 3


def settle(cluster: Cluster, under_way: Iterable[Message] = ()) -> list[str]:
    """Let everything arrive, everybody ask, every timer ring, the dead be fenced; what is wrong after that.

    A coordinator is opened where none lives, and one of those that live fences all that do not. Moves the
    cluster that it is given.
    """
    for number in list(cluster.coordinators):
        cluster.renew(number)
    if not cluster.coordinators:
        cluster.open()
    inbox = list(under_way)
    for number in list(cluster.store.tables.incarnations):
        if number not in cluster.coordinators:
            cluster.fence(next(iter(cluster.coordinators)), number)
    wrong: list[str] = []
    for turn in range(ROUNDS_MAX):
        inbox += cluster.posted
        cluster.posted.clear()
        for message in inbox:
            cluster.deliver(message, PREPARED)
        inbox.clear()
        _let_log_answer(cluster)
        _let_time_pass(cluster, with_deadlines=turn >= DEADLINES_FROM)
        wrong = list(cluster.left())
        if not wrong or list(cluster.broken()):
            return wrong
        if not cluster.coordinators:
            cluster.open()
    return wrong


def _let_log_answer(cluster: Cluster) -> None:
    for number, machine in list(cluster.coordinators.items()):
        cluster.write(number)
        if machine.awaited is not None and all(one.owner.number != number for one in cluster.statements):
            cluster.lose_answer(number)
    while cluster.statements:
        cluster.serve(0, answered=True)
    for number, machine in list(cluster.coordinators.items()):
        for xid in list(machine.lookups):
            cluster.look_up(number, xid)
        while machine.conflicts:
            cluster.resolve(number, 0)
        if machine.heuristics:
            cluster.keep_heuristics(number)


def _let_time_pass(cluster: Cluster, *, with_deadlines: bool) -> None:
    for name, participant in cluster.participants.items():
        cluster.flush(name)
        for xid in list(participant.in_doubt()):
            for number in cluster.coordinators:
                cluster.ask(name, xid, number)
    for number in list(cluster.coordinators):
        for xid, timer in list(cluster.coordinators[number].timers()):
            if timer is not Timer.DEADLINE or with_deadlines:
                cluster.ring(number, xid, timer)
        cluster.checkpoint(number)
        cluster.renew(number)
