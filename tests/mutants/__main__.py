"""Make every mutant, one after the other, and see that a witness notices it.

    python -m tests.mutants                  all of them, on both cores
    python -m tests.mutants COMMIT_SENT_EARLY NO_FENCE
    python -m tests.mutants --quick          for each the first witness only
    python -m tests.mutants --share 2/10     the second tenth of them, from every module some
    python -m tests.mutants --simulation     what the seeds of the simulation notice by themselves

It ends with 0 when every mutant was noticed or is proved harmless, else with 1.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.mutants.catalogue import MUTANTS
from tests.mutants.copies import PatchError, TreeCopy
from tests.mutants.mutant import Mutant, Seeds, Witness

JOBS_MAX: Final = 4


class Verdict(NamedTuple):
    """What became of one mutant. ``is_good``: it was noticed, or is proved harmless."""

    mutant: Mutant
    is_good: bool
    what: str
    took_s: float


def main() -> int:
    """Run the mutants that the command line names, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="Defects on purpose, and who notices.")
    parser.add_argument("names", nargs="*", help="only these mutants", metavar="NAME")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--quick", action="store_true", help="ask only each mutant's first witness")
    only.add_argument("--simulation", action="store_true", help="ask only the seeds, where a mutant names some")
    parser.add_argument("--share", type=_share, default=(1, 1), help="the I-th of N equal parts", metavar="I/N")
    parser.add_argument("--jobs", type=int, default=min(JOBS_MAX, os.cpu_count() or 1), help="how many at once")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no such mutant: {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not arguments.names or mutant.name in arguments.names]
    if arguments.quick:
        chosen = [mutant._replace(witnesses=mutant.witnesses[:1]) for mutant in chosen]
    elif arguments.simulation:
        chosen = [mutant._replace(witnesses=seeds) for mutant in chosen if (seeds := _seeds_of(mutant))]
    part, parts = arguments.share
    console = Console(width=None if sys.stdout.isatty() else 200)
    began_s = time.monotonic()
    verdicts = _judge(chosen[part - 1 :: parts], console, jobs=arguments.jobs)
    return _report(console, verdicts, time.monotonic() - began_s)


def _share(text: str) -> tuple[int, int]:
    """Read "I/N"; every N-th mutant from the I-th on is a part that has something of every module."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text}: not I/N with I from 1 to N")
    return int(part), int(parts)


def _seeds_of(mutant: Mutant) -> tuple[Witness, ...]:
    return tuple(witness for witness in mutant.witnesses if isinstance(witness, Seeds))


def _judge(mutants: Sequence[Mutant], console: Console, *, jobs: int) -> list[Verdict]:
    copies: SimpleQueue[TreeCopy] = SimpleQueue()
    columns = (TextColumn("mutating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        ExitStack() as stack,
        Progress(*columns, console=console, transient=True) as progress,
        ThreadPoolExecutor(jobs) as pool,
    ):
        for _ in range(jobs):
            copies.put(stack.enter_context(TreeCopy.made()))

        def judge(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                return _judge_one(mutant, copy)
            finally:
                copies.put(copy)

        verdicts: list[Verdict] = []
        for verdict in progress.track(pool.map(judge, mutants), total=len(mutants)):
            verdicts.append(verdict)
            if not verdict.is_good:
                console.print(f"{verdict.mutant.name}: {verdict.what}", style="bold red", markup=False)
        return verdicts


def _judge_one(mutant: Mutant, copy: TreeCopy) -> Verdict:
    began_s = time.monotonic()
    said: list[str] = []
    is_good = bool(mutant.harmless)
    try:
        with copy.patched(mutant.patches):
            for witness in mutant.witnesses:
                testimony = copy.ask(witness)
                said.append(testimony.what if testimony.is_sound else f"BROKEN WITNESS: {testimony.what}")
                if testimony.noticed:
                    is_good = True
                    break
    except PatchError as error:
        is_good, said = False, [f"DOES NOT APPLY: {error}"]
    if mutant.harmless and not said:
        said = [f"harmless: {mutant.harmless}"]
    return Verdict(mutant, is_good, said[-1] if is_good else f"SURVIVED: {'; '.join(said)}", time.monotonic() - began_s)


def _report(console: Console, verdicts: Sequence[Verdict], took_s: float) -> int:
    table = Table("mutant", "what it breaks", "noticed by", "s", title="mutants")
    for verdict in verdicts:
        style = None if verdict.is_good else "bold red"
        table.add_row(verdict.mutant.name, verdict.mutant.rule, verdict.what, f"{verdict.took_s:.0f}", style=style)
    console.print(table)
    killed = sum(verdict.is_good and not verdict.mutant.harmless for verdict in verdicts)
    harmless = sum(verdict.is_good and bool(verdict.mutant.harmless) for verdict in verdicts)
    survivors = [verdict.mutant.name for verdict in verdicts if not verdict.is_good]
    console.print(
        f"{killed} of {len(verdicts)} mutants killed, {harmless} proved harmless, "
        f"survivors: {', '.join(survivors) or 'none'}, in {took_s:.0f} s ({_cpu_s():.0f} s of CPU)"
    )
    return 1 if survivors else 0


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
