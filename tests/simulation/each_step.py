"""Kill each process after each of its steps, one run for each, and pairs of processes at chosen steps.

Chance kills where processes are most of the time: idle. A few transactions in a world without
any other fault are enough to try every place between two awaits.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from tests.simulation.faults import Mix, plain
from tests.simulation.seeds import run_once


def singles() -> Iterator[Mix]:
    """One mix for each host and each step that its process makes while the clients work."""
    for host, steps in run_once(plain()).steps_of.items():
        for step in range(1, steps + 1):
            yield plain(kills=((host, step),))


def pairs(count: int, rng: Random) -> Iterator[Mix]:
    """Mixes with two kills of different hosts, at steps drawn evenly."""
    steps_of = run_once(plain()).steps_of
    for _ in range(count):
        one, other = rng.sample(list(steps_of), 2)
        yield plain(kills=((one, rng.randint(1, steps_of[one])), (other, rng.randint(1, steps_of[other]))))
