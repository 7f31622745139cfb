"""Kill the product at every named point, under load, and at random; tell what was lost, and how long it took.

    python -m tests.crash                       every point, a share of random kills, the crash loop
    python -m tests.crash --point RECORDED --runs 5
    python -m tests.crash --coordinators 2      a survivor takes over
    python -m tests.crash --quick               a share of the points, other ones with each seed

Everything is real: processes, PostgreSQL with fsync, TCP. Seeded; bounded by what is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from coordinator.embedded import EmbeddedPostgres, Shutdown
from tests.conftest import MakeDatabase
from tests.crash.opening import fill_till
from tests.crash.placing import Point
from tests.crash.points import POINTS, named
from tests.crash.processes import cluster
from tests.crash.runs import Run, Runner
from tests.crash.table import table_of

LANES: Final = 2
RANDOM_KILLS: Final = 12
LOOP_KILLS: Final = 20
QUICK_S: Final = 150.0
WIDTH: Final = 130


def main() -> int:
    """Run what is asked for; 0 when nothing was lost, nothing is broken and every point was hit."""
    options = _options()
    console = Console(width=WIDTH)
    seed = options.seed or random.SystemRandom().getrandbits(32)
    console.print(f"seed {seed}")
    chosen = [named(name) for name in options.point] or list(POINTS)
    folder = Path(tempfile.mkdtemp(prefix="pincex-crash-"))
    folder.chmod(0o711)
    began_s = time.monotonic()
    try:
        runs = asyncio.run(_run(options, chosen, seed, folder, console))
    finally:
        if options.keep:
            console.print(f"kept in {folder}")
        else:
            shutil.rmtree(folder)
    console.print(table_of(runs))
    bad = [run for run in runs if not run.is_good]
    for run in bad:
        console.print(f"[red]{run.point}[/] hit {run.was_hit}, nth {run.nth}")
        for complaint in (*run.lost, *run.broken, *run.late)[:10]:
            console.print(f"  {complaint}", markup=False)
    lost = sum(len(run.lost) for run in runs)
    points = len({run.point for run in runs if run.was_hit})
    console.print(
        f"crash: {points} points, {len(runs)} runs, {sum(run.intents for run in runs)} transactions, lost {lost},"
        f" not as it should be: {len(bad)}; {time.monotonic() - began_s:.0f} s, seed {seed}"
    )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"seed": seed, "runs": [asdict(run) for run in runs]}, indent=1))
    return 1 if bad else 0


async def _run(
    options: argparse.Namespace, chosen: Sequence[Point], seed: int, folder: Path, console: Console
) -> list[Run]:
    server = EmbeddedPostgres(folder / "postgres", orphaned=Shutdown.IMMEDIATE)
    server.start()
    try:
        queue = _queue(chosen, options.runs, seed)
        until_s = time.monotonic() + (options.seconds or (QUICK_S if options.quick else math.inf))
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as progress:
            shown = progress.add_task("points", total=len(queue))
            runs: list[Run] = []

            async def lane(number: int) -> None:
                place = folder / f"lane{number}"
                place.mkdir()
                async with cluster(
                    place, _databases(server, number), coordinators=options.coordinators, bank=True
                ) as up:
                    await fill_till(up)
                    runner = Runner(up, f"{'abcdefgh'[number]}", seed + number)
                    while queue and time.monotonic() < until_s:
                        point = queue.pop(0)
                        progress.update(shown, description=point.name)
                        run = await runner.run(point)
                        runs.append(run)
                        progress.advance(shown)
                        if not run.is_good:
                            console.print(f"[red]{point.name}: {(*run.lost, *run.broken, *run.late, 'not hit')[0]}")
                    if not options.point and not options.quick:
                        await _at_random(runner, number, runs, progress)

            async with asyncio.TaskGroup() as group:
                for number in range(min(LANES, len(queue))):
                    group.create_task(lane(number))
        return runs
    finally:
        server.stop(Shutdown.IMMEDIATE)


async def _at_random(runner: Runner, number: int, runs: list[Run], progress: Progress) -> None:
    """The first lane kills anything at random, the second one's coordinator again and again in its recovery."""
    if number == 0:
        shown = progress.add_task("random kills", total=RANDOM_KILLS)
        for _ in range(RANDOM_KILLS):
            runs.append(await runner.kill_anything())
            progress.advance(shown)
    else:
        shown = progress.add_task("crash loop", total=1)
        runs.append(await runner.crash_loop(LOOP_KILLS))
        progress.advance(shown)


def _queue(chosen: Sequence[Point], runs: int, seed: int) -> list[Point]:
    """Every point once, then every point again; each time in another order, so that a share is a fair one."""
    queue: list[Point] = []
    for number in range(runs):
        queue += random.Random(seed + number).sample(chosen, len(chosen))
    return queue


def _databases(server: EmbeddedPostgres, number: int) -> MakeDatabase:
    async def make(name: str) -> str:
        return await asyncio.to_thread(server.create_database, f"lane{number}_{name}")

    return make


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kill everything, everywhere.")
    parser.add_argument("--runs", type=int, default=1, help="kills at each point")
    parser.add_argument("--point", action="append", default=[], choices=[point.name for point in POINTS])
    parser.add_argument("--coordinators", type=int, default=1, choices=(1, 2, 3))
    parser.add_argument("--seconds", type=float, default=0.0, help="begin no run at a point after so long; 0: no bound")
    parser.add_argument(
        "--quick", action="store_true", help=f"only as many points as fit into {QUICK_S:g} s, drawn by the seed"
    )
    parser.add_argument("--seed", type=int, default=0, help="0 draws one")
    parser.add_argument("--json", type=Path, help="where to write every run")
    parser.add_argument("--keep", action="store_true", help="keep the processes' logs and the databases")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
