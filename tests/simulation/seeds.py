"""Running seeds: once for the verdict, again for the proof that a seed is one run, and smaller where it failed."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog
from structlog.typing import EventDict

from tests.simulation.faults import Mix, draw
from tests.simulation.observation import observed
from tests.simulation.world import Heard, Result, World

KEPT: Final = Path(__file__).with_name("seeds.txt")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A seed's two runs: the first one's result, with what was wrong of either."""

    result: Result
    violations: tuple[str, ...]


def run_once(mix: Mix, *, detailed: bool = False) -> Result:
    """Run a mix once, without the product's logs, and without the collector, whose time is nobody's to know."""
    with _listening() as heard, _no_collector(), observed() as pairs:
        result = World(mix, heard=heard, detailed=detailed).run()
    return replace(result, pairs=pairs)


def run_seed(seed: int) -> Verdict:
    """Run a seed twice; different traces are a violation too."""
    mix = draw(seed)
    first = run_once(mix)
    second = run_once(mix)
    if first.digest != second.digest:
        return Verdict(first, (*first.violations, "two runs of one seed differ"))
    return Verdict(first, first.violations)


def shrink(mix: Mix, violation: str) -> Mix:
    """Leave out each kind of fault whose absence does not cure this violation, then whatever else need not be there."""
    for fault in list(mix.chances):
        if _shows(mix.without(fault), violation):
            mix = mix.without(fault)
    smaller: Mix | None = mix
    while smaller is not None:
        mix = smaller
        smaller = next((less for less in mix.smaller() if _shows(less, violation)), None)
    return mix


def _shows(mix: Mix, violation: str) -> bool:
    """Whether a mix shows a violation of this kind: its first words, up to the colon."""
    kind = violation.split(":", maxsplit=1)[0]
    return any(one.startswith(kind) for one in run_once(mix).violations)


def kept_seeds() -> list[int]:
    """The seeds that once found something: a number a line, the reason behind it."""
    lines = (line.split("#")[0].strip() for line in KEPT.read_text().splitlines())
    return [int(line) for line in lines if line]


@contextmanager
def _listening() -> Generator[Heard]:
    """Let nothing of the product's logs out, and count what they say."""
    heard = Heard()

    def hear(_logger: object, _method: str, event: EventDict) -> str:
        heard[str(event["event"]), str(event.get("participant", ""))] += 1
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[hear], wrapper_class=structlog.BoundLogger, logger_factory=structlog.ReturnLoggerFactory()
    )
    try:
        yield heard
    finally:
        structlog.configure(**before)


@contextmanager
def _no_collector() -> Generator[None]:
    # What lives before the run need not be looked at after it.
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
        gc.unfreeze()
