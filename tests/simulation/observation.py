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

IMPOSSIBLE: Final[Mapping[Pair, str]] = {}


def missing(pairs: Pairs) -> list[Pair]:
    """The possible pairs that did not occur."""
    return [
        (phase, event)
        for phase in PHASES
        for event in EVENTS
        if not pairs[phase, event] and (phase, event) not in IMPOSSIBLE
    ]


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
