"""Running seeds: once for the verdict, again for the proof that a seed is one run, and smaller where it failed."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from tests.simulation.faults import Mix, draw
from tests.simulation.world import Result, World

KEPT: Final = Path(__file__).with_name("seeds.txt")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A seed's two runs: the first one's result, with what was wrong of either."""

    result: Result
    violations: tuple[str, ...]


def run_once(mix: Mix, *, detailed: bool = False) -> Result:
    """Run a mix once, without the product's logs, and without the collector, whose time is nobody's to know."""
    with _silence(), _no_collector():
        return World(mix, detailed=detailed).run()


def run_seed(seed: int) -> Verdict:
    """Run a seed twice; different traces are a violation too."""
    mix = draw(seed)
    first = run_once(mix)
    second = run_once(mix)
    if first.digest != second.digest:
        return Verdict(first, (*first.violations, "two runs of one seed differ"))
    return Verdict(first, first.violations)


def shrink(mix: Mix) -> Mix:
    """Leave out each kind of fault whose absence does not cure the failure; nothing, where there is none."""
    for fault in list(mix.chances):
        smaller = mix.without(fault)
        if run_once(smaller).violations:
            mix = smaller
    return mix


def kept_seeds() -> list[int]:
    """The seeds that once found something: a number a line, the reason behind it."""
    lines = (line.split("#")[0].strip() for line in KEPT.read_text().splitlines())
    return [int(line) for line in lines if line]


@contextmanager
def _silence() -> Generator[None]:
    """Let nothing of the product's logs out."""
    before = structlog.get_config()
    structlog.configure(
        processors=[_drop], wrapper_class=structlog.BoundLogger, logger_factory=structlog.ReturnLoggerFactory()
    )
    try:
        yield
    finally:
        structlog.configure(**before)


def _drop(_logger: object, _method: str, _event: object) -> str:
    raise structlog.DropEvent


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
