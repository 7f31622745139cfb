"""``python -m tests.simulation.machines``: the pure machines under a seeded scheduler, or every interleaving.

--seeds N             how many seeds of 100 transactions each
--start N             the first one
--exhaustive          every interleaving of the small cases instead
--depth D             with --exhaustive: at most so many moves from the first state
--states N            with --exhaustive: at most so many states of each case
--jobs N              with --seeds: so many processes; the results are the same
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.simulation.machines.cases import CASES
from tests.simulation.machines.exploration import explore
from tests.simulation.machines.runs import Account, Run, Trouble

ALL_KINDS_FROM_SEEDS: Final = 200
SHARE: Final = 100


def main() -> int:
    """Run what the command line asks for; 0 without a violation, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.machines")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=1)
    parser.add_argument("--exhaustive", action="store_true")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--states", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    if arguments.exhaustive:
        return _explore(console, arguments.depth, arguments.states)
    seeds = range(arguments.start, arguments.start + arguments.seeds)
    return _run(console, seeds, arguments.jobs)


def _explore(console: Console, depth: int, states: int) -> int:
    failed = False
    for case in CASES:
        began_s = time.monotonic()
        with console.status(case.name) as status:
            seen = explore(
                case, depth, states, lambda one, name=case.name: status.update(f"{name}: {one.states:,} states")
            )
        took_s = time.monotonic() - began_s
        whole = "all of them" if seen.is_complete else "the first ones"
        console.print(
            f"{case.name}: {seen.states:,} states ({whole}), depth {seen.depth}, {seen.moves:,} moves, "
            f"{seen.settled:,} healed and at rest, {len(seen.violations)} violations, {took_s:.0f} s",
            highlight=False,
        )
        for what, path in seen.violations:
            console.print(f"violation: {what}", markup=False)
            for number, step in enumerate(path, 1):
                console.print(f"  {number:3} {step}", markup=False, highlight=False)
        failed |= bool(seen.violations)
    return 1 if failed else 0


def _run(console: Console, seeds: range, jobs: int) -> int:
    began_s = time.monotonic()
    total = Account(0)
    columns = (TextColumn("running machines"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(seeds))
        for account in _accounts(seeds, jobs):
            total.add(account)
            progress.advance(bar)
            if account.violations:
                progress.stop()
                console.print(f"seed {account.seed}: {account.violations[0]}", markup=False)
                return 1
    took_s = time.monotonic() - began_s
    troubles = ", ".join(f"{trouble.name} {total.troubles[trouble]:,}" for trouble in Trouble)
    console.print(f"troubles: {troubles}", highlight=False)
    console.print(
        f"{len(seeds)} seeds, {total.transactions:,} transactions ({total.committed:,} committed), "
        f"{total.moves:,} moves, 0 violations, {total.transactions / took_s:,.0f} transactions/s, {jobs} processes",
        highlight=False,
    )
    missing = [trouble.name for trouble in Trouble if not total.troubles[trouble]]
    if missing and len(seeds) >= ALL_KINDS_FROM_SEEDS:
        console.print(f"these never happened: {', '.join(missing)}")
        return 1
    return 0


def _accounts(seeds: range, jobs: int) -> Iterator[Account]:
    if jobs == 1:
        for at in range(0, len(seeds), SHARE):
            yield from _share(seeds[at : at + SHARE])
        return
    shares = [seeds[at : at + SHARE] for at in range(0, len(seeds), SHARE)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        for accounts in pool.map(_share, shares):
            yield from accounts


def _share(seeds: range) -> list[Account]:
    # Nothing of a run is garbage before it ends.
    gc.disable()
    accounts = [Run(seed).run() for seed in seeds]
    gc.enable()
    gc.collect()
    return accounts


if __name__ == "__main__":
    sys.exit(main())
