"""``python -m tests.simulation --seeds 100``: run seeds, count what happened, fail on the first violation.

--seeds N     how many seeds, each run twice
--start N     the first one
--seed X      only this one, shrunk if it fails
--trace       with --seed: print the whole trace
--jobs N      so many processes; the results are the same
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from random import Random
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.simulation.each_step import pairs, singles
from tests.simulation.faults import Fault, Mix, Sight, Tally, draw
from tests.simulation.observation import EVENTS, IMPOSSIBLE, PHASES, Pairs, missing, unforeseen
from tests.simulation.seeds import Verdict, run_once, run_seed, shrink

ALL_KINDS_FROM_SEEDS: Final = 200
TAIL_LINES: Final = 150
_Asked = TypeVar("_Asked")
_Came = TypeVar("_Came")


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
    fewest: int = 1_000_000
    tally: Tally = field(default_factory=Tally)
    pairs: Pairs = field(default_factory=Pairs)

    def add(self, verdict: Verdict) -> None:
        """Count a seed."""
        result = verdict.result
        self.seeds += 1
        self.transactions += result.transactions
        self.fewest = min(self.fewest, result.transactions)
        self.committed += result.committed
        self.rolled_back += result.rolled_back
        self.crashes += result.crashes
        self.steps += result.steps
        self.virtual_s += result.virtual_s
        self.tally.update(result.tally)
        self.pairs.update(result.pairs)


def main() -> int:
    """Run what the command line asks for; 0 without a violation, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Simulated runs under faults.")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (each runs twice)")
    parser.add_argument("--start", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print the whole trace")
    parser.add_argument("--each-step", action="store_true", help="kill each process after each of its steps, and pairs")
    parser.add_argument("--jobs", type=int, default=1, help="how many processes run seeds")
    arguments = parser.parse_args()
    console = Console()
    if arguments.seed is not None:
        return _one(console, arguments.seed, whole=arguments.trace)
    if arguments.each_step:
        return _each_step(console, [*singles(), *pairs(arguments.seeds, Random(arguments.start))], arguments.jobs)
    return _many(console, range(arguments.start, arguments.start + arguments.seeds), arguments.jobs)


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


def _many(console: Console, seeds: range, jobs: int) -> int:
    totals = Totals()
    began_s = time.monotonic()
    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress, _results(run_seed, seeds, jobs) as verdicts:
        for verdict in progress.track(verdicts, total=len(seeds)):
            totals.add(verdict)
            if verdict.violations:
                progress.stop()
                _explain(console, verdict)
                return 1
    return _report(console, totals, time.monotonic() - began_s)


@contextmanager
def _results(run: Callable[[_Asked], _Came], all_asked: Iterable[_Asked], jobs: int) -> Generator[Iterator[_Came]]:
    """Run all, in this process or in several; what comes of them comes in their order."""
    if jobs == 1:
        yield map(run, all_asked)
        return
    with get_context("fork").Pool(jobs) as pool:
        yield pool.imap(run, all_asked)


def _each_step(console: Console, mixes: Sequence[Mix], jobs: int) -> int:
    columns = (TextColumn("killing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress, _results(run_once, mixes, jobs) as results:
        for result in progress.track(results, total=len(mixes)):
            if result.violations:
                progress.stop()
                _explain(console, Verdict(result, result.violations))
                return 1
    console.print(f"{len(mixes)} runs with one or two kills at chosen steps, 0 violations")
    return 0


def _report(console: Console, totals: Totals, took_s: float) -> int:
    console.print(_pairs_table(totals.pairs))
    console.print(_counts_table("faults that happened", Fault, totals.tally))
    console.print(_counts_table("what came of them", Sight, totals.tally))
    console.print(
        f"{totals.seeds} seeds, {2 * totals.seeds} runs, {totals.transactions:,} simulated transactions begun "
        f"(at least {totals.fewest} in each), {totals.committed:,} committed, {totals.rolled_back:,} told rolled back, "
        f"{totals.crashes:,} crashes, {totals.steps:,} steps, {totals.virtual_s:,.0f} simulated seconds, "
        f"{sum(count > 0 for count in totals.pairs.values())} pairs of phase and event, "
        f"{totals.seeds / took_s:.2f} seeds/s, 0 violations",
        highlight=False,
    )
    unforeseen_pairs = [f"{event} in {phase}" for phase, event in unforeseen(totals.pairs)]
    if unforeseen_pairs:
        console.print(f"these were thought impossible: {', '.join(unforeseen_pairs)}")
        return 1
    if totals.seeds < ALL_KINDS_FROM_SEEDS:
        return 0
    never = [kind.name for kind in (*Fault, *Sight) if not totals.tally[kind]]
    never += [f"{event} in {phase}" for phase, event in missing(totals.pairs)]
    if never:
        console.print(f"these never happened: {', '.join(never)}")
    return 1 if never else 0


def _counts_table(title: str, kinds: Iterable[Fault | Sight], tally: Tally) -> Table:
    table = Table("name", "what it is", "times", title=title)
    for kind in kinds:
        table.add_row(kind.name, kind.value, f"{tally[kind]:,}")
    return table


def _pairs_table(pairs: Pairs) -> Table:
    """How often each event met each phase; a dash where that cannot be."""
    table = Table("event", *PHASES, title="events that transactions took, by phase")
    for event in EVENTS:
        cells = ["-" if (phase, event) in IMPOSSIBLE else f"{pairs[phase, event]:,}" for phase in PHASES]
        table.add_row(event, *cells)
    return table


def _explain(console: Console, verdict: Verdict) -> None:
    """Print what failed, with the fewest faults that still fail, and the end of that run's trace."""
    mix = verdict.result.mix
    console.print(mix.describe(), markup=False)
    for violation in verdict.violations:
        console.print(f"violation: {violation}", markup=False)
    smaller = shrink(mix, verdict.violations[0])
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
