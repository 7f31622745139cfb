"""Which events met which phases, as coverage tools count lines: ``Transaction.step`` is wrapped while a run lasts.

The wrapper only counts. Pairs that cannot occur are listed with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final, get_args

from coordinator.protocol import events
from coordinator.protocol.effects import Step
from coordinator.protocol.phases import Phase
from coordinator.protocol.transaction import Transaction

Pair = tuple[str, str]
Pairs = Counter[Pair]

EVENTS: Final = tuple(kind.__name__ for kind in get_args(events.Event))
PHASES: Final = tuple(phase.name for phase in Phase)

_BEFORE_PREPARE: Final = "no participant and no log was asked anything yet"
_ONE_QUESTION: Final = "the log was asked nothing that this would answer"
_ENGINE_ASKS_ONCE: Final = "the engine hands it on only where it can have an effect, and tells the caller otherwise"
_UNDECIDED: Final = "nothing is decided, so nothing is owed to anybody"

IMPOSSIBLE: Final[Mapping[Pair, str]] = {
    **{("ACTIVE", event): _BEFORE_PREPARE for event in ("Voted", "Recorded", "LookedUp", "Acknowledged", "Reachable")},
    ("ACTIVE", "HeuristicRecorded"): "a branch that can be ended by hand is prepared",
    **{("PREPARING", event): _UNDECIDED for event in ("Acknowledged", "Reachable")},
    **{("PREPARING", event): _ONE_QUESTION for event in ("Recorded", "LookedUp")},
    **{("DECIDING", event): _UNDECIDED for event in ("Acknowledged", "Reachable")},
    ("DECIDING", "LookedUp"): _ONE_QUESTION,
    **{(phase, event): _ONE_QUESTION for phase in ("COMMITTING", "COMMITTED") for event in ("Recorded", "LookedUp")},
    **{(phase.name, "CommitAsked"): _ENGINE_ASKS_ONCE for phase in Phase if phase is not Phase.ACTIVE},
    **{(phase.name, "Close"): _ENGINE_ASKS_ONCE for phase in Phase if phase is not Phase.ACTIVE},
    **{
        (phase.name, "RollbackAsked"): _ENGINE_ASKS_ONCE
        for phase in Phase
        if phase not in (Phase.ACTIVE, Phase.PREPARING)
    },
}

# What comes about only while the end of a transaction is held up by the log, in the moment that this takes.
RARE: Final[tuple[Pair, ...]] = (
    ("COMMITTED", "Voted"),
    ("COMMITTED", "Woken"),
    ("COMMITTED", "Reachable"),
    ("ROLLED_BACK", "Reachable"),
)


def missing(pairs: Pairs) -> list[Pair]:
    """The pairs that ought to have occurred, and did not."""
    expected = [
        (phase, event)
        for phase in PHASES
        for event in EVENTS
        if (phase, event) not in IMPOSSIBLE and (phase, event) not in RARE
    ]
    return [pair for pair in expected if not pairs[pair]]


def unforeseen(pairs: Pairs) -> list[Pair]:
    """The pairs that were thought impossible, and occurred."""
    return [pair for pair in IMPOSSIBLE if pairs[pair]]


@contextmanager
def observed() -> Generator[Pairs]:
    """Count every step of every transaction made meanwhile."""
    pairs: Counter[tuple[Phase, type]] = Counter()
    step = Transaction.step

    def counted(self: Transaction, event: events.Event, now_s: float) -> Step:
        pairs[self.phase, type(event)] += 1
        return step(self, event, now_s)

    named: Pairs = Counter()
    Transaction.step = counted
    try:
        yield named
    finally:
        Transaction.step = step
        named.update({(phase.name, kind.__name__): count for (phase, kind), count in pairs.items()})
