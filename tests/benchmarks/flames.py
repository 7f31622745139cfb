"""Where each microsecond goes: every process of the product sampled under load, by stage and as a flame graph.

``py-spy`` looks at a process's Python stacks many times a second from outside. A stage's share of the samples times
the CPU that the operating system counted, in a round that nobody looked at, is what the stage costs a transaction.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from rich.table import Table

from tests.benchmarks.processes import ProcessFailedError
from tests.benchmarks.product import CREDITED, DEBITED, Product, checked_product
from tests.benchmarks.run import Run
from tests.benchmarks.targets import APPLIED
from tests.benchmarks.transfers import wanted

IN_FLIGHT: Final = 512
LOOKS_PER_S: Final = 400
PROFILER: Final = Path(sys.executable).parent / "py-spy"
REST: Final = "gRPC, event loop, the rest"
# PostgreSQL's processes have no Python in them.
LOOKED_AT: Final = ("coordinator", DEBITED, CREDITED)

# The function that begins a stage. A sample belongs to the innermost of them on its stack.
STAGES: Final[Mapping[str, str]] = {
    "read_execute (coordinator/api/grpc_wire.py": "reading and checking requests",
    "Engine.submit (coordinator/engine.py": "beginning transactions",
    "Link._send_all (participant_sdk/link.py": "frames to participants",
    "Link._receive_all (participant_sdk/link.py": "frames from participants",
    "Answered.voted (coordinator/answered.py": "votes",
    "Appends.run (coordinator/log/appends.py": "the decision log",
    "Engine.recorded (coordinator/engine.py": "decisions on their way",
    "Answered.acknowledged (coordinator/answered.py": "acknowledgements",
    "Engine._finish (coordinator/engine.py": "finishing: line, metrics, history",
    "ClientStream._write (coordinator/api/grpc_stream.py": "answering clients",
    "_Session._take (participant_sdk/session.py": "reading frames",
    "AnswerQueue.next_frame (participant_sdk/answers.py": "writing answers",
    "Planner.plan (participant_sdk/resources/reservation_planning.py": "the ledger's reading of operations",
    "ReservationResource.apply (participant_sdk/resources/reservation.py": "batches to the database and back",
    "Workers._serve (participant_sdk/worker.py": "batches, dealt and answered",
}


async def measure_flames(run: Run) -> None:
    """A round that nobody looks at, one sampled by stage, and one drawn; the account of each process is printed."""
    folder = run.plan.output.parent / "flames"
    folder.mkdir(parents=True, exist_ok=True)
    async with checked_product(run) as running:
        figure = await running.measure(APPLIED, wanted(run, IN_FLIGHT))
        run.record(figure)
        for kind, suffix in (("raw", "txt"), ("flamegraph", "svg")):
            paths = {name: folder / f"{name}.{suffix}" for name in LOOKED_AT}
            await _watched(run, running, kind, paths)
    for name in LOOKED_AT:
        stages = by_stage((folder / f"{name}.txt").read_text().splitlines())
        run.console.print(_table(name, stages, figure.cpu_us[name]))
    run.console.print(f"flame graphs: {folder}/*.svg", highlight=False)


def by_stage(lines: Iterable[str]) -> Counter[str]:
    """Samples by stage. A line is a stack, outermost first, its frames apart by semicolons, and a count."""
    samples: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        # The thread in which gRPC waits is always found in the same place, and uses next to nothing.
        if "Thread._bootstrap" in stack:
            continue
        frames = [frame.rpartition(":")[0] for frame in stack.split(";")]
        samples[next((STAGES[frame] for frame in reversed(frames) if frame in STAGES), REST)] += int(count)
    return samples


async def _watched(run: Run, running: Product, kind: str, paths: Mapping[str, Path]) -> None:
    async with asyncio.TaskGroup() as group:
        for name, path in paths.items():
            group.create_task(_look(running.pids[name], kind, path, run.plan.seconds))
        group.create_task(running.measure(APPLIED, wanted(run, IN_FLIGHT)))


async def _look(pid: int, kind: str, path: Path, seconds: float) -> None:
    arguments = ("--pid", str(pid), "--rate", str(LOOKS_PER_S), "--duration", str(max(1, round(seconds))))
    looking = await asyncio.create_subprocess_exec(
        *(str(PROFILER), "record", *arguments, "--format", kind, "--output", str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await looking.communicate()
    if looking.returncode:
        raise ProcessFailedError(f"py-spy ended with {looking.returncode}:\n{errors.decode()}")


def _table(name: str, stages: Counter[str], cpu_us: float) -> Table:
    table = Table("stage", title=f"{name}: microseconds of CPU for a transaction, {cpu_us:.0f} in all")
    table.add_column("µs", justify="right")
    for stage, samples in stages.most_common():
        table.add_row(stage, f"{samples / stages.total() * cpu_us:.1f}")
    return table
