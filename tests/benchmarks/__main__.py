"""``python -m tests.benchmarks``: the limits and the product in one run, in turns, on one PostgreSQL.

Every part ends with the invariants: money conserved, nothing in doubt, counts agree. Exit code 1 and
the sentences of what failed otherwise, or, with ``--guard``, where the product has fallen.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

import uvloop
from rich.console import Console

import participant_sdk.grpc_core  # noqa: F401  # pyright: ignore[reportUnusedImport]  First: gRPC reads what it sets.
from tests.benchmarks import guard, report
from tests.benchmarks.parts import PARTS, defaults
from tests.benchmarks.run import Plan, Run, server

TABLE_WIDTH: Final = 160


def read_plan(arguments: Sequence[str] | None = None) -> Plan:
    """The plan of a command line."""
    given = _parser().parse_args(arguments)
    accounts, rounds, seconds = (5_000, 1, 1.0) if given.quick else (100_000, None, 3.0)
    parts: tuple[str, ...] = given.parts
    if given.guard:
        parts, accounts = (guard.PART,), 20_000
    return Plan(
        parts=parts,
        accounts=given.accounts or accounts,
        rounds=given.rounds or rounds,
        seconds=given.seconds or seconds,
        soak_s=given.soak_seconds,
        finished=given.finished,
        output=given.output,
    )


def _parser() -> argparse.ArgumentParser:
    described = "; ".join(f"{name}: {part.what}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="The product against the machine's limits.",
        epilog=f"Parts, of which the long ones run only when they are named: {described}.",
    )
    parser.add_argument(
        "--parts", type=_parts, default=defaults(), help="names, separated by commas (all but the long)"
    )
    parser.add_argument("--guard", action="store_true", help="two minutes: fail where the product has fallen behind")
    parser.add_argument("--quick", action="store_true", help="one short round on few accounts: does everything work?")
    parser.add_argument("--accounts", type=int, help="in each database (100,000)")
    parser.add_argument("--rounds", type=int, help="of every part (each part's own: 1 to 5)")
    parser.add_argument("--seconds", type=float, help="for each measurement (3)")
    parser.add_argument("--soak-seconds", type=float, default=600.0, help="of the part soak (600)")
    parser.add_argument("--finished", type=int, default=10_000_000, help="in the log of the part filled (10,000,000)")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    return parser


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"there is no part {name!r}; there are {', '.join(PARTS)}")
    return names


async def _measure(run: Run) -> None:
    """Measure every part of the plan. One that breaks fails, and the others go on."""
    for name in run.plan.parts:
        with run.part(name):
            try:
                await PARTS[name].measure(run)
            except Exception as error:  # noqa: BLE001 - what is measured already must still be told
                run.fail([f"broke off: {''.join(traceback.format_exception(error))}"])


def _end(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C: a run has gigabytes of databases, which nobody else would remove. Once is enough."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


def main() -> int:
    """Run the benchmark; the exit code."""
    plan = read_plan()
    signal.signal(signal.SIGTERM, _end)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    folder = Path(tempfile.mkdtemp(prefix="pincex-bench-"))
    # PostgreSQL's account must reach its data, where it is another than ours.
    folder.chmod(0o711)
    try:
        with server(folder) as started:
            run = Run(plan, started, folder, console)
            environment = report.settings(started.dsn())
            uvloop.run(_measure(run))
    finally:
        shutil.rmtree(folder)
    report.show(run, environment)
    report.write(run, environment)
    for failure in run.failures:
        console.print(f"failed: {failure}", style="red", markup=False)
    console.print(f"bench: {'failed' if run.failures else 'every invariant holds'}; figures in {plan.output}")
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
