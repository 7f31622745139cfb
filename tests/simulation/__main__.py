"""``python -m tests.simulation --seeds 100``: run seeds, count what happened, fail on the first violation.

--seeds N     how many seeds, each run twice
--start N     the first one
--seed X      only this one, shrunk if it fails
--trace       with --seed: print the whole trace
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.simulation.each_step import pairs, singles
from tests.simulation.faults import Fault, Mix, Tally, draw
from tests.simulation.seeds import Verdict, run_once, run_seed, shrink

ALL_KINDS_FROM_SEEDS: Final = 100
TAIL_LINES: Final = 150


@dataclass(slots=True)
class Totals:
    """What many seeds add up to. Mutable: each seed adds."""

    seeds: int = 0
    transactions: int = 0
    committed: int = 0
    rolled_back: int = 0
    crashes: int = 0
    steps: int = 0
    virtual_s: float = 0.0
    tally: Tally = field(default_factory=Counter[Fault])

    def add(self, verdict: Verdict) -> None:
        """Count a seed."""
        result = verdict.result
        self.seeds += 1
        self.transactions += result.transactions
        self.committed += result.committed
        self.rolled_back += result.rolled_back
        self.crashes += result.crashes
        self.steps += result.steps
        self.virtual_s += result.virtual_s
        self.tally.update(result.tally)


def main() -> int:
    """Run what the command line asks for; 0 without a violation, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulated runs under faults.")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (each runs twice)")
    parser.add_argument("--start", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print the whole trace")
    parser.add_argument("--each-step", action="store_true", help="kill each process after each of its steps, and pairs")
    arguments = parser.parse_args()
    console = Console()
    if arguments.seed is not None:
        return _one(console, arguments.seed, whole=arguments.trace)
    if arguments.each_step:
        return _each_step(console, [*singles(), *pairs(arguments.seeds, Random(arguments.start))])
    return _many(console, range(arguments.start, arguments.start + arguments.seeds))


def _one(console: Console, seed: int, *, whole: bool) -> int:
    if whole:
        result = run_once(draw(seed), detailed=True)
        for line in result.lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    verdict = run_seed(seed)
    if verdict.violations:
        _explain(console, verdict)
        return 1
    console.print(verdict.result.mix.describe(), markup=False)
    console.print(f"no violation; trace {verdict.result.digest}")
    return 0


def _many(console: Console, seeds: range) -> int:
    totals = Totals()
    began_s = time.monotonic()
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for seed in progress.track(seeds):
            verdict = run_seed(seed)
            totals.add(verdict)
            if verdict.violations:
                progress.stop()
                _explain(console, verdict)
                return 1
    return _report(console, totals, time.monotonic() - began_s)


def _each_step(console: Console, mixes: Sequence[Mix]) -> int:
    columns = (TextColumn("killing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for mix in progress.track(mixes):
            result = run_once(mix)
            if result.violations:
                progress.stop()
                _explain(console, Verdict(result, result.violations))
                return 1
    console.print(f"{len(mixes)} runs with one or two kills at chosen steps, 0 violations")
    return 0


def _report(console: Console, totals: Totals, took_s: float) -> int:
    table = Table("fault", "what it is", "times", title="faults that happened")
    for fault in Fault:
        table.add_row(fault.name, fault.value, f"{totals.tally[fault]:,}")
    console.print(table)
    console.print(
        f"{totals.seeds} seeds, {2 * totals.seeds} runs, {totals.transactions:,} simulated transactions "
        f"({totals.committed:,} committed, {totals.rolled_back:,} told rolled back), {totals.crashes:,} crashes, "
        f"{totals.steps:,} steps, {totals.virtual_s:,.0f} simulated seconds, 0 violations, "
        f"{totals.seeds / took_s:.2f} seeds/s"
    )
    missing = [fault.name for fault in Fault if not totals.tally[fault]]
    if missing and totals.seeds >= ALL_KINDS_FROM_SEEDS:
        console.print(f"these faults never happened: {', '.join(missing)}")
        return 1
    return 0


def _explain(console: Console, verdict: Verdict) -> None:
    """Print what failed, with the fewest faults that still fail, and the end of that run's trace."""
    mix = verdict.result.mix
    console.print(mix.describe(), markup=False)
    for violation in verdict.violations:
        console.print(f"violation: {violation}", markup=False)
    smaller = shrink(mix)
    result = run_once(smaller, detailed=True)
    console.print(f"shrunk to {smaller.describe()}", markup=False)
    for line in list(result.lines)[-TAIL_LINES:]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for violation in result.violations:
        console.print(f"violation: {violation}", markup=False)
    if mix.seed:
        console.print(f"again: python -m tests.simulation --seed {mix.seed} --trace")


if __name__ == "__main__":
    sys.exit(main())
